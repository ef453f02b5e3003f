"""From proposals to labels: views merged by brute force, and each decoder in the segmentor."""

import pytest
import torch
import torch.nn.functional as F
from merged_views import merge
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from small_model import build

from mmseg_alignzeg.models.answer import ViewProposals


def ensemble(*views):
    return MODELS.build(dict(type='EnsembleDecoder', views=list(views)))


def test_one_view_is_the_image_itself_to_the_last_bit():
    options = dict(test_cfg=dict(return_scores=True), calibration=dict(type='CalibratedStacking', constant=0.1))
    model = build(decoder=dict(type='EnsembleDecoder', views=[dict()]), **options).eval()
    plain = build(**options).eval()
    images = torch.randn(2, 3, 77, 101)
    metainfo = dict(ori_shape=(60, 70), img_padding_size=(0, 5, 0, 7), flip=True, flip_direction='horizontal')
    for samples in (lambda: None, lambda: [SegDataSample(metainfo=metainfo) for _ in images]):
        for ours, theirs in zip(model.predict(images, samples()), plain.predict(images, samples()), strict=True):
            assert torch.equal(ours.seg_logits.data, theirs.seg_logits.data)
            assert torch.equal(ours.pred_sem_seg.data, theirs.pred_sem_seg.data)
    assert torch.equal(model.encode_decode(images, [{}, {}]), plain.encode_decode(images, [{}, {}]))
    model.return_scores = False
    assert 'seg_logits' not in model.predict(images)[0]


def test_one_look_answers_many_questions():
    model = build().eval()
    images = torch.randn(1, 3, 64, 80)
    looks, looked = model.look(images), model.extract_feat
    model.extract_feat = None  # asking needs no encoder
    questions = [model.question, model.question.without_correction(), model.ask(['zebra', 'sky'])]
    labels = [model.answer(looks, [SegDataSample()], (64, 80), question)[0].labels() for question in questions]
    model.extract_feat = looked
    for found, question in zip(labels, questions, strict=True):
        assert torch.equal(found, model.predict(images, None, question)[0].pred_sem_seg.data)


@pytest.mark.parametrize(('flip', 'axis'), [('horizontal', -1), ('vertical', -2)])
def test_a_flipped_view_lays_its_masks_back(flip, axis):
    """The input is no multiple of the stride: padding is at the other side of the flipped view."""
    model = build().eval()
    images = torch.randn(1, 3, 70, 90)
    padded = F.pad(images, (0, 6, 0, 10))
    by_hand = model.encode_decode(padded.flip(axis), [{}]).flip(axis)[:, :, :70, :90]
    model.decoder = ensemble(dict(flip=flip))
    flipped = model.encode_decode(images, [{}])
    torch.testing.assert_close(flipped, by_hand)
    model.decoder = MODELS.build(dict(type='SemanticDecoder'))
    plain = model.encode_decode(images, [{}])
    assert not torch.allclose(plain, flipped)
    model.decoder = ensemble(dict(), dict(flip=flip))
    torch.testing.assert_close(model.encode_decode(images, [{}]), (plain + flipped) / 2)


@pytest.mark.parametrize(('scale', 'size'), [(0.75, (48, 64)), (1.4, (96, 112))])
def test_a_view_at_another_scale(scale, size):
    """64 × 80 times the scale, to whole strides of 16."""
    model = build().eval()
    images = torch.randn(1, 3, 64, 80)
    masks, probs = model._forward(F.interpolate(images, size=size, mode='bilinear', antialias=True))
    by_hand = merge([ViewProposals(masks[0], probs[0])], 64, 80)
    model.decoder = ensemble(dict(scale=scale))
    torch.testing.assert_close(model.encode_decode(images, [{}])[0], by_hand)


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(views=[]), '`views` is empty'),
        (dict(views='flip'), "views='flip' must be a list of dicts"),
        (dict(views=['flip']), r"views=\['flip'\] must be a list of dicts"),
        (dict(views=[dict(rotate=90)]), r"unknown argument\(s\) \['rotate'\]: these are known: \['flip', 'scale'\]"),
        (dict(views=[dict(flip='diagonal')]), "flip='diagonal' of a view must be one of"),
        (dict(views=[dict(scale=3)]), r'scale=3 of a view is outside \[0.5, 2.0\]'),
        (dict(views=[dict(scale=0.4)]), r'scale=0.4 of a view is outside'),
    ],
)
def test_bad_ensembles_get_one_clear_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        MODELS.build(dict(type='EnsembleDecoder', **arguments))
    assert '\n' not in str(error.value)
