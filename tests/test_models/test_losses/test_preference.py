"""The preference loss: noise, IoU, who is compared with whom, and the loss itself, against cases done by hand."""

import math

import pytest
import torch
from mmseg.registry import MODELS

from mmseg_alignzeg.models.losses import cover_with_noise, mask_iou, ranked_pairs, ranking_loss

NAN = float('nan')


def pairs(ious, medium=True, margin=0.0):
    """As a set of (better, worse, mask)."""
    found = ranked_pairs(torch.tensor(ious), medium, margin)
    assert all(side.dtype == torch.long for side in found)
    return set(zip(*(side.tolist() for side in found), strict=True))


def test_the_best_is_compared_with_the_worst_first_and_the_medium_later():
    ious = [[0.2, 0.9], [0.8, 0.5], [0.5, 0.1]]
    early = {(1, 0, 0), (0, 2, 1)}
    assert pairs(ious, medium=False) == early
    assert pairs(ious, medium=True) == early | {(1, 2, 0), (2, 0, 0), (0, 1, 1), (1, 2, 1)}


def test_ties_carry_no_pair():
    assert pairs([[0.5], [0.5], [0.5]]) == set()
    assert pairs([[0.5], [0.7], [0.5]]) == {(1, 0, 0), (1, 2, 0)}
    ious = [[0.50, 0.50], [0.55, 0.70], [0.65, 0.72]]
    assert pairs(ious, margin=0.1) == {(2, 0, 0), (1, 0, 1), (2, 0, 1)}
    assert pairs([[0.25], [0.5]], margin=0.25) == set()  # a difference of the margin itself is a tie


def test_masks_without_a_proposal_in_some_version_are_left_out():
    assert pairs([[NAN, 0.1], [0.9, 0.3]]) == {(1, 0, 1)}
    assert pairs([[NAN], [NAN], [0.3]], medium=False) == set()


def test_loss_is_that_of_bradley_and_terry():
    scores = torch.tensor([[0.5, -1.0], [2.0, 0.0], [1.0, 3.0]])
    found = ranked_pairs(torch.tensor([[0.2, 0.9], [0.8, 0.5], [0.5, 0.1]]), medium=False)
    # Mask 0: 2.0 should beat 0.5, and does; mask 1: -1.0 should beat 3.0, and does not.
    expected = (math.log(1 + math.exp(-1.5)) + math.log(1 + math.exp(4))) / 2
    assert ranking_loss(scores, found).item() == pytest.approx(expected, rel=1e-6)


def test_gradient_raises_the_better_score_and_lowers_the_worse():
    scores = torch.randn(3, 4, dtype=torch.double, requires_grad=True)
    ious = torch.rand(3, 4)
    assert torch.autograd.gradcheck(lambda r: ranking_loss(r, ranked_pairs(ious, True)), [scores])
    ranking_loss(scores, ranked_pairs(ious, True)).backward()
    columns = torch.arange(4)
    assert (scores.grad[ious.argmax(0), columns] < 0).all() and (scores.grad[ious.argmin(0), columns] > 0).all()
    torch.testing.assert_close(scores.grad.sum(0), torch.zeros(4, dtype=torch.double))  # only differences count


@pytest.mark.parametrize('masks', [0, 2])
def test_without_a_pair_the_loss_is_zero_with_a_gradient(masks):
    scores = torch.randn(3, masks, requires_grad=True)
    loss = ranking_loss(scores, ranked_pairs(torch.full((3, masks), 0.5), True))
    loss.backward()
    assert loss.item() == 0 and torch.equal(scores.grad, torch.zeros(3, masks))


def test_curriculum_follows_the_step():
    loss = MODELS.build(dict(type='PreferenceLoss', medium_from=7, margin=0.0, loss_weight=2.0))
    scores, ious = torch.tensor([[2.0], [1.0], [-1.0]]), torch.tensor([[0.9], [0.6], [0.1]])
    high_low, high_medium, medium_low = (math.log(1 + math.exp(-gap)) for gap in (3, 1, 2))
    assert loss(scores, ious, 6).item() == pytest.approx(2 * high_low)
    assert loss(scores, ious, 7).item() == pytest.approx(2 * (high_low + high_medium + medium_low) / 3)


def test_iou_by_hand():
    targets = torch.zeros(3, 4, 4)
    targets[0, :, :2] = targets[1, :2, :2] = 1
    logits = torch.full((3, 4, 4), -2.0)
    logits[0, :2] = logits[1, :2, :2] = 2.0
    assert mask_iou(logits, targets).tolist() == pytest.approx([4 / 12, 1.0, 0.0])
    assert mask_iou(logits[:0], targets[:0]).shape == (0,)


def test_iou_of_a_coarse_grid_is_taken_at_the_size_of_the_target():
    targets = torch.zeros(1, 8, 8)
    targets[:, :, :4] = 1
    logits = torch.tensor([[[2.0, -2.0], [2.0, -2.0]]])  # linear between: 0 in the middle
    assert mask_iou(logits, targets).item() == 1.0


def test_noise_covers_rectangles_and_nothing_else():
    images = torch.full((3, 3, 64, 48), 7.0)
    noisy = cover_with_noise(images, 1, (0.25, 0.5))
    assert (images == 7).all()
    boxes = []
    for image in noisy:
        changed = (image != 7).all(dim=0)
        assert torch.equal(changed, (image != 7).any(dim=0))
        rows, columns = changed.any(dim=1).nonzero()[:, 0], changed.any(dim=0).nonzero()[:, 0]
        assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert changed.sum() == len(rows) * len(columns)
        assert 15 <= len(rows) <= 33 and 11 <= len(columns) <= 25  # a quarter to a half, give or take a pixel
        boxes.append((rows[0].item(), rows[-1].item(), columns[0].item(), columns[-1].item()))
    assert len(set(boxes)) == 3


def test_noise_looks_like_normalised_pixels():
    noise = cover_with_noise(torch.full((2, 3, 64, 64), 7.0), 2, (1.0, 1.0))
    assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(views=[dict()]), 'must be at least two: a preference compares'),
        (dict(views=[]), '`views` is empty'),
        (dict(views=[dict(), dict(scale=9)]), 'scale=9 of a view is outside'),
        (dict(rectangles=0), 'rectangles=0 and interval=1 must be at least 1'),
        (dict(interval=0), 'interval=0 must be at least 1'),
        (dict(medium_from=-1), 'medium_from=-1 at least 0'),
        (dict(margin=1.0), r'margin=1.0 is outside \[0, 1\)'),
        (dict(size=(0.5, 0.2)), r'size=\(0.5, 0.2\) must be the smallest and the largest side'),
        (dict(size=(0.0, 0.2)), r'size=\(0.0, 0.2\) must be'),
        (dict(size=(0.1,)), r'size=\(0.1,\) must be'),
    ],
)
def test_bad_arguments_get_one_clear_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        MODELS.build(dict(type='PreferenceLoss', **arguments))
    assert '\n' not in str(error.value)
