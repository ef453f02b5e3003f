"""AUROC, histograms, confusions of unseen classes, and what is left out."""

import itertools
import json

import numpy as np
import pytest
import torch

from alignzeg.analysis import AnalysisTask, ImageProposals, Summary, Variant, plan_variants
from alignzeg.analysis.collect import ViewScores
from alignzeg.analysis.summary import (
    histogram,
    indicator_groups,
    indicator_quality,
    mask_quality,
    unseen_confusion,
)
from mmseg_alignzeg.models.proposals import Window
from mmseg_alignzeg.vocabulary import Vocabulary

CLASSES = ('cat', 'dog', 'sky')


def test_auroc_counts_pairs():
    groups = {'seen': np.array([0.1, 0.4, 0.4]), 'unseen': np.array([0.4, 0.9]), 'background': np.array([1.0])}
    result = indicator_quality(groups, 0.4)
    pairs = [(u > s) + 0.5 * (u == s) for u, s in itertools.product(groups['unseen'], groups['seen'])]
    assert result['auroc'] == pytest.approx(np.mean(pairs))
    assert [result[name]['above_base'] for name in groups] == [0, 0.5, 1]
    assert indicator_quality({}, None) == {}
    assert indicator_quality({**groups, 'unseen': np.array([])}, 0.4)['auroc'] is None


def test_proposals_are_grouped_by_what_they_match():
    matched = torch.tensor([[3, 1], [0, 2]])
    groups = indicator_groups(torch.tensor([0.1, 0.2, 0.3, 0.4]), matched, torch.tensor([True, False, True]))
    assert list(groups) == ['seen', 'unseen', 'background']
    assert torch.cat(list(groups.values())).tolist() == pytest.approx([0.1, 0.4, 0.2, 0.3])


def test_histogram_has_both_ends():
    result = histogram(np.array([0.0, 0.049, 0.05, 1.0]))
    assert result['histogram'] == [2, 1, *[0] * 16, 0, 1] and result['count'] == 4
    assert histogram(np.array([]))['mean'] is None


def test_mask_quality_leaves_absent_classes_out():
    ious = torch.tensor([[0.2, torch.nan, 0.8], [1.0, 0.5, torch.nan]])
    result = mask_quality(ious, torch.tensor([False, True, False]))
    assert result['seen']['count'] == 3 and result['seen']['mean'] == pytest.approx(2 / 3)
    assert result['seen']['above_half'] == pytest.approx(2 / 3) and result['unseen']['above_half'] == 0


def test_confusions_by_hand():
    confusion = torch.zeros(5, 6).long()
    confusion[1] = torch.tensor([9, 50, 20, 5, 11, 5])  # the last one predicts no class
    unseen = torch.tensor([False, True, False, True, False])
    (row,) = unseen_confusion(confusion, unseen, list('abcde'))
    takers = [['c', 20], ['e', 11], ['a', 9]]
    assert row == dict(name='b', pixels=100, itself=50, other_unseen=5, seen=40, takers=takers)


def image(with_indicator=True):
    view = ViewScores(torch.randn(4, 3, 3), torch.randn(4, 4), torch.rand(4) if with_indicator else None)
    return ImageProposals(
        (view,),
        torch.randint(0, 3, (12, 9)),
        Window(0.0, 0.0, 1.0, 1.0, (12, 9)),
        torch.tensor([[0, 0], [2, 1]]),
    )


def summarise(unseen=('dog',), base=0.3, images=2):
    task = AnalysisTask(
        Vocabulary(CLASSES, unseen), tuple(name for name in CLASSES if name not in unseen), 255, 'share', 9
    )
    own = Variant(base)
    summary = Summary(plan_variants([0.5], [0.0, 0.1], own, base, task.has_both), own, base, task)
    for _ in range(images):
        summary.add(image(base is not None))
    return summary.result()


def test_all_numbers_are_plain():
    result = summarise()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result['images'] == 2 and [row['own'] for row in result['rows']].count(True) == 1
    assert set(result['confusion']) == {'without PBC', 'with PBC'} and result['left_out'] == []
    assert [result['indicator'][name]['count'] for name in ('seen', 'unseen', 'background')] == [2, 2, 4]


@pytest.mark.parametrize(
    ('arguments', 'sentence', 'measure'),
    [
        (dict(base=None), 'no class indicator', 'hIoU'),
        (dict(unseen=()), 'No test class is unseen', 'mIoU_seen'),
        (dict(unseen=CLASSES), 'All test classes are unseen', 'mIoU_unseen'),
    ],
)
def test_what_does_not_exist_is_left_out_and_said(arguments, sentence, measure):
    result = summarise(**arguments)
    assert sentence in result['left_out'][0] and measure in result['rows'][0]
    assert json.dumps(result, allow_nan=False)
