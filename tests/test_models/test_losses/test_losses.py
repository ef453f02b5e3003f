import itertools

import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from mmseg.models.utils import get_uncertain_point_coords_with_randomness

from mmseg_alignzeg.models.losses import (
    BackgroundDiversityLoss,
    FeatureExpansionLoss,
    HungarianMatcher,
    background_diversity,
    classification_loss,
    dice_loss,
    expand,
    mask_loss,
    virtual_logits,
)
from mmseg_alignzeg.models.losses.feature_expansion import derangement
from mmseg_alignzeg.models.losses.sampling import uncertain_points


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=-1)


def test_expand_and_virtual_logits_are_equations_2_and_3():
    feats, labels, text = unit(4, 6), torch.tensor([2, 0, 1, 1]), unit(3, 6)
    order, beta, scale = torch.tensor([1, 3, 0, 2]), 0.3, 5.0
    virtual = virtual_logits(expand(feats, order, beta), expand(text[labels], order, beta), text, scale)
    for i in range(4):
        j = int(order[i])
        feat = beta * feats[i] + (1 - beta) * feats[j]
        embed = beta * text[labels[i]] + (1 - beta) * text[labels[j]]
        feat, embed = feat / feat.norm(), embed / embed.norm()
        expected = [scale * float(feat @ text[c]) for c in range(3)] + [scale * float(feat @ embed)]
        torch.testing.assert_close(virtual[i], torch.tensor(expected))


def test_feature_expansion_labels_every_virtual_feature_with_the_extra_class():
    loss = FeatureExpansionLoss(alpha=3, loss_weight=0.5)
    feats, labels, text = unit(5, 6), torch.tensor([0, 1, 2, 1, 0]), unit(3, 6)
    torch.manual_seed(1)
    value = loss(feats, labels, text, 5.0)
    torch.manual_seed(1)
    beta, cycle = torch.distributions.Beta(3.0, 3.0).sample().item(), torch.randperm(5).tolist()
    following = dict(zip(cycle[1:] + cycle[:1], cycle, strict=True))  # item → the one before it on the cycle
    order = torch.tensor([following[i] for i in range(5)])
    logits = virtual_logits(expand(feats, order, beta), expand(text[labels], order, beta), text, 5.0)
    expected = -0.5 * (logits[:, 3] - logits.exp().sum(dim=1).log()).mean()
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize('number', [0, 1])
def test_feature_expansion_needs_a_pair_and_is_else_zero_with_a_gradient(number):
    feats = torch.ones(number, 6, requires_grad=True)
    value = FeatureExpansionLoss()(feats, torch.zeros(number, dtype=torch.long), unit(3, 6), 5.0)
    value.backward()
    assert value.item() == 0 and not feats.grad.any()


@pytest.mark.parametrize('size', [2, 3, 4])
def test_no_proposal_is_mixed_with_itself_and_every_partner_is_as_likely(size):
    torch.manual_seed(0)
    orders = torch.stack([derangement(size) for _ in range(3000)])
    assert (orders != torch.arange(size)).all()
    assert (orders.sort(dim=1).values == torch.arange(size)).all()
    partners = F.one_hot(orders[:, 0], size).float().mean(dim=0)
    torch.testing.assert_close(partners[1:], torch.full((size - 1,), 1 / (size - 1)), atol=0.04, rtol=0)


def test_beta_distribution_is_symmetric_with_variance_1_over_28():
    draws = FeatureExpansionLoss(alpha=3).beta.sample((20000,))
    assert draws.mean().item() == pytest.approx(0.5, abs=0.01)
    assert draws.var().item() == pytest.approx(1 / 28, rel=0.05)


def test_background_diversity_is_equation_4():
    g = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, -1.0]])
    # g1·g2 = 0.6, g1·g3 = 0, g2·g3 = -0.8; 2 / (3·2) · (-0.2)
    assert background_diversity(g).item() == pytest.approx(-0.2 / 3)
    assert BackgroundDiversityLoss(loss_weight=3)(g).item() == pytest.approx(-0.2)


def test_background_diversity_needs_two():
    with pytest.raises(ValueError, match='at least two background prototypes, got 1'):
        background_diversity(torch.ones(1, 4))


def test_classification_loss_by_hand():
    scores = torch.randn(2, 3, 3)
    labels = torch.tensor([[0, 2, 2], [1, 2, 0]])
    log_probs = scores - scores.exp().sum(dim=2, keepdim=True).log()
    total = weight = 0.0
    for b, n in itertools.product(range(2), range(3)):
        w = 0.1 if labels[b, n] == 2 else 1.0
        total -= w * log_probs[b, n, labels[b, n]].item()
        weight += w
    assert classification_loss(scores, labels).item() == pytest.approx(total / weight, rel=1e-5)


def test_dice_loss_by_hand():
    # p = (0.5, 0.5), t = (1, 0): 1 - (2·0.5 + 1) / (1 + 1 + 1)
    assert dice_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize(('logit', 'target'), [(2.0, 1), (2.0, 0), (-1.0, 1), (-1.0, 0)])
