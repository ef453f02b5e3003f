"""Full precision for the parts of the model that need it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch


def full_precision(device: torch.device) -> AbstractContextManager:
    """Return a context without autocast and without TF32, whose products have only ten bits of mantissa.

    Inputs must be converted to float32 by the caller. The backward pass of what is computed inside may use TF32.
    """
    exact = torch.autocast(device.type, enabled=False)
    if device.type != 'cuda' or not torch.backends.cuda.matmul.allow_tf32:
        return exact
    return _without_tf32(exact)


@contextmanager
def _without_tf32(exact: AbstractContextManager) -> Iterator[None]:
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with exact:
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = True
