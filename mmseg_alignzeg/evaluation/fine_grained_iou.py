"""Fine-grained IoU per image, per class of an image and per segment (arXiv 2310.19252), as pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .areas import class_areas, class_iou, harmonic_mean

QBAR = tuple(range(10, 101, 10))  # q̄ is the average over the worst cases of these percentages


@dataclass(frozen=True)
class ImageScores:
    """Results of one image: a few numbers per class, without label maps.

    Attributes:
        areas: int64 (n, 4), one row per class that is true or predicted on a labelled pixel: the label, then the number
            of true-positive, predicted and ground-truth pixels.
        segment_classes: int64 (s,), the labels of the ground-truth segments.
        segment_iou: float64 (s,) in [0, 1], their IoU.
        path: Path of the image, empty if unknown.
    """

    areas: Tensor
    segment_classes: Tensor
    segment_iou: Tensor
    path: str = ''


def image_scores(
    pred: Tensor,
    gt: Tensor,
    num_classes: int,
    ignore_index: int = 255,
    instances: Tensor | None = None,
    thing_mask: Tensor | None = None,
    path: str = '',
) -> ImageScores:
    """Compare one image with its ground truth.

    A segment k of class c has the IoU TP_k / (TP_k + FN_k + FP_k). Semantic predictions have no instances, so each
    segment gets a share of the false positives of its class in the image: FP_k = FP_c · area_k / area_c.

    Args:
        pred: Predicted labels (H, W), any integer dtype. A label outside ``0 … C-1`` is counted as a miss.
        gt: Ground-truth labels (H, W), any integer dtype.
        num_classes: The number of classes C.
        ignore_index: Pixels with this ground-truth label are ignored.
        instances: Instance numbers (H, W), any integer dtype, 0 for none. A segment consists of the pixels of one class
            with one number. Pixels of a thing class without a number belong to area_c but to no segment. Without this
            map, every class is one segment.
        thing_mask: bool (C,), True for classes that have instances; every other class is one segment.
        path: Path of the image.

    Raises:
        ValueError: See :func:`confusion_matrix`; also if the shape of ``instances`` differs.
    """
    tp, pred_area, gt_area = class_areas(pred, gt, num_classes, ignore_index)
    if instances is None or thing_mask is None:
        labels = gt_area.nonzero().squeeze(1)
        hit, area = tp[labels], gt_area[labels]
    else:
        labels, hit, area = _segments(pred, gt, ignore_index, instances, thing_mask)
    share = (pred_area - tp)[labels] * area / gt_area[labels].double()  # FP_k
    areas = torch.stack([torch.arange(num_classes, device=tp.device), tp, pred_area, gt_area], dim=1)
    return ImageScores(areas[pred_area + gt_area > 0].cpu(), labels.cpu(), (hit / (area + share)).cpu(), path)


def _segments(
    pred: Tensor, gt: Tensor, ignore_index: int, instances: Tensor, thing_mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return label, true-positive pixels and area of every ground-truth segment, each int64 (s,)."""
    if instances.shape != gt.shape:
        raise ValueError(
            f'The instance map has shape {tuple(instances.shape)} and the labels {tuple(gt.shape)}: '
            'both must be loaded and resized in the same way.'
        )
    gt, instances, thing_mask = (part.to(pred.device) for part in (gt, instances, thing_mask))
    valid = gt.long() != ignore_index
    pred, gt, instances = (part.long()[valid] for part in (pred, gt, instances))
    is_thing = thing_mask[gt]
    inside = ~is_thing | (instances != 0)
    numbers, compact = torch.where(is_thing, instances, 0).unique(return_inverse=True)
    # Numbers may be as large as a panoptic colour code; compact numbers give small keys.
    keys, which = (gt * len(numbers) + compact)[inside].unique(return_inverse=True)
    hit = torch.zeros_like(keys).index_add_(0, which, (pred == gt)[inside].long())
    return keys // max(1, len(numbers)), hit, which.bincount(minlength=len(keys))


def check_worst_q(worst_q: Sequence[float]) -> None:
    """Raise ValueError for a q that is not a percentage in (0, 100]."""
    wrong = [q for q in worst_q if not 0 < q <= 100]
    if wrong:
        raise ValueError(f'`worst_q` holds {wrong}: every q is a percentage in (0, 100], e.g. 5 for the worst 5%.')


def worst_cases(values: Tensor, worst_q: Sequence[float] = ()) -> Tensor:
    """Return the mean of all values, the means of the lowest q percent of them (at least one value), and q̄.

    Args:
        values: float64 (n,), n > 0.
        worst_q: Percentages in (0, 100].

    Returns:
        float64 (1 + len(worst_q) + 1,): the mean, one value per q, and the average over q = 10, 20 … 100.

    Raises:
        ValueError: If a q is outside (0, 100].
    """
    check_worst_q(worst_q)
    # Rounded as in the published code, where 0.7 · 90 is just below 63 and therefore gives 62.
    counts = torch.tensor([max(1, int(q / 100 * len(values))) for q in (100, *worst_q, *QBAR)])
    means = values.sort().values.cumsum(0)[counts - 1] / counts
    return torch.cat([means[: -len(QBAR)], means[-len(QBAR) :].mean()[None]])


