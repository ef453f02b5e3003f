"""Weights that are not finite: never saved, never loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def refuse_not_finite(state_dict: Mapping[str, Any], what: str, todo: str) -> None:
    """Look at every tensor of floats in a state dict.

    Args:
        state_dict: Tensors by name; anything else is passed by.
        what: Whose weights these are, for the message.
        todo: The way out.

    Raises:
        ValueError: If a value is NaN or infinite.
    """
    bad = [name for name, value in state_dict.items() if _is_bad(value)]
    if bad:
        raise ValueError(
            f'{what}: {len(bad)} of {len(state_dict)} tensors hold values that are not finite, first {bad[0]!r}: {todo}'
        )


def _is_bad(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all()
