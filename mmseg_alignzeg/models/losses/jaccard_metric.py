"""Jaccard metric loss: 1 − IoU of probabilities, per batch, image or class (arXiv 2302.05666 and 2310.19252)."""

from __future__ import annotations

from typing import Any

import torch
from mmseg.models.losses import weight_reduce_loss
from mmseg.registry import MODELS
from torch import Tensor, nn

FORMS = {'D': {'D': 1.0}, 'I': {'I': 1.0}, 'C': {'C': 1.0}, 'IC': {'I': 0.5, 'C': 0.5}}  # weight of each form
REDUCTIONS = ('mean', 'sum', 'none')


def soft_areas(probs: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the soft true-positive, predicted and ground-truth areas per image and class, in pixels.

    The soft intersection is TP = (|p| + |y| − |p − y|₁) / 2. This is the sum of min(p, y) and, for hard labels, the sum
    of the probabilities of the true classes. Unlike the product p·y, it equals |p| if p = y, also for soft labels.

    Args:
        probs: (B, C, P) probabilities.
        target: (B, P) int64 labels in 0 … C-1, or (B, C, P) probabilities.
        weight: (B, P), weight of each pixel; 0 ignores it.

    Returns:
        ``tp``, ``pred_area`` and ``gt_area``, each (B, C).
    """
    pred_area = torch.einsum('bcp,bp->bc', probs, weight)
    if target.ndim == probs.ndim:
        overlap = torch.minimum(probs, target)
        return torch.einsum('bcp,bp->bc', overlap, weight), pred_area, torch.einsum('bcp,bp->bc', target, weight)
    own = probs.gather(1, target[:, None]).squeeze(1)  # (B, P); avoids a one-hot map of C × P
    nothing = torch.zeros_like(pred_area)
    return nothing.scatter_add(1, target, own * weight), pred_area, nothing.scatter_add(1, target, weight)


def tversky_index(
    tp: Tensor, pred_area: Tensor, gt_area: Tensor, alpha: float = 1.0, beta: float = 1.0, smooth: float = 1.0
) -> Tensor:
    """Compute (TP + s) / (TP + α·FP + β·FN + s): the IoU for α = β = 1, the Dice score for α = β = 1/2.

    Args:
        tp: True-positive area; any shape, the same as that of ``pred_area`` and ``gt_area``.
        pred_area: TP + FP.
        gt_area: TP + FN.
        alpha: Weight of false positives.
        beta: Weight of false negatives.
        smooth: s; it also defines the value for areas without pixels.
    """
    return (tp + smooth) / (tp + alpha * (pred_area - tp) + beta * (gt_area - tp) + smooth)


def jaccard_metric_loss(
    tp: Tensor,
    pred_area: Tensor,
    gt_area: Tensor,
    active: Tensor,
    form: str,
    alpha: float = 1.0,
    beta: float = 1.0,
    smooth: float = 1.0,
) -> Tensor:
    """Compute 1 − IoU of every unit over which a form averages.

    Args:
        tp: (B, C) true-positive areas.
        pred_area: (B, C) predicted areas.
        gt_area: (B, C) ground-truth areas.
        active: bool (B, C), whether a class counts in an image.
        form: ``'D'``: a unit is a class, with its pixels summed over the batch. ``'I'``: a unit is an image, the mean
            over its active classes. ``'C'``: a unit is a class, the mean over the images where it is active.
        alpha: Weight of false positives, see :func:`tversky_index`.
        beta: Weight of false negatives.
        smooth: s.

    Returns:
        (u,), one value for each unit with an active class.
    """
    if form == 'D':
        tp, pred_area, gt_area = (part.sum(dim=0) for part in (tp, pred_area, gt_area))
        return (1 - tversky_index(tp, pred_area, gt_area, alpha, beta, smooth))[active.any(dim=0)]
    dim = 'CI'.index(form)
    losses = (1 - tversky_index(tp, pred_area, gt_area, alpha, beta, smooth)) * active
    count = active.sum(dim=dim)
    return losses.sum(dim=dim)[count > 0] / count[count > 0]


def jaccard_mask_loss(logits: Tensor, targets: Tensor, smooth: float = 1.0) -> Tensor:
    """Compute 1 − IoU per mask, an alternative to :func:`~mmseg_alignzeg.models.losses.mask.dice_loss`.

    Args:
        logits: (m, P) mask logits.
        targets: (m, P) in [0, 1].
        smooth: s of :func:`tversky_index`.

    Returns:
        (m,).
    """
    probs = logits.sigmoid()
    tp = torch.minimum(probs, targets.to(probs.dtype)).sum(dim=1)
    return 1 - tversky_index(tp, probs.sum(dim=1), targets.sum(dim=1), smooth=smooth)


@MODELS.register_module()
class JaccardMetricLoss(nn.Module):
    """JML, a loss for any decode head of mmseg.

    It works best together with cross-entropy::

        loss_decode=[
            dict(type='CrossEntropyLoss', loss_weight=0.25, avg_non_ignore=True),
            dict(type='JaccardMetricLoss', form='IC', loss_weight=0.75),
        ]

    The classes that count are those present in the ground truth for hard labels, and all classes for soft labels: per
    image in the forms I and C, in the batch of one process in the form D. Images without labelled pixels do not count.

    Args:
        form: ``'D'``, ``'I'``, ``'C'`` to optimise mIoU^D, mIoU^I or mIoU^C, or ``'IC'``, half I and half C.
        alpha: Weight of false positives.
        beta: Weight of false negatives; IoU for α = β = 1, Dice for 1/2.
        smooth: s of :func:`tversky_index`, in pixels.
        reduction: ``'mean'``, ``'sum'`` or ``'none'`` over the units of :func:`jaccard_metric_loss`.
        loss_weight: Weight of the loss.
        ignore_index: Hard label that is ignored; a decode head overrides it with its own.
        loss_name: Key of the loss; mmseg trains only names that begin with ``loss_``.

    Raises:
        ValueError: On an unknown form or reduction, negative weights, or a ``smooth`` that is not positive.
    """

    def __init__(
        self,
        form: str = 'IC',
        alpha: float = 1.0,
        beta: float = 1.0,
        smooth: float = 1.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        ignore_index: int = 255,
        loss_name: str = 'loss_jml',
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(f'`form={form!r}` is unknown: use one of {list(FORMS)}.')
        if alpha < 0 or beta < 0 or smooth <= 0:
            raise ValueError(
                f'`alpha={alpha}`, `beta={beta}`, `smooth={smooth}`: weights must not be negative, and `smooth` must '
                'be positive, because a class without pixels would otherwise give 0 / 0.'
            )
        _check_reduction(form, reduction)
        self.form, self.alpha, self.beta, self.smooth = form, alpha, beta, smooth
        self.reduction = reduction
        self.loss_weight = loss_weight
        self.ignore_index = ignore_index
        self._loss_name = loss_name

    @property
    def loss_name(self) -> str:
        """Key of this loss in the losses of the head."""
        return self._loss_name

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
        ignore_index: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Compute the weighted loss.

        Args:
            pred: (B, C, H, W) logits. One channel is the logit of label 1 against label 0, as in mmseg's binary heads.
            target: (B, H, W) int labels, or (B, C, H, W) float probabilities, all 0 for an unlabelled pixel.
            weight: (B, H, W), weight of each pixel in the areas, as given by mmseg's pixel samplers.
            avg_factor: Divisor of the sum over units, in place of their number.
            reduction_override: Used in place of ``reduction``.
            ignore_index: Used in place of the constructor's.
            **kwargs: Ignored; heads may pass more.

        Returns:
            Scalar, zero with a gradient if no pixel is labelled; (u,) for the reduction ``'none'``.

        Raises:
            ValueError: If shapes do not fit, or a label is outside 0 … C-1.
        """
        reduction = reduction_override or self.reduction
        _check_reduction(self.form, reduction)
        if pred.shape[1] == 1:
            pred = torch.cat([torch.zeros_like(pred), pred], dim=1)
        is_soft = target.is_floating_point()
        if target.shape != (pred.shape if is_soft else pred[:, 0].shape):
            raise ValueError(
                f'The logits have shape {tuple(pred.shape)} and the {"soft" if is_soft else "hard"} labels '
                f'{tuple(target.shape)}: soft labels are (B, C, H, W), hard ones (B, H, W) integers.'
            )
        # Sums over all pixels of an image would overflow in half precision.
        with torch.autocast(pred.device.type, enabled=False):
            probs = (pred if pred.dtype == torch.float64 else pred.float()).softmax(dim=1).flatten(2)  # (B, C, P)
            if is_soft:
                target = target.to(probs.dtype).flatten(2)  # (B, C, P)
                labelled = target.sum(dim=1) > 0
            else:
                target, labelled = _hard_labels(
                    target.flatten(1), pred.shape[1], self.ignore_index if ignore_index is None else ignore_index
                )
            share = labelled.to(probs.dtype)  # (B, P)
            if weight is not None:
                share = share * weight.reshape(share.shape)
            areas = soft_areas(probs, target, share)
            active = share.any(dim=1, keepdim=True).expand_as(areas[0]) if is_soft else areas[2] > 0  # (B, C)
            parts = []
            for form, factor in FORMS[self.form].items():
                units = jaccard_metric_loss(*areas, active, form, self.alpha, self.beta, self.smooth)
                parts.append(factor * _reduce(units, reduction, avg_factor))
        return self.loss_weight * torch.stack(parts).sum(dim=0)


def _check_reduction(form: str, reduction: str) -> None:
    """Raise ValueError for an invalid reduction."""
    if reduction not in REDUCTIONS:
        raise ValueError(f'`reduction={reduction!r}` is unknown: use one of {list(REDUCTIONS)}.')
    if reduction == 'none' and len(FORMS[form]) > 1:
        raise ValueError(f'`form={form!r}` mixes images and classes: `reduction="none"` needs the form D, I or C.')


def _hard_labels(target: Tensor, num_classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return labels (B, P) int64, 0 where they are ignored, and a bool mask (B, P) of those not ignored."""
    labelled = target != ignore_index
    foreign = labelled & ((target < 0) | (target >= num_classes))
    if foreign.any():
        raise ValueError(
            f'The labels hold {target[foreign].unique().tolist()}, outside 0…{num_classes - 1} and not '
            f'`ignore_index={ignore_index}`: check `num_classes`, `ignore_index` and `reduce_zero_label`.'
        )
    return torch.where(labelled, target, 0).long(), labelled


def _reduce(losses: Tensor, reduction: str, avg_factor: float | None) -> Tensor:
    """Reduce the losses (u,) of units as mmseg does; the mean of an empty tensor is 0."""
    if reduction == 'mean' and len(losses) == 0:
        return losses.sum()
    return weight_reduce_loss(losses, reduction=reduction, avg_factor=avg_factor)
