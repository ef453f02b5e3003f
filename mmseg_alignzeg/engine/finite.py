"""Refuse to save or load non-finite weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def refuse_not_finite(state_dict: Mapping[str, Any], what: str, todo: str) -> None:
    """Check every floating-point tensor in a state dict.

    Args:
        state_dict: Tensors by name; other values are ignored.
        what: Start of the error message: what failed.
        todo: End of the error message: what to do.

    Raises:
        ValueError: If a value is NaN or infinite.
    """
    bad = [name for name, value in state_dict.items() if _is_bad(value)]
    if bad:
        raise ValueError(
            f'{what}: {len(bad)} of {len(state_dict)} tensors have non-finite values, first {bad[0]!r}: {todo}'
        )


def _is_bad(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all()
