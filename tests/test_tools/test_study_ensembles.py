"""Ceilings of an ensemble by hand, and predictors on views whose quality can be told."""

import numpy as np
import pytest
import torch

TRAINED = np.array([True, True, True, False])


@pytest.fixture
def tool(load_tool):
    return load_tool('study_ensembles')


def scores_of(labels, height=1.0):
    """Scores (4, H, W) whose argmax is ``labels``."""
    return height * np.eye(4)[labels].transpose(2, 0, 1)


def scene(tool, *views, labels):
    """Views given by labels (H, W) or scores (4, H, W), and their mean."""
    scores = [view if view.ndim == 3 else scores_of(view, 1 - 0.1 * i) for i, view in enumerate(views)]
    return tool.Scene(np.stack([*scores, np.mean(scores, axis=0)]).astype(np.float16), scores[0], labels)


def test_ceilings_by_hand(tool):
    labels = np.array([[0, 0, 1, 1, 2, 255]])
    left, right = np.array([[0, 0, 1, 2, 0, 0]]), np.array([[1, 1, 1, 1, 2, 2]])
    found = tool.ceilings(scene(tool, left, right, labels=labels))
    assert np.array_equal(found['mean of the views'], left)  # whose scores are higher
    assert np.array_equal(found['best source per pixel'], np.array([[0, 0, 1, 1, 2, 0]]))
    # IoU of classes 0, 1, 2: 2/3, 1/2, 0 at the left; 0, 2/4, 1 at the right
    assert np.array_equal(found['best source per image'], right)


def test_quality_by_brute_force(tool):
    torch.manual_seed(0)
    masks, labels = torch.rand(5, 6, 7) > 0.5, torch.randint(0, 3, (6, 7))
    for mask, found in zip(masks, tool.quality(masks, labels), strict=True):
        ious = [tool.iou(mask.numpy(), (labels == c).numpy(), np.ones((6, 7), dtype=bool)) for c in range(3)]
        assert found.item() == pytest.approx(max(ious))


@pytest.mark.parametrize('seen_only', [False, True])
def test_predictors_learn_that_the_sure_view_is_right(tool, seen_only):
    rng = np.random.default_rng(0)

    def draw():
        labels, wrong = rng.integers(0, 3, (12, 12)), rng.integers(0, 3, (12, 12))
        sure = rng.random((12, 12)) < 0.5  # then the first view is right, else the second
        first = scores_of(np.where(sure, labels, wrong)) * np.where(sure, 0.9, 0.3)
        second = scores_of(np.where(sure, wrong, labels)) * 0.6
        return scene(tool, first, second, np.broadcast_to(0.35 * np.ones(4)[:, None, None], (4, 12, 12)), labels=labels)

    predictors, test = tool.Predictors([draw() for _ in range(6)], TRAINED, seen_only), draw()
    assert (predictors.by_pixel(test) == test.labels).mean() > 0.95
    assert set(predictors.gains(test)) == {0, 1, 2}
    assert tool.by_region(test, predictors.gains(test)).shape == test.labels.shape


def test_choices_by_the_gains_of_regions_by_hand(tool):
    first, second, third = (scores_of(np.array([[c, 3]])) for c in (0, 1, 2))
    test = scene(tool, first, second, third, labels=np.array([[1, 3]]))
    gains = {1: np.array([-1.0, 0.4, 0.2, 0.0]), 2: np.array([0.0, 0.1, 0.9, 0.0])}
    assert np.array_equal(tool.by_image(test, gains, 2), [[1, 3]])  # gains −.5, .25 and .55
    assert np.array_equal(tool.by_image(test, gains, 3), [[2, 3]])
    # Class 1 gets .9 e^1.5 / (e^-1.5 + e^1.5 + 1) = .71, and class 2 .8 e^4.5 / (e^-1 + 1 + e^4.5) = .79.
    gains = {1: np.array([-0.3, 0.3, 0.0, 0.0]), 2: np.array([-0.2, 0, 0.9, 0.0])}
    assert np.array_equal(tool.by_merged_regions(test, gains), [[2, 3]])
    equal = {c: np.full(4, 0.7) for c in range(4)}
    assert np.array_equal(tool.by_merged_regions(test, equal), test.found[-1])  # the plain mean
