"""Reading what the makers of the datasets published: folders, name lists, MATLAB files, label values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from scipy.io import loadmat


def folder(path: Path, advice: str) -> Path:
    """Return ``path``.

    Raises:
        FileNotFoundError: If it is no folder; the message ends with ``advice``.
    """
    if not path.is_dir():
        raise FileNotFoundError(f'There is no folder {path}: {advice}')
    return path


def read_names(path: Path, advice: str) -> list[str]:
    """Names in a list file, one per line; a repeated name counts once.

    Raises:
        FileNotFoundError: If there is no such file; the message ends with ``advice``.
        ValueError: If the file names nothing.
    """
    if not path.is_file():
        raise FileNotFoundError(f'There is no list {path}: {advice}')
    names = dict.fromkeys(line.strip() for line in path.read_text(encoding='utf-8').splitlines())
    names.pop('', None)
    if not names:
        raise ValueError(f'The list {path} names nothing: {advice}')
    return list(names)


def read_mat(path: Path, key: str) -> Any:
    """Variable ``key`` of a MATLAB file.

    Raises:
        ValueError: If the file holds no such variable.
    """
    with path.open('rb') as file:  # SciPy's own message for a missing file does not say so
        variables = loadmat(file)
    if key not in variables:
        found = [name for name in variables if not name.startswith('__')]
        raise ValueError(f'the file holds no `{key}`, only {found}')
    return variables[key]


def relabel(
    values: np.ndarray, label_of: Mapping[int, int], dtype: DTypeLike = np.uint8, rest: int | None = None
) -> np.ndarray:
    """Replace the label values of a file by labels.

    Args:
        values: (H, W), integers from 0 on.
        label_of: Label of each known value.
        dtype: Of the result.
        rest: Label of every other value; without it, an unknown value is an error.

    Returns:
        (H, W).

    Raises:
        ValueError: If ``values`` is no (H, W) array, or holds a value outside ``label_of``.
    """
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f'expected one label value per pixel, (H, W), but the file holds {values.shape}')
    present = np.flatnonzero(np.bincount(values.ravel()))
    unknown = [value for value in present.tolist() if value not in label_of]
    if unknown and rest is None:
        raise ValueError(f'the file holds label values that the dataset does not have: {unknown}')
    table = np.zeros(present[-1] + 1, dtype=dtype)
    table[present] = [label_of.get(value, rest) for value in present.tolist()]
    return table[values]
