"""Semantic inference: from mask logits and class probabilities to labels, without full-size class maps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .proposals import Window


def interpolation(out: int, grid: int, start: float, extent: float, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Linear interpolation along one axis that crops and resizes in one step.

    Equals ``F.interpolate(mode='bilinear', align_corners=False)`` along that axis for ``start=0, extent=1``.

    Args:
        out: Output samples.
        grid: Input samples, evenly spread over [0, 1].
        start: Where the output begins in [0, 1].
        extent: What share of [0, 1] it covers.
        like: Gives dtype and device.

    Returns:
        Per output sample its lower and upper input sample, (out,) int64, and the share of the upper one, (out,).
    """
    centres = start + (torch.arange(out, device=like.device, dtype=torch.float64) + 0.5) * extent / out
    position = (centres * grid - 0.5).clamp(0, grid - 1)
    lower = position.floor().long()
    return lower, (lower + 1).clamp(max=grid - 1), (position - lower).to(like.dtype)


@torch.no_grad()
def semantic_stripes(
    mask_logits: Tensor,
    class_probs: Tensor,
    window: Window,
    max_elements: int = 2**19,
) -> Iterator[tuple[slice, Tensor]]:
    """Yield Σ_n p_n·σ(M_n) of one image stripe by stripe.

    Args:
        mask_logits: (N, h, w) on the padded grid.
        class_probs: (N, C) probabilities without the background column.
        window: What to show of the grid, and at which size.
        max_elements: Upper bound of the elements of a stripe's largest tensor (one row at least).

    Yields:
        Output rows, and their (rows, columns, C) scores, valid until the next stripe is asked for: the memory is
        used again. C is contiguous so that an argmax reads in order.
    """
    scores = None
    for stripe, masks in mask_stripes(mask_logits, window, class_probs.shape[1], max_elements):
        flat_masks = masks.flatten(0, 1)  # (rows · columns, N)
        if scores is None:  # the first stripe is the largest
            scores = masks.new_empty(len(flat_masks), class_probs.shape[1])
        flat_scores = torch.mm(flat_masks, class_probs, out=scores[: len(flat_masks)])
        yield stripe, flat_scores.unflatten(0, masks.shape[:2])


@torch.no_grad()
def mask_stripes(
    mask_logits: Tensor, window: Window, num_classes: int = 1, max_elements: int = 2**19
) -> Iterator[tuple[slice, Tensor]]:
    """Yield σ(M) of one image stripe by stripe: those in which :func:`semantic_stripes` scores so many classes.

    Args:
        mask_logits: (N, h, w) on the padded grid.
        window: What to show of the grid, and at which size.
        num_classes: C of what is to be made of the masks.
        max_elements: See :func:`semantic_stripes`.

    Yields:
        Output rows, and their (rows, columns, N) values, valid until the next stripe is asked for.
    """
    height, width = window.size
    num_proposals = len(mask_logits)
    above, below, share_y = interpolation(height, mask_logits.shape[1], window.top, window.height, mask_logits)
    left, right, share_x = interpolation(width, mask_logits.shape[2], window.left, window.width, mask_logits)
    cells = mask_logits.permute(1, 2, 0)  # (h, w, N)
    wide = torch.lerp(cells[:, left], cells[:, right], share_x[:, None])  # (h, columns, N)
    rows = min(height, max(1, max_elements // (width * max(num_proposals, num_classes))))
    masks = mask_logits.new_empty(rows, width, num_proposals)
    above_rows, below_rows = above.tolist(), below.tolist()
    for begin in range(0, height, rows):
        stripe = slice(begin, min(begin + rows, height))
        count = stripe.stop - begin
        for i, y in enumerate(range(begin, stripe.stop)):  # row by row: gathering them would copy the masks twice
            torch.lerp(wide[above_rows[y]], wide[below_rows[y]], share_y[y], out=masks[i])
        yield stripe, masks[:count].sigmoid_()


def binary_masks(mask_logits: Tensor, window: Window) -> Tensor:
    """Where σ(M) > 0.5, (N, *window.size) bool on the CPU: for inspection only.

    Args:
        mask_logits: (N, h, w) on the padded grid.
        window: What to show of the grid, and at which size.
    """
    masks = torch.empty((len(mask_logits), *window.size), dtype=torch.bool)
    if len(mask_logits):
        for rows, values in mask_stripes(mask_logits, window):
            masks[:, rows] = (values > 0.5).permute(2, 0, 1).cpu()
    return masks


def drop_background(scores: Tensor, background_at_test: str) -> Tensor:
    """Scores with the background to probabilities without it, as section 4.2 leaves it open.

    Args:
        scores: P or P_bc, (…, C + 1) logits, background last.
        background_at_test: 'share' takes the softmax over C + 1 and drops the background, 'ignore' over C alone.

    Returns:
        (…, C); rows sum to at most 1.
    """
    if background_at_test == 'ignore':
        return scores[..., :-1].softmax(dim=-1)
    return scores.softmax(dim=-1)[..., :-1]