def image_means(images: Sequence[ImageScores], members: Tensor) -> Tensor:
    """Return the mean IoU of every image over the classes in its ground truth.

    Args:
        images: N results of :func:`image_scores`.
        members: bool (C,), the classes to include.

    Returns:
        float64 (N,) in [0, 1], NaN for an image without pixels of these classes.
    """
    index, labels, iou = _present(images)
    chosen = members[labels]
    total = torch.zeros(len(images), dtype=torch.float64).index_add_(0, index[chosen], iou[chosen])
    return total / index[chosen].bincount(minlength=len(images))


def fine_grained_iou(
    images: Sequence[ImageScores], unseen_mask: Tensor, worst_q: Sequence[float] = (1, 5)
) -> dict[str, float]:
    """Return the four mean IoU measures with their worst cases, each for all, seen and unseen classes.

    A class that is predicted but absent from an image's ground truth lowers only ``mIoU_D``.

    Args:
        images: Results of :func:`image_scores`; their order does not matter.
        unseen_mask: bool (C,), True for unseen classes.
        worst_q: Percentages in (0, 100].

    Returns:
        Percent, under the keys listed in :class:`FineGrainedIoUMetric`; keys without a value are left out.

    Raises:
        ValueError: If a q is outside (0, 100].
    """
    check_worst_q(worst_q)
    num_classes = len(unseen_mask)
    totals = torch.zeros(num_classes, 3, dtype=torch.int64)
    for image in images:
        totals[image.areas[:, 0]] += image.areas[:, 1:]  # a class has one row per image
    data_set_iou = class_iou(*totals.unbind(dim=1))[:, None]  # (C, 1)
    _, labels, iou = _present(images)
    class_cases = _cases_by(labels, iou, num_classes, worst_q)  # (C, F)
    segment_labels = _joined([image.segment_classes for image in images], torch.int64)
    segment_iou = _joined([image.segment_iou for image in images], torch.float64)
    segment_cases = _cases_by(segment_labels, segment_iou, num_classes, worst_q)

    means = []  # per group and kind (F,), NaN if there is no value
    for members in (torch.ones_like(unseen_mask), ~unseen_mask, unseen_mask):
        scores = image_means(images, members)
        scores = scores[~scores.isnan()]
        image_cases = _cases_by(torch.zeros(len(scores), dtype=torch.int64), scores, 1, worst_q)
        tables = dict(D=data_set_iou[members], I=image_cases, C=class_cases[members], K=segment_cases[members])
        means.append({kind: table.nanmean(dim=0).tolist() for kind, table in tables.items()})

    forms = ['', *(f'_q{q:g}' for q in worst_q), '_qbar']
    measures: dict[str, float] = {}
    for kind in ('D', 'I', 'C', 'K'):
        for position, form in enumerate(forms[:1] if kind == 'D' else forms):
            measures |= _split(f'mIoU_{kind}{form}', *(group[kind][position] for group in means))
    return measures


def _split(key: str, both: float, seen: float, unseen: float) -> dict[str, float]:
    """Return one measure of the three groups, given in [0, 1] or NaN, as percentages with their harmonic mean."""
    values = {key: both, f'{key}_seen': seen, f'{key}_unseen': unseen}
    if seen == seen and unseen == unseen:  # neither is NaN
        values[f'{key}_harmonic'] = harmonic_mean(seen, unseen)
    return {name: 100 * value for name, value in values.items() if value == value}


def _cases_by(units: Tensor, values: Tensor, num_units: int, worst_q: Sequence[float]) -> Tensor:
    """Apply :func:`worst_cases` to the values (n,) of each unit; returns (num_units, F), NaN if it has none."""
    table = torch.full((num_units, len(worst_q) + 2), torch.nan, dtype=torch.float64)
    for unit in units.unique().tolist():
        table[unit] = worst_cases(values[units == unit], worst_q)
    return table


def _present(images: Sequence[ImageScores]) -> tuple[Tensor, Tensor, Tensor]:
    """Return image index, label and IoU (R,) of every class in the ground truth of an image."""
    areas = _joined([image.areas for image in images], torch.int64).view(-1, 4)
    index = torch.arange(len(images)).repeat_interleave(torch.tensor([len(image.areas) for image in images]).long())
    present = areas[:, 3] > 0
    labels, tp, pred_area, gt_area = areas[present].unbind(dim=1)
    return index[present], labels, class_iou(tp, pred_area, gt_area)


def _joined(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Concatenate tensors; an empty tensor if there are none."""
    return torch.cat(list(parts)) if parts else torch.zeros(0, dtype=dtype)
