import math

import pytest
import torch

from mmseg_alignzeg.models.bias_correction import (
    ClassIndicator,
    PredictiveBiasCorrection,
    bias_correction_loss,
    select_negatives,
)
from mmseg_alignzeg.models.losses import Match


def test_negatives_are_the_intersection_of_the_top_k():
    # Nine proposals, three seen classes, K = 5, as in figure 4: p1..p3 are matched; the five largest losses are
    # {2,4,5,6,7}, {1,5,6,7,8} and {3,4,5,6,7}; their intersection is {5,6,7}.
    tops = [{2, 4, 5, 6, 7}, {1, 5, 6, 7, 8}, {3, 4, 5, 6, 7}]
    cost = torch.tensor([[(10.0 if n in top else 0.0) + 0.1 * n for top in tops] for n in range(1, 10)])
    selected = select_negatives(cost, torch.tensor([0, 1, 2]), top_k=5)
    assert (selected.nonzero().squeeze(1) + 1).tolist() == [5, 6, 7]


def test_matched_proposals_are_never_negative():
    cost = torch.tensor([[3.0], [2.0], [1.0]])
    assert select_negatives(cost, torch.tensor([0]), top_k=2).tolist() == [False, True, False]


def test_an_image_without_labels_selects_nothing():
    assert not select_negatives(torch.zeros(4, 0), torch.tensor([], dtype=torch.long), top_k=3).any()


def test_top_k_beyond_the_number_of_proposals():
    assert select_negatives(torch.rand(4, 2), torch.tensor([1]), top_k=50).tolist() == [True, False, True, True]


def test_loss_is_equation_6():
    indicator, targets = torch.tensor([0.2, 0.9, 0.6]), torch.tensor([0.0, 1.0, 1.0])
    expected = -(math.log(0.8) + math.log(0.9) + math.log(0.6)) / 3
    assert bias_correction_loss(indicator.logit(), targets).item() == pytest.approx(expected, rel=1e-5)


def test_balanced_loss_weighs_the_two_kinds_alike():
    indicator, targets = torch.tensor([0.2, 0.9, 0.8, 0.6]), torch.tensor([0.0, 1.0, 1.0, 1.0])
    negatives = -(math.log(0.9) + math.log(0.8) + math.log(0.6)) / 3
    expected = (-math.log(0.8) + negatives) / 2
    assert bias_correction_loss(indicator.logit(), targets, balanced=True).item() == pytest.approx(expected, rel=1e-5)
    only = bias_correction_loss(indicator[:1].logit(), targets[:1], balanced=True)
    assert only.item() == pytest.approx(-math.log(0.8) / 2, rel=1e-5)


def test_loss_of_nothing_is_zero_with_a_gradient():
    logits = torch.zeros(0, requires_grad=True)
    loss = bias_correction_loss(logits, torch.zeros(0))
    loss.backward()
    assert loss.item() == 0


def test_indicator_labels_seen_0_and_background_1_and_detaches():
    indicator = ClassIndicator(embed_dim=8, top_k=2, loss_weight=2.0)
    feats = torch.randn(1, 4, 8, requires_grad=True)
    cost, matched = torch.tensor([[0.0], [5.0], [6.0], [1.0]]), torch.tensor([0])
    logits = indicator(feats)[0]
    expected = 2 * bias_correction_loss(logits[[0, 1, 2]], torch.tensor([0.0, 1.0, 1.0]))
    negatives = indicator.negatives([Match(matched, torch.tensor([0]), cost)])
    loss = indicator.loss(feats, [matched], negatives)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert feats.grad is None and all(param.grad.any() for param in indicator.parameters())


def test_correction_is_equation_7_by_brute_force():
    scores, indicator = torch.randn(2, 5, 4), torch.rand(2, 5)
    seen = torch.tensor([True, False, True])
    corrected = PredictiveBiasCorrection(gamma=0.4)(scores, indicator, seen)
    for b in range(2):
        v_min = min(scores[b, i, j].item() for i in range(5) for j in range(4))
        for i in range(5):
            for j in range(4):
                is_seen = j < 3 and bool(seen[j])  # column 3 is the background
                expected = v_min if indicator[b, i] > 0.4 and is_seen else scores[b, i, j].item()
                assert corrected[b, i, j].item() == expected


def test_gamma_1_changes_nothing():
    scores = torch.randn(1, 3, 3)
    assert torch.equal(PredictiveBiasCorrection(1.0)(scores, torch.ones(1, 3), torch.tensor([True, False])), scores)


@pytest.mark.parametrize('gamma', [-0.1, 1.5, float('nan')])
def test_gamma_outside_its_range(gamma):
    with pytest.raises(ValueError, match=r'gamma=.* is outside \[0, 1\]'):
        PredictiveBiasCorrection(gamma)
