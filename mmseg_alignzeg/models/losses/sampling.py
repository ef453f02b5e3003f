"""Values of masks at points."""

from __future__ import annotations

from mmcv.ops import point_sample
from torch import Tensor


def sample(masks: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples; half a cell from the border a mask goes on as it is.

    ``point_sample`` alone mixes zeros in there, which pulls border logits to 0 in the loss but not at test.

    Args:
        masks: (B, C, h, w).
        points: (B, P, 2) as (x, y) in [0, 1].

    Returns:
        (B, C, P).
    """
    return point_sample(masks, points, padding_mode='border')
