"""Masks at output size, in stripes: no tensor of all proposals at all pixels exists."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..precision import full_precision
from .proposals import Window

# Elements of a stripe's largest tensor: what the cache of a CPU core holds, or what keeps a GPU busy.
STRIPE_ELEMENTS = {'cpu': 2**21, 'cuda': 2**26}


def stripe_elements(device: torch.device) -> int:
    """Return the maximum number of elements of a stripe's largest tensor on a device."""
    return STRIPE_ELEMENTS.get(device.type, STRIPE_ELEMENTS['cpu'])


def linear_weights(out: int, grid: int, start: float, extent: float, like: Tensor) -> Tensor:
    """Return the matrix of linear interpolation along one axis, which crops and resizes in one step.

    For ``start=0, extent=1``, the product with it equals ``F.interpolate(mode='bilinear', align_corners=False)`` along
    that axis.

    Args:
        out: Number of output samples.
        grid: Number of input samples, evenly spread over [0, 1].
        start: Start of the output in [0, 1].
        extent: Share of [0, 1] that the output covers.
        like: Tensor with the dtype and device of the result.

    Returns:
        (out, grid); rows sum to 1 and have at most two adjacent entries above 0.
    """
    centres = start + (torch.arange(out, device=like.device, dtype=torch.float64) + 0.5) * extent / out
    position = (centres * grid - 0.5).clamp(0, grid - 1)
    distance = (position[:, None] - torch.arange(grid, device=like.device)).abs()
    return (1 - distance).clamp(min=0).to(like)


@torch.no_grad()
def mask_stripes(
    mask_logits: Tensor, window: Window, num_columns: int = 1, max_elements: int | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Yield σ(M) of one image stripe by stripe.

    Args:
        mask_logits: (N, h, w) float32 on the padded grid.
        window: Part of the grid to show, and output size.
        num_columns: Numbers per pixel that the caller computes from the masks.
        max_elements: Maximum number of elements of N masks, or of the caller's columns, in a stripe; at least one row
            is used. By default :func:`stripe_elements`.

    Yields:
        Output rows, and their (rows, columns, N) values, valid until the next stripe is requested, because the memory
        is reused.
    """
    (height, width), num_proposals = window.size, len(mask_logits)
    down = linear_weights(height, mask_logits.shape[1], window.top, window.height, mask_logits)
    across = linear_weights(width, mask_logits.shape[2], window.left, window.width, mask_logits)
    first = down.ne(0).int().argmax(dim=1).tolist()  # grid row above each output row
    with full_precision(mask_logits.device):
        wide = across @ mask_logits.permute(1, 2, 0)  # (h, columns, N)
    elements = max_elements or stripe_elements(mask_logits.device)
    rows = min(height, max(1, elements // (width * max(num_proposals, num_columns))))
    memory = mask_logits.new_empty(rows, width * num_proposals)
    for begin in range(0, height, rows):
        stripe = slice(begin, min(begin + rows, height))
        near = slice(first[stripe.start], first[stripe.stop - 1] + 2)
        masks = memory[: stripe.stop - begin]
        with full_precision(masks.device):
            torch.mm(down[stripe, near], wide[near].flatten(1), out=masks)
        yield stripe, masks.sigmoid_().view(-1, width, num_proposals)


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
