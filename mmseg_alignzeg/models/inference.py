"""Semantic inference: from mask logits and class probabilities to labels, without full-size class maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """The part of a mask grid that shows the image, and the size of that image.

    Attributes:
        top: Padding above the image, as a share of the padded height; likewise the others.
        left: See ``top``.
        height: Height of the image as a share of the padded height.
        width: See ``height``.
        size: Rows and columns of the output, in pixels.
    """

    top: float
    left: float
    height: float
    width: float
    size: tuple[int, int]


def interpolation_matrix(out: int, grid: int, start: float, extent: float, like: Tensor) -> Tensor:
    """Linear interpolation along one axis as a matrix, cropping and resizing in one step.

    Equals ``F.interpolate(mode='bilinear', align_corners=False)`` along that axis for ``start=0, extent=1``.

    Args:
        out: Output samples.
        grid: Input samples, evenly spread over [0, 1].
        start: Where the output begins in [0, 1].
        extent: What share of [0, 1] it covers.
        like: Gives dtype and device.

    Returns:
        (out, grid); rows sum to 1.
    """
    centres = start + (torch.arange(out, device=like.device, dtype=torch.float64) + 0.5) * extent / out
    position = (centres * grid - 0.5).clamp(0, grid - 1)
    lower = position.floor().long().clamp(max=max(grid - 2, 0))
    share = position - lower
    matrix = torch.zeros(out, grid, dtype=torch.float64, device=like.device)
    matrix.scatter_add_(1, lower[:, None], 1 - share[:, None])
    matrix.scatter_add_(1, (lower + 1).clamp(max=grid - 1)[:, None], share[:, None])
    return matrix.to(like.dtype)


def semantic_stripes(
    mask_logits: Tensor, class_probs: Tensor, window: Window, max_elements: int = 2**22
) -> Iterator[tuple[slice, Tensor]]:
    """Yield Σ_n p_n·σ(M_n) of one image stripe by stripe.

    Args:
        mask_logits: (N, h, w) on the padded grid.
        class_probs: (N, C) probabilities without the background column.
        window: What to show of the grid, and at which size.
        max_elements: Upper bound of the elements of a stripe's largest tensor (one row at least).

    Yields:
        Output rows, and their (rows, columns, C) scores; C is contiguous so that an argmax reads memory in order.
    """
    grid_h, grid_w = mask_logits.shape[1:]
    height, width = window.size
    along_y = interpolation_matrix(height, grid_h, window.top, window.height, mask_logits)
    along_x = interpolation_matrix(width, grid_w, window.left, window.width, mask_logits)
    wide = along_x @ mask_logits.permute(1, 2, 0)  # (h, columns, N)
    rows = max(1, max_elements // (width * max(class_probs.shape)))
    for begin in range(0, height, rows):
        stripe = slice(begin, min(begin + rows, height))
        masks = (along_y[stripe] @ wide.flatten(1)).unflatten(1, wide.shape[1:]).sigmoid_()  # (rows, columns, N)
        yield stripe, masks @ class_probs


def predict_labels(mask_logits: Tensor, class_probs: Tensor, window: Window) -> Tensor:
    """Labels of one image: argmax_c Σ_n p_nc·σ(M_n), stripe by stripe.

    Args:
        mask_logits: (N, h, w).
        class_probs: (N, C).
        window: See :func:`semantic_stripes`.

    Returns:
        (1, *window.size) int64.
    """
    labels = torch.empty(window.size, dtype=torch.long, device=mask_logits.device)
    for stripe, scores in semantic_stripes(mask_logits, class_probs, window):
        torch.argmax(scores, dim=-1, out=labels[stripe])
    return labels[None]


def predict_scores(mask_logits: Tensor, class_probs: Tensor, window: Window) -> Tensor:
    """Full-size class scores of one image, (C, *window.size): for test-time augmentation and inspection only."""
    scores = mask_logits.new_empty((class_probs.shape[1], *window.size))
    for stripe, part in semantic_stripes(mask_logits, class_probs, window):
        scores[:, stripe] = part.permute(2, 0, 1)
    return scores
