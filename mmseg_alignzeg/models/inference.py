"""Semantic inference: from mask logits and class probabilities to labels, without full-size class maps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .proposals import Window


def interpolation(out: int, grid: int, start: float, extent: float, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute linear interpolation weights along one axis, cropping and resizing in one step.

    For ``start=0, extent=1``, this equals ``F.interpolate(mode='bilinear', align_corners=False)`` along that axis.

    Args:
        out: Number of output samples.
        grid: Number of input samples, evenly spread over [0, 1].
        start: Start of the output in [0, 1].
        extent: Share of [0, 1] that the output covers.
        like: Tensor with the dtype and device of the result.

    Returns:
        Per output sample, its lower and upper input sample, (out,) int64, and the weight of the upper one, (out,).
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
        window: Part of the grid to show, and output size.
        max_elements: Upper bound on the elements of a stripe's largest tensor (at least one row is used).

    Yields:
        Output rows, and their (rows, columns, C) scores, valid until the next stripe is requested, because the memory
        is reused. C is contiguous, so that an argmax reads memory in order.
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
    """Yield σ(M) of one image, in the stripes that :func:`semantic_stripes` uses for ``num_classes`` classes.

    Args:
        mask_logits: (N, h, w) on the padded grid.
        window: Part of the grid to show, and output size.
        num_classes: C of the scores that the caller computes from the masks.
        max_elements: See :func:`semantic_stripes`.

    Yields:
        Output rows, and their (rows, columns, N) values, valid until the next stripe is requested.
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
    """Return σ(M) > 0.5, (N, *window.size) bool on the CPU; only for inspection.

    Args:
        mask_logits: (N, h, w) on the padded grid.
        window: Part of the grid to show, and output size.
    """
    masks = torch.empty((len(mask_logits), *window.size), dtype=torch.bool)
    if len(mask_logits):
        for rows, values in mask_stripes(mask_logits, window):
            masks[:, rows] = (values > 0.5).permute(2, 0, 1).cpu()
    return masks


def drop_background(scores: Tensor, background_at_test: str) -> Tensor:
    """Convert scores including the background to class probabilities; section 4.2 leaves the rule open.

    Args:
        scores: P or P_bc, (…, C + 1) logits, background last.
        background_at_test: 'share': softmax over all C + 1 columns, then drop the background. 'ignore': softmax over
            the C classes only.

    Returns:
        (…, C); rows sum to at most 1.
    """
    if background_at_test == 'ignore':
        return scores[..., :-1].softmax(dim=-1)
    return scores.softmax(dim=-1)[..., :-1]
