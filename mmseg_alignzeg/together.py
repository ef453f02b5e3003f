"""What fails on one rank fails on all of them, which would wait for it."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import torch
from mmengine.dist import all_gather_object, all_reduce


def together(work: Callable[[], None]) -> None:
    """Do something on every rank. If one fails, raise on all: its own error on a rank that has one, else the first.

    Args:
        work: Called once on this rank; if it talks to other ranks, it must do so before it can fail.
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
    """The error, or its text if it cannot be sent to another process."""
    try:
        copied = pickle.loads(pickle.dumps(error))  # nosec B301 (what was pickled in the same line)
        return error if isinstance(copied, Exception) else RuntimeError(str(error))
    except Exception:  # what an exception class does when it is pickled may be anything
        return RuntimeError(f'{type(error).__name__}: {error}')
