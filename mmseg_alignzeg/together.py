"""Raise an error on all ranks if one rank fails, because the other ranks would otherwise wait for it."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import torch
from mmengine.dist import all_gather_object, all_reduce


def together(work: Callable[[], None]) -> None:
    """Call a function on every rank. If it fails on any, raise its own error on each such rank, else the first error.

    Args:
        work: Called once on this rank; if it communicates with other ranks, it must do so before it can fail.
    """
    own: Exception | None = None
    try:
        work()
    except Exception as error:
        own = error
    failed = torch.tensor(own is not None, dtype=torch.int32)
    all_reduce(failed, 'max')
    if not failed:
        return
    errors = all_gather_object(None if own is None else _sendable(own))
    if own is not None:
        raise own
    for others in errors:
        if others is not None:
            raise others


def _sendable(error: Exception) -> Exception:
    """Return the error, or its text if it cannot be sent to another process."""
    try:
        copied = pickle.loads(pickle.dumps(error))  # nosec B301 (pickled in the same line)
        return error if isinstance(copied, Exception) else RuntimeError(str(error))
    except Exception:  # pickling an exception class can raise any exception
        return RuntimeError(f'{type(error).__name__}: {error}')
