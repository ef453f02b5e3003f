"""Callers share one model: each asks its own question, and none changes the answer of another."""

from dataclasses import replace

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from mmseg_alignzeg.datasets.patterns import CLASSES, UNSEEN_CLASSES
from mmseg_alignzeg.models import CalibratedStacking, PredictiveBiasCorrection

SEEN_CLASSES = [name for name in CLASSES if name not in UNSEEN_CLASSES]
WORDS = [SEEN_CLASSES[0], UNSEEN_CLASSES[0]]


@pytest.fixture(scope='module')
def model():
    cfg = Config.fromfile('configs/alignzeg_patterns.py').model
    cfg.decode_head.num_queries = 8
    cfg.test_cfg = dict(return_scores=True)
    return MODELS.build(cfg).eval()


def scores(model, images, question=None):
    return model.predict(images, question=question)[0].seg_logits.data


def test_an_asked_question_is_answered_as_the_default_one(model):
    images, before = torch.randn(1, 3, 64, 64), model.question
    asked = replace(model.ask(WORDS), bias_correction=PredictiveBiasCorrection(1e-9))
    plain, answer = scores(model, images), scores(model, images, asked)
    assert answer.shape == (2, 64, 64) and model.question is before
    assert torch.equal(scores(model, images), plain)
    try:
        model.question = asked
        assert torch.equal(scores(model, images), answer)
    finally:
        model.question = before


def test_every_setting_of_a_question_acts(model):
    torch.manual_seed(0)
    images = torch.randn(1, 3, 64, 64)
    asked = replace(model.ask(WORDS), bias_correction=PredictiveBiasCorrection(1e-9))
    others = [
        asked.without_correction(),
        replace(asked, calibration=CalibratedStacking(0.1)),
        replace(asked, background_at_test='ignore'),
        replace(model.ask(WORDS, unseen=[]), bias_correction=asked.bias_correction),
        replace(model.ask(WORDS[::-1]), bias_correction=asked.bias_correction),
    ]
    answer = scores(model, images, asked)
    same = [i for i, other in enumerate(others) if torch.equal(scores(model, images, other), answer)]
    assert same == []


def test_calibration_lowers_the_seen_words_alone(model):
    asked = replace(
        model.ask([SEEN_CLASSES[0], 'sky', SEEN_CLASSES[1]], unseen=['sky']), calibration=CalibratedStacking(0.25)
    )
    assert asked.seen.tolist() == [True, False, True]
    assert asked.class_bias('cpu').tolist() == [-0.25, 0.0, -0.25]
    assert model.ask(['sky']).class_bias('cpu') is None


@pytest.mark.parametrize('words', [[], ['sky', 'sky'], ['sky', ' ']])
def test_words_that_make_no_vocabulary_are_refused(model, words):
    with pytest.raises(ValueError, match='classes'):
        model.ask(words)


def test_an_unseen_word_outside_the_question_is_refused(model):
    with pytest.raises(ValueError, match="'grass'"):
        model.ask(['sky'], unseen=['grass'])
