"""Reading the published datasets: folders, name lists, MATLAB files, label values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from scipy.io import loadmat

from ...open_picture import open_picture


def folder(path: Path, advice: str) -> Path:
    """Return ``path`` if it is a folder.

    Raises:
        FileNotFoundError: If it is not a folder; the message ends with ``advice``.
    """
    if not path.is_dir():
        raise FileNotFoundError(f'There is no folder {path}: {advice}')
    return path


def read_names(path: Path, advice: str) -> list[str]:
    """Read the names in a list file, one per line, without repeats.

    Raises:
        FileNotFoundError: If the file does not exist; the message ends with ``advice``.
        ValueError: If the file contains no name.
    """
    if not path.is_file():
        raise FileNotFoundError(f'There is no list {path}: {advice}')
    names = dict.fromkeys(line.strip() for line in path.read_text(encoding='utf-8').splitlines())
    names.pop('', None)
    if not names:
        raise ValueError(f'The list {path} is empty: {advice}')
    return list(names)


def read_mat(path: Path, key: str) -> Any:
    """Read the variable ``key`` of a MATLAB file.

    Raises:
        ValueError: If the file has no such variable.
    """
    with path.open('rb') as file:  # SciPy's own message does not say that the file is missing
        variables = loadmat(file)
    if key not in variables:
        found = [name for name in variables if not name.startswith('__')]
        raise ValueError(f'the file contains no `{key}`, only {found}')
    return variables[key]


def relabel(
    values: np.ndarray, label_of: Mapping[int, int], dtype: DTypeLike = np.uint8, rest: int | None = None
) -> np.ndarray:
    """Replace the label values of a file by labels.

    Args:
        values: (H, W), non-negative integers.
        label_of: Label of each known value.
        dtype: Data type of the result.
        rest: Label of every other value; if None, an unknown value is an error.

    Returns:
        Labels (H, W).

    Raises:
        ValueError: If ``values`` is not an (H, W) array, or contains a value outside ``label_of``.
    """
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f'expected one label value per pixel, (H, W), but the file contains {values.shape}')
    present = np.flatnonzero(np.bincount(values.ravel()))
    unknown = [value for value in present.tolist() if value not in label_of]
    if unknown and rest is None:
        raise ValueError(f'the file contains label values that the dataset does not have: {unknown}')
    table = np.zeros(present[-1] + 1, dtype=dtype)
    table[present] = [label_of.get(value, rest) for value in present.tolist()]
    return table[values]


def same_size(labels: np.ndarray, photo: Path) -> np.ndarray:
    """Return labels (H, W) unchanged if the file ``photo`` has their size.

    Raises:
        ValueError: If it has another size.
    """
    with open_picture(photo) as image:
        width, height = image.size
    if labels.shape != (height, width):
        raise ValueError(
            f'a label map of {labels.shape[1]} × {labels.shape[0]} pixels for a photograph of {width} × {height} '
            f'({photo.name}): get both files again'
        )
    return labels
