"""L_mask: binary cross-entropy and an overlap loss at sampled points (section 3.4, after Mask2Former)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmseg.models.losses.dice_loss import dice_loss as mmseg_dice_loss
from torch import Tensor

from .jaccard_metric import jaccard_mask_loss
from .sampling import sample, uncertain_points


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute 1 − (2·Σ p·t + 1) / (Σ p + Σ t + 1) per mask.

    Args:
        logits: (m, P) mask logits.
        targets: (m, P) in [0, 1].

    Returns:
        (m,).
    """
    return mmseg_dice_loss(
        logits.sigmoid(), targets, None, eps=1.0, reduction='none', naive_dice=True, ignore_index=None
    )


#: Overlap losses by name; each computes (m,) losses from (m, P) logits and targets.
OVERLAP_LOSSES = {'dice': dice_loss, 'jaccard': jaccard_mask_loss}


def mask_loss(
    mask_logits: Tensor,
    targets: Tensor,
    avg_factor: float,
    num_points: int = 12544,
    overlap: str = 'dice',
) -> tuple[Tensor, Tensor]:
    """Compare matched masks at sampled points, most of them where the prediction is uncertain.

    Args:
        mask_logits: (m, h, w) logits of matched proposals.
        targets: (m, H, W) their ground-truth masks in {0, 1}.
        avg_factor: Number of masks to average over, see :func:`mean_count`.
        num_points: Points per mask.
        overlap: A key of :data:`OVERLAP_LOSSES`; 'dice' in the paper.

    Returns:
        Binary cross-entropy and overlap loss, two scalars; zeros with a gradient for m = 0.
    """
    if len(mask_logits) == 0:
        nothing = mask_logits.float().sum()
        return nothing, nothing
    logits = mask_logits[:, None].float()  # (m, 1, h, w)
    with torch.no_grad():
        points = uncertain_points(logits, num_points)  # (m, P, 2)
        wanted = sample(targets[:, None].float(), points).squeeze(1)  # (m, P)
    predicted = sample(logits, points).squeeze(1)
    bce = F.binary_cross_entropy_with_logits(predicted, wanted, reduction='none').mean(dim=1)
    return bce.sum() / avg_factor, OVERLAP_LOSSES[overlap](predicted, wanted).sum() / avg_factor