def test_sampled_losses_equal_dense_ones_on_constant_masks(logit, target):
    logits, targets = torch.full((3, 4, 4), logit), torch.full((3, 16, 16), target)
    bce, dice = mask_loss(logits, targets, avg_factor=3, num_points=256)
    dense_logits, dense_targets = torch.full((3, 256), logit), torch.full((3, 256), float(target))
    torch.testing.assert_close(bce, F.binary_cross_entropy_with_logits(dense_logits, dense_targets))
    torch.testing.assert_close(dice, dice_loss(dense_logits, dense_targets).mean())


def test_mask_loss_of_nothing_is_zero_with_a_gradient():
    logits = torch.zeros(0, 4, 4, requires_grad=True)
    bce, dice = mask_loss(logits, torch.zeros(0, 8, 8), avg_factor=1)
    (bce + dice).backward()
    assert bce.item() == dice.item() == 0


def target(labels, masks):
    return InstanceData(labels=torch.tensor(labels, dtype=torch.long), masks=masks)


def test_matching_finds_the_cheapest_assignment():
    masks = torch.zeros(2, 8, 8)
    masks[0, :, :4] = masks[1, :4, 4:] = 1
    mask_logits = torch.randn(4, 8, 8)
    mask_logits[3] = 4 * masks[0] - 2
    scores = torch.randn(4, 4)
    (match,) = HungarianMatcher(num_points=16384)(scores[None], mask_logits[None], [target([2, 0], masks)])
    # Dense costs on a fine grid, and all assignments.
    fine_logits, fine_masks = (
        F.interpolate(x[None], scale_factor=16, mode='bilinear')[0].flatten(1) for x in (mask_logits, masks)
    )
    rate = 16384 / fine_masks.shape[1]  # dice has a constant 1 beside its sums, so the number of points matters
    dense = torch.zeros(4, 2)
    for n, g in itertools.product(range(4), range(2)):
        bce = F.binary_cross_entropy_with_logits(fine_logits[n], fine_masks[g])
        p, t = fine_logits[n].sigmoid(), fine_masks[g]
        dice = 1 - (2 * rate * (p * t).sum() + 1) / (rate * (p.sum() + t.sum()) + 1)
        dense[n, g] = 5 * bce + 5 * dice
    torch.testing.assert_close(match.mask_cost, dense, rtol=0.02, atol=0.0)
    total = dense - 2 * scores.softmax(dim=1)[:, [2, 0]]
    best = min(itertools.permutations(range(4), 2), key=lambda pair: total[pair[0], 0] + total[pair[1], 1])
    found = dict(zip(match.targets.tolist(), match.proposals.tolist(), strict=True))
    assert found == {0: best[0], 1: best[1]} and best[0] == 3


def test_more_masks_than_proposals_are_matched_as_far_as_possible_and_said_once(monkeypatch):
    said = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, message: said.append(message))
    matcher = HungarianMatcher(num_points=64)
    for _ in range(2):
        (match,) = matcher(torch.randn(1, 2, 4), torch.randn(1, 2, 4, 4), [target([0, 1, 2], torch.ones(3, 3, 3))])
    assert len(match.proposals) == 2 and match.mask_cost.shape == (2, 3)
    assert len(said) == 1 and ' 3 ' in said[0] and ' 2 ' in said[0]


def test_an_image_without_labels_matches_nothing():
    nothing = target([], torch.zeros(0, 8, 8))
    (match,) = HungarianMatcher(num_points=64)(torch.randn(1, 2, 4), torch.randn(1, 2, 4, 4), [nothing])
    assert len(match.proposals) == 0 and match.mask_cost.shape == (2, 0)


def test_uncertain_points_are_those_of_mmseg_away_from_the_border_and_not_drawn_to_it():
    logits = torch.full((2, 1, 16, 16), 9.0)
    logits[:, :, 4:12, 5:11] = 1e-3 * torch.randn(2, 1, 8, 6)
    torch.manual_seed(0)
    found = uncertain_points(logits, 64, 4.0, 0.3)
    torch.manual_seed(0)
    torch.testing.assert_close(found, get_uncertain_point_coords_with_randomness(logits, None, 64, 4.0, 0.3))
    logits[:, :, 1:15, 1:15] = 1e-3 * torch.randn(2, 1, 14, 14)
    torch.manual_seed(0)
    found = uncertain_points(logits, 64)
    torch.manual_seed(0)
    # The ratios of mmseg's SAN.
    torch.testing.assert_close(found, get_uncertain_point_coords_with_randomness(logits, None, 64, 3.0, 0.75))
    nine, centre = torch.full((1, 1, 16, 16), 9.0), torch.tensor([0.5, 0.5])
    nine[..., 7:9, 7:9] = 5.0  # with zeros around the mask, its outermost half pixel would come first
    important = uncertain_points(nine, 8, 500.0, 1.0)
    assert ((important - centre).abs() < 0.1).all()
