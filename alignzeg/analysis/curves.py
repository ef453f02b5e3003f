"""From the proposals of an image to its labels under many settings, without further forward passes. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmseg_alignzeg.evaluation.areas import confusion_matrix, split_areas
from mmseg_alignzeg.evaluation.zero_shot_iou_metric import zero_shot_iou
from mmseg_alignzeg.models import CalibratedStacking, PredictiveBiasCorrection
from mmseg_alignzeg.models.answer import merge
from mmseg_alignzeg.models.inference import drop_background, mask_stripes
from mmseg_alignzeg.models.oracle import oracle_probs

from .collect import AnalysisTask, ImageProposals, ViewScores


@dataclass(frozen=True)
class Variant:
    """One setting for computing labels from proposals.

    Attributes:
        gamma: γ of predictive bias correction, or None to disable it.
        constant: Constant of calibrated stacking; 0 disables it.
        oracle: Whether proposals get their ground-truth classes instead.
    """

    gamma: float | None = None
    constant: float = 0.0
    oracle: bool = False

    def __post_init__(self) -> None:
        if self.gamma is not None:
            PredictiveBiasCorrection(self.gamma)  # checks γ
        CalibratedStacking(self.constant)


def plan_variants(
    gammas: Sequence[float], constants: Sequence[float], own: Variant, base: float | None, has_both: bool
) -> list[Variant]:
    """List the settings to evaluate, without duplicates, in the order of the curves.

    Args:
        gammas: γ of the curve of PBC.
        constants: Constants of calibrated stacking, without PBC and with PBC at ``base``.
        own: The setting of the config; it is always included.
        base: γ for comparisons of PBC; None for a model without indicator, and therefore without PBC.
        has_both: See :class:`AnalysisTask`; if False, calibrated stacking is left out.

    Raises:
        ValueError: If a γ is outside [0, 1] or a constant is not finite.
    """
    variants = [Variant(), own]
    if base is not None:
        variants += [Variant(gamma) for gamma in sorted({*gammas, base})]
    if has_both:
        bases = (None,) if base is None else (None, base)
        variants += [Variant(gamma, constant) for gamma in bases for constant in sorted(constants)]
    variants.append(Variant(oracle=True))
    return list(dict.fromkeys(variants))


def view_probs(view: ViewScores, gamma: float | None, task: AnalysisTask) -> Tensor:
    """Return class probabilities (N, C) of the proposals of a view, with PBC at γ or without."""
    scores = view.scores
    if gamma is not None:
        assert view.indicator is not None
        seen = task.trained.to(scores.device)
        scores = PredictiveBiasCorrection(gamma)(scores[None], view.indicator[None], seen)[0]
    return drop_background(scores, task.background_at_test)


def variant_columns(image: ImageProposals, gamma: float | None, oracle: bool, task: AnalysisTask) -> list[Tensor]:
    """Return what is summed at every pixel under a :class:`Variant`, for each view; an oracle uses only the first."""
    if oracle:
        return [oracle_probs(image.views[0].masks, image.labels, len(task.vocabulary.classes), image.window)]
    return [view_probs(view, gamma, task) for view in image.views]


def stacked_labels(scores: Tensor, constants: Sequence[float], trained: Tensor) -> Iterator[Tensor]:
    """Apply :class:`CalibratedStacking` with many constants, at the cost of one comparison each.

    Args:
        scores: (pixels, C).
        constants: Constants subtracted from seen classes.
        trained: (C,) bool with both values.

    Yields:
        (pixels,) int64 per constant, the label with the highest score.
    """
    seen, seen_label = scores.masked_fill(~trained, -torch.inf).max(dim=-1)
    unseen, unseen_label = scores.masked_fill(trained, -torch.inf).max(dim=-1)
    for constant in constants:
        yield torch.where(seen - constant > unseen, seen_label, unseen_label)


def image_counts(image: ImageProposals, variants: Sequence[Variant], task: AnalysisTask) -> tuple[Tensor, Tensor]:
    """Label one image under every variant, and count pixels.

    Args:
        image: Its proposals.
        variants: K variants.
        task: Classes and conventions.

    Returns:
        Confusion matrices (K, C, C + 1) int64 of :func:`confusion_matrix`, and the number of pixels (C + 1, N) of each
        ground-truth class, ignored pixels last, in each mask, binarised at 0.5.
    """
    num_classes, first = len(task.vocabulary.classes), image.views[0].masks
    trained = task.trained.to(first.device)
    groups: dict[tuple[float | None, bool], list[int]] = {}
    for k, variant in enumerate(variants):
        groups.setdefault((variant.gamma, variant.oracle), []).append(k)
    columns = {key: variant_columns(image, *key, task) for key in groups}
    truth = torch.where((image.labels >= 0) & (image.labels < num_classes), image.labels, num_classes)
    labels = torch.empty(len(variants), *image.window.size, dtype=torch.int32, device=first.device)
    pixels = first.new_zeros(num_classes + 1, len(first))
    for parts in zip(*(mask_stripes(view.masks, image.window, num_classes) for view in image.views), strict=True):
        rows, masks = parts[0][0], [stripe.flatten(0, 1) for _, stripe in parts]  # (rows · columns, N) each
        pixels.index_add_(0, truth[rows].flatten(), (masks[0] > 0.5).to(pixels))
        for key, members in groups.items():
            sums = [torch.mm(*operands) for operands in zip(masks, columns[key], strict=False)]
            scores = merge(sums)  # (rows · columns, C)
            plain = [k for k in members if not variants[k].constant]
            stacked = [k for k in members if variants[k].constant]
            for k in plain:
                labels[k, rows] = scores.argmax(dim=-1).view_as(labels[k, rows]).int()
            if stacked:
                corrected = stacked_labels(scores, [variants[k].constant for k in stacked], trained)
                for k, best in zip(stacked, corrected, strict=True):
                    labels[k, rows] = best.view_as(labels[k, rows]).int()
    confusions = [confusion_matrix(pred, image.labels, num_classes, task.ignore_index) for pred in labels]
    return torch.stack(confusions).cpu(), pixels.cpu()


def mask_ious(pixels: Tensor, areas: Tensor) -> Tensor:
    """Compute the IoU of the ground-truth mask of each class in an image with the proposal that fits it best.

    Args:
        pixels: (C + 1, N) of :func:`image_counts`. Ignored pixels do not count, as in all other measures.
        areas: (C,) number of labelled pixels of each class.

    Returns:
        (C,) in [0, 1]; NaN for a class that is not in the image.
    """
    common = pixels[:-1]  # (C, N)
    union = areas[:, None] + common.sum(0) - common
    best = (common / union.clamp(min=1)).amax(dim=1)
    return torch.where(areas > 0, best, torch.nan)


def measures(confusion: Tensor, unseen: Tensor) -> dict[str, float]:
    """Compute :func:`zero_shot_iou` of a confusion matrix, and the share of unseen pixels predicted as seen.

    Args:
        confusion: (C, C + 1) int64.
        unseen: (C,) bool.

    Returns:
        ``pAcc``, ``mIoU``, ``mIoU_seen``, ``mIoU_unseen``, ``hIoU`` and ``unseen_as_seen`` in percent; those without a
        value are left out. The last is the share of unseen classes' pixels that are predicted as a seen class.
    """
    result = zero_shot_iou(*split_areas(confusion), unseen)
    pixels = confusion[unseen]
    if pixels.sum() > 0 and not unseen.all():
        result['unseen_as_seen'] = 100 * pixels[:, :-1][:, ~unseen].sum().item() / pixels.sum().item()
    return result
