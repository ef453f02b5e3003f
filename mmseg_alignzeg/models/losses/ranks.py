"""What the ranks of distributed training share: the counts of a mean, and the rows of a batch."""

from __future__ import annotations

import torch
from mmengine.dist import all_gather, all_reduce, get_rank, get_world_size
from torch import Tensor


def mean_counts(*counts: float) -> list[float]:
    """How many items each loss is averaged over: the mean of each count over all ranks.

    Distributed training takes the mean of the gradients of its W ranks. A sum over n items of a rank, divided by the
    mean of n over the ranks, is therefore the mean over the items of all ranks, however they are spread: W processes
    train as one with the W-fold batch. Every rank has to call this, those without an item too.

    Args:
        *counts: Of this rank; any weights.

    Returns:
        As many floats; of a single process, its own counts.
    """
    if get_world_size() == 1:
        return [float(count) for count in counts]
    total = torch.tensor(counts, dtype=torch.float64)
    all_reduce(total, 'mean')
    return total.tolist()


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all ranks, in their order; gradients flow into those of this rank. Every rank has to call this.

    Args:
        rows: (n, D); n may differ between ranks, and may be 0.

    Returns:
        (n of all ranks, D); of a single process, its own rows.
    """
    if get_world_size() == 1:
        return rows
    counts = torch.cat(all_gather(torch.tensor([len(rows)]))).tolist()
    padded = rows.new_zeros(max(counts), rows.shape[1])
    padded[: len(rows)] = rows.detach()
    gathered = [part[:count] for part, count in zip(all_gather(padded), counts, strict=True)]
    gathered[get_rank()] = rows
    return torch.cat(gathered)
