"""Sampling of points and mask values."""

from __future__ import annotations

import torch
from mmcv.ops import point_sample
from torch import Tensor


def sample(masks: Tensor, points: Tensor) -> Tensor:
    """Sample masks bilinearly; within half a cell of the border, border values are repeated.

    By default, ``point_sample`` mixes in zeros there, which pulls border logits to 0 in the loss but not at test time.

    Args:
        masks: (B, C, h, w).
        points: (B, P, 2) as (x, y) in [0, 1].

    Returns:
        (B, C, P).
    """
    return point_sample(masks, points, padding_mode='border')


def uncertain_points(
    mask_logits: Tensor, num_points: int, oversample_ratio: float = 3.0, importance_ratio: float = 0.75
) -> Tensor:
    """Sample random points, most of them where masks are closest to p = 1/2 (PointRend).

    Like mmseg's ``get_uncertain_point_coords_with_randomness``, but with :func:`sample`: zeros around a mask would make
    points at the border of the image look uncertain, in place of those at the border of the mask.

    Args:
        mask_logits: (m, 1, h, w).
        num_points: P.
        oversample_ratio: Candidates per point; the default is that of Mask2Former and SAN, as is the next.
        importance_ratio: Share of the points that are the most uncertain candidates; the rest is random.

    Returns:
        (m, P, 2) as (x, y) in [0, 1].
    """
    device, num_masks = mask_logits.device, len(mask_logits)
    candidates = torch.rand(num_masks, int(num_points * oversample_ratio), 2, device=device)
    num_important = int(num_points * importance_ratio)
    certainty = sample(mask_logits, candidates).squeeze(1).abs()
    important = certainty.topk(num_important, dim=1, largest=False).indices
    important = candidates.gather(1, important[..., None].expand(-1, -1, 2))
    return torch.cat([important, torch.rand(num_masks, num_points - num_important, 2, device=device)], dim=1)
