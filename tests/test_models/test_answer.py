"""Scores and labels of pixels: views merged by brute force, and the argmax without the scores of every class."""

from collections import Counter

import pytest
import torch
from merged_views import brute_force, merge, random_views
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_alignzeg.models import Answer
from mmseg_alignzeg.models.answer import ViewProposals
from mmseg_alignzeg.models.inference import STRIPE_ELEMENTS
from mmseg_alignzeg.models.proposals import Window


def test_merging_by_brute_force():
    views, bias = random_views(), torch.randn(5)
    torch.testing.assert_close(merge(views, class_bias=bias), brute_force(views, 9, 11, bias))


def test_stripes_of_merged_views_cover_the_image(monkeypatch):
    views, rows = random_views(), []
    whole = merge(views)
    monkeypatch.setitem(STRIPE_ELEMENTS, 'cpu', 200)
    for stripe, scores in Answer(tuple(views), Window(0, 0, 1, 1, (9, 11))).stripes():
        rows.append((stripe.start, stripe.stop))
        torch.testing.assert_close(scores.permute(2, 0, 1), whole[:, stripe])
    assert rows == [(0, 3), (3, 6), (6, 9)]  # 200 // (11 · max(4 proposals, 5 classes))


def test_a_class_bias_is_added_to_every_pixel_and_decides():
    (view, *_), bias = random_views(), torch.tensor([-0.3, 0.2, 0.0, 0.1, -0.1])
    plain = merge([view])
    answer = Answer((view,), Window(0, 0, 1, 1, (9, 11)), bias)
    torch.testing.assert_close(answer.scores(), plain + bias[:, None, None])
    assert torch.equal(answer.labels(), answer.scores().argmax(dim=0, keepdim=True))
    assert answer.labels().dtype == torch.int64 and (answer.labels() != plain.argmax(dim=0)).any()


def test_an_answer_is_drawn_at_any_size():
    (view, *_) = random_views()
    small = Window(0.0, 0.0, 1.0, 1.0, (3, 4))
    drawn = torch.cat([scores for _, scores in Answer((view,), Window(0, 0, 1, 1, (9, 11))).stripes(small)])
    torch.testing.assert_close(drawn.permute(2, 0, 1), merge([view], 3, 4))


# ---------------------------------------------------------------------- labels without the scores of every class


class Dispatched(TorchDispatchMode):
    """Count operations, and the elements of the largest result."""

    def __init__(self):
        super().__init__()
        self.calls, self.largest = Counter(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.calls[func.overloadpacket] += 1
        self.largest = max([self.largest, *(part.numel() for part in [result] if isinstance(part, torch.Tensor))])
        return result


def objects(num_classes, num_proposals=30, grid=(12, 16), peak=8.0):
    """Proposals as a trained model has them: masks with an inside and an outside, and one probable class each."""
    centres = torch.rand(num_proposals, 2, 1, 1) * torch.tensor(grid).view(2, 1, 1)
    places = torch.stack(torch.meshgrid(*map(torch.arange, grid), indexing='ij'))
    distance = (places - centres).square().sum(dim=1).sqrt()
    logits = torch.randn(num_proposals, num_classes + 1)
    logits[torch.arange(num_proposals), torch.randint(num_classes + 1, (num_proposals,))] += peak
    return ViewProposals(6 * (3 - distance), logits.softmax(dim=-1)[:, :-1])


SIZE = (150, 210)
WINDOW = Window(0.1, 0.0, 0.8, 0.9, SIZE)


@pytest.mark.parametrize('num_classes', [2, 20, 400])
@pytest.mark.parametrize('stacked', [False, True])
@pytest.mark.parametrize('peak', [8.0, 0.0])  # with 0, bounds exclude no class
def test_labels_are_those_of_the_plain_argmax(num_classes, stacked, peak):
    torch.manual_seed(num_classes)
    view = objects(num_classes, peak=peak)
    bias = -0.1 * (torch.arange(num_classes) % 2) if stacked else None
    answer = Answer((view,), WINDOW, bias)
    scores = answer.scores()
    assert torch.equal(answer.labels(), scores.argmax(dim=0, keepdim=True))
    for rows, best, _ in answer.winners():
        torch.testing.assert_close(best, scores[:, rows].amax(dim=0))


def test_labels_of_an_ensemble_are_those_of_the_plain_argmax():
    torch.manual_seed(0)
    views = [objects(300, grid=grid) for grid in ((12, 16), (10, 14), (14, 18))]
    answer = Answer(tuple(views), WINDOW)
    assert torch.equal(answer.labels(), answer.scores().argmax(dim=0, keepdim=True))


def test_a_class_that_is_nobodys_first_wins_where_it_is_everybodys_second():
    """Two proposals share a pixel: .50 + .00, .00 + .50, and .45 + .45 for the class that neither would choose."""
    probs = torch.tensor([[0.50, 0.00, 0.0, 0.45], [0.00, 0.50, 0.0, 0.45]])
    left, both = torch.tensor([[9.0, 9.0], [-9.0, 9.0]])[:, None]
    answer = Answer((ViewProposals(torch.stack([both, left]), probs),), Window(0, 0, 1, 1, (1, 2)))
    assert answer.labels().tolist() == [[[1, 3]]]


def test_equal_scores_go_to_the_first_class():
    """σ(M) underflows to 0 at the right: every class scores 0."""
    probs = torch.tensor([[0.0, 0.1, 0.7]])
    answer = Answer((ViewProposals(torch.tensor([[[9.0, -300.0]]]), probs),), Window(0, 0, 1, 1, (1, 2)))
    assert answer.labels().tolist() == [[[2, 0]]]


@pytest.mark.parametrize('crowded', [False, True])
def test_no_tensor_of_pixels_and_classes_is_made(crowded, monkeypatch):
    monkeypatch.setitem(STRIPE_ELEMENTS, 'cpu', 2**17)
    torch.manual_seed(0)
    answer = Answer((objects(1000, peak=0.0 if crowded else 8.0),), WINDOW)
    with Dispatched() as seen:
        labels = answer.labels()
    assert seen.largest <= 2**17
    assert torch.equal(labels, answer.scores().argmax(dim=0, keepdim=True))


def test_few_operations_with_the_stripes_of_a_gpu(monkeypatch):
    monkeypatch.setitem(STRIPE_ELEMENTS, 'cpu', STRIPE_ELEMENTS['cuda'])
    torch.manual_seed(0)
    answer = Answer((objects(5000, num_proposals=100),), Window(0, 0, 1, 1, (640, 640)))
    with Dispatched() as seen:
        answer.labels()
    assert sum(seen.calls.values()) < 150
