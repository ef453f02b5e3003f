"""What the ranks of distributed training agree on: how many items a mean is taken over, and whether to stop."""

from __future__ import annotations

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size


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


def raise_together(fault: str | None) -> None:
    """Raise in every rank what one of them has found, so that the others do not wait for it.

    Args:
        fault: What is wrong, one line, or None.

    Raises:
        ValueError: If any rank has a fault; with the first of them.
    """
    found = torch.tensor(fault is not None, dtype=torch.int32)
    all_reduce(found, 'max')
    if found:
        raise ValueError(next(text for text in all_gather_object(fault) if text is not None))
