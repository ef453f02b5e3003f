"""Reductions over the ranks of distributed training: counts for means, and rows of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.dist import all_gather, all_reduce, get_rank, get_world_size
from torch import Tensor

from ...transfer import to_device


def mean_count(count: int, device: torch.device) -> float | Tensor:
    """Return the number of items a loss is averaged over, the mean of a count over all ranks, without waiting.

    Distributed training takes the mean of the gradients of its W ranks. A rank's sum over its items, divided by the
    mean number of items per rank, therefore gives the mean over the items of all ranks, however they are distributed:
    W processes train like one with a W-fold batch. Every rank must call this, even without items.

    Returns:
        A scalar on ``device``; with a single process, its own count as a float.
    """
    if get_world_size() == 1:
        return float(count)
    mean = to_device(device, torch.tensor([float(count)]))[0]
    all_reduce(mean, 'mean')
    return mean[0]


def gather_row(row: Tensor) -> Tensor:
    """Gather a vector of each rank, (n,), in rank order: (W, n). Every rank must call this."""
    return row[None] if get_world_size() == 1 else torch.stack(all_gather(row))


def gather_rows(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Gather the rows of all ranks in rank order; only this rank's rows get gradients. Every rank must call this.

    Args:
        rows: (n, D); n may differ between ranks, and may be 0.
        counts: n of each rank.

    Returns:
        (n of all ranks, D); with a single process, its own rows.
    """
    if get_world_size() == 1:
        return rows
    padded = rows.new_zeros(max(counts), rows.shape[1])
    padded[: len(rows)] = rows.detach()
    gathered = [part[:count] for part, count in zip(all_gather(padded), counts, strict=True)]
    gathered[get_rank()] = rows
    return torch.cat(gathered)
