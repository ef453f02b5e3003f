"""True-positive, predicted and ground-truth areas per class, and their IoU."""

from __future__ import annotations

import torch
from torch import Tensor


def confusion_matrix(pred: Tensor, gt: Tensor, num_classes: int, ignore_index: int = 255) -> Tensor:
    """Count the pixels of every (true, predicted) pair of labels.

    Args:
        pred: Predicted labels (H, W), any integer dtype. A label outside ``0 … C-1`` is counted as a miss.
        gt: Ground-truth labels (H, W), any integer dtype.
        num_classes: The number of classes C.
        ignore_index: Pixels with this ground-truth label are ignored, whatever the prediction.

    Returns:
        int64 counts (C, C + 1): row = true label, column = predicted label; the last column counts predictions outside
        ``0 … C-1``.

    Raises:
        ValueError: If shapes differ, a true label is outside ``0 … C-1``, or ``ignore_index`` is a class.
    """
    if pred.shape != gt.shape:
        raise ValueError(
            f'The prediction has shape {tuple(pred.shape)} and the ground truth {tuple(gt.shape)}: '
            'predictions must be resized to the original image before evaluation.'
        )
    if 0 <= ignore_index < num_classes:
        raise ValueError(
            f'`ignore_index={ignore_index}` is the label of one of the {num_classes} classes and would drop it: '
            'use a value outside of them, e.g. 65535, in the labels and in the metric.'
        )
    pred, gt = pred.long(), gt.to(pred.device).long()
    valid = gt != ignore_index
    pred, gt = pred[valid], gt[valid]  # (number of labelled pixels,)
    foreign = (gt < 0) | (gt >= num_classes)
    if foreign.any():
        raise ValueError(
            f'The ground truth holds label(s) {gt[foreign].unique().tolist()}, outside 0…{num_classes - 1} and '
            f'not `ignore_index={ignore_index}`: check `classes`, `ignore_index` and `reduce_zero_label`.'
        )
    no_class = (pred < 0) | (pred >= num_classes)
    column = torch.where(no_class, num_classes, pred)
    counts = torch.bincount(gt * (num_classes + 1) + column, minlength=num_classes * (num_classes + 1))
    return counts.view(num_classes, num_classes + 1)


def class_areas(pred: Tensor, gt: Tensor, num_classes: int, ignore_index: int = 255) -> tuple[Tensor, Tensor, Tensor]:
    """Count the true-positive, predicted and ground-truth pixels per class of one image.

    Arguments and errors are those of :func:`confusion_matrix`.

    Returns:
        ``tp``, ``pred_area`` and ``gt_area``, each int64 (C,).
    """
    return split_areas(confusion_matrix(pred, gt, num_classes, ignore_index))


def split_areas(confusion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``tp``, ``pred_area`` and ``gt_area`` (C,) of a confusion matrix (C, C + 1)."""
    return confusion.diagonal().clone(), confusion.sum(0)[:-1], confusion.sum(1)


def class_iou(tp: Tensor, pred_area: Tensor, gt_area: Tensor) -> Tensor:
    """Return the IoU per class (C,), float64 in [0, 1]; NaN (0 / 0) for a class without true and predicted pixels."""
    return tp.double() / (pred_area + gt_area - tp).double()


def harmonic_mean(seen: float, unseen: float) -> float:
    """Return 2·S·U / (S + U), or 0 if both are 0."""
    return 2 * seen * unseen / (seen + unseen) if seen + unseen > 0 else 0.0
