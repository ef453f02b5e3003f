"""Jaccard metric loss: 1 − IoU of probabilities, per batch, image or class (arXiv 2302.05666 and 2310.19252)."""

from __future__ import annotations

from typing import Any

import torch
from mmseg.models.losses import weight_reduce_loss
from mmseg.registry import MODELS
from torch import Tensor, nn

FORMS = {'D': {'D': 1.0}, 'I': {'I': 1.0}, 'C': {'C': 1.0}, 'IC': {'I': 0.5, 'C': 0.5}}  # the share of each form
REDUCTIONS = ('mean', 'sum', 'none')


def soft_areas(probs: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels per image and class that are hit, predicted and true, of probabilities.

    The soft intersection is TP = (|p| + |y| − |p − y|₁) / 2, which is the sum of min(p, y) and, for hard labels, of
    the probabilities of the true classes. It equals |p| where p = y, also for soft labels; the product p·y does not.

    Args:
        probs: (B, C, P) probabilities.
        target: (B, P) int64 labels in 0 … C-1, or (B, C, P) probabilities.
        weight: (B, P), how much each pixel counts, 0 for one that is ignored.

    Returns:
        ``tp``, ``pred_area`` and ``gt_area``, each (B, C).
    """
    pred_area = torch.einsum('bcp,bp->bc', probs, weight)
    if target.ndim == probs.ndim:
        overlap = torch.minimum(probs, target)
        return torch.einsum('bcp,bp->bc', overlap, weight), pred_area, torch.einsum('bcp,bp->bc', target, weight)
    own = probs.gather(1, target[:, None]).squeeze(1)  # (B, P); no one-hot map of C × P has to be kept
    nothing = torch.zeros_like(pred_area)
    return nothing.scatter_add(1, target, own * weight), pred_area, nothing.scatter_add(1, target, weight)


def tversky_index(
    tp: Tensor, pred_area: Tensor, gt_area: Tensor, alpha: float = 1.0, beta: float = 1.0, smooth: float = 1.0
) -> Tensor:
    """(TP + s) / (TP + α·FP + β·FN + s), the IoU for α = β = 1 and the Dice score for α = β = 1/2.

    Args:
        tp: Hit pixels, any shape, as are ``pred_area`` (predicted pixels) and ``gt_area`` (true pixels).
        pred_area: TP + FP.
        gt_area: TP + FN.
        alpha: Weight of false positives.
        beta: Weight of false negatives.
        smooth: s, which also gives a value where there is no pixel.
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
    """1 − IoU of every unit whose mean the form takes.

    Args:
        tp: (B, C) hit pixels, as are ``pred_area`` and ``gt_area``.
        pred_area: (B, C) predicted pixels.
        gt_area: (B, C) true pixels.
        active: bool (B, C), which classes count in which image.
        form: ``'D'``: a unit is a class, its pixels summed over the batch. ``'I'``: a unit is an image, the mean over
            its active classes. ``'C'``: a unit is a class, the mean over the images where it is active.
        alpha: As in :func:`tversky_index`, like ``beta`` and ``smooth``.
        beta: Weight of false negatives.
        smooth: s.

    Returns:
        (u,), one value for each unit in which something is active.
    """
    if form == 'D':
        tp, pred_area, gt_area = (part.sum(dim=0) for part in (tp, pred_area, gt_area))
        return (1 - tversky_index(tp, pred_area, gt_area, alpha, beta, smooth))[active.any(dim=0)]
    dim = 'CI'.index(form)
    losses = (1 - tversky_index(tp, pred_area, gt_area, alpha, beta, smooth)) * active
    count = active.sum(dim=dim)
    return losses.sum(dim=dim)[count > 0] / count[count > 0]


def jaccard_mask_loss(logits: Tensor, targets: Tensor, smooth: float = 1.0) -> Tensor:
    """1 − IoU per mask, which can stand where a mask loss has its dice.

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

    It is best together with cross-entropy::

        loss_decode=[
            dict(type='CrossEntropyLoss', loss_weight=0.25, avg_non_ignore=True),
            dict(type='JaccardMetricLoss', form='IC', loss_weight=0.75),
        ]

    Classes that count are those present in the ground truth for hard labels and all classes for soft ones: per image
    in the forms I and C, in the batch of one process in the form D. Images without a labelled pixel do not count.

    Args:
        form: ``'D'``, ``'I'``, ``'C'`` to optimise mIoU^D, mIoU^I or mIoU^C, or ``'IC'``, half I and half C.
        alpha: Weight of false positives.
        beta: Weight of false negatives; IoU for α = β = 1, Dice for 1/2.
        smooth: s of :func:`tversky_index`, in pixels.
        reduction: ``'mean'``, ``'sum'`` or ``'none'`` over the units of :func:`jaccard_metric_loss`.
        loss_weight: Weight of the loss.
        ignore_index: Hard label that is not evaluated; a decode head overrides it with its own.
        loss_name: Key of the loss; only names that begin with ``loss_`` are trained.

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
                f'`alpha={alpha}`, `beta={beta}`, `smooth={smooth}`: the weights cannot be negative, and `smooth` is '
                'positive because a class without a pixel would be 0 / 0.'
            )
        _check_reduction(form, reduction)
        self.form, self.alpha, self.beta, self.smooth = form, alpha, beta, smooth
        self.reduction = reduction
        self.loss_weight = loss_weight
        self.ignore_index = ignore_index
        self._loss_name = loss_name

    @property
    def loss_name(self) -> str:
        """Key of this loss among those of the head."""
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
            target: (B, H, W) int labels, or (B, C, H, W) float probabilities, all 0 where a pixel has no label.
            weight: (B, H, W), how much each pixel counts in the areas, as mmseg's pixel samplers give it.
            avg_factor: Divides the sum over units instead of their number.
            reduction_override: Used instead of ``reduction``.
            ignore_index: Used instead of the constructor's.
            **kwargs: Not used; heads may hand over more.

        Returns:
            Scalar, zero with a gradient if no pixel has a label; (u,) for the reduction ``'none'``.

        Raises:
            ValueError: On shapes that do not belong together, or a label outside 0 … C-1.
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
    """Raise ValueError for a reduction that there is not."""
    if reduction not in REDUCTIONS:
        raise ValueError(f'`reduction={reduction!r}` is unknown: use one of {list(REDUCTIONS)}.')
    if reduction == 'none' and len(FORMS[form]) > 1:
        raise ValueError(f'`form={form!r}` mixes images and classes: `reduction="none"` needs the form D, I or C.')


def _hard_labels(target: Tensor, num_classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Labels (B, P) int64 with 0 for those ignored, and bool (B, P), which are not."""
    labelled = target != ignore_index
    foreign = labelled & ((target < 0) | (target >= num_classes))
    if foreign.any():
        raise ValueError(
            f'The labels hold {target[foreign].unique().tolist()}, outside 0…{num_classes - 1} and not '
            f'`ignore_index={ignore_index}`: check `num_classes`, `ignore_index` and `reduce_zero_label`.'
        )
    return torch.where(labelled, target, 0).long(), labelled


def _reduce(losses: Tensor, reduction: str, avg_factor: float | None) -> Tensor:
    """Reduce the losses (u,) of units as mmseg does; the mean of none of them is 0."""
    if reduction == 'mean' and len(losses) == 0:
        return losses.sum()
    return weight_reduce_loss(losses, reduction=reduction, avg_factor=avg_factor)
