"""Clothing Co-Parsing (CCP): 2,098 photographs, of which the first 1,004 have label maps with 59 labels."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from .convert import Plan
from .originals import read_mat, relabel, same_size
from .split_rule import check_names, split_by_number

LABELS = {label: label for label in range(59)}  # 0 is 'null', everything but clothes, hair and skin
LAST = 1004
ADVICE = 'clone github.com/bearpaw/clothing-co-parsing again.'


def split() -> dict[str, list[str]]:
    """Return the names of train, val and test: 604, 100 and 300, by the last digit of the number."""
    numbers = range(1, LAST + 1)
    return split_by_number([f'{number:04d}' for number in numbers], numbers)


def read(path: Path, photos: Path) -> np.ndarray:
    """Read the labels of one ``.mat``, (H, W) uint8: 0 to 58 as in the file.

    Raises:
        ValueError: If the file has another format, or another size than its photograph in ``photos``.
    """
    return same_size(relabel(read_mat(path, 'groundtruth'), LABELS), photos / f'{path.stem}.jpg')


def plan(root: Path, out: Path) -> Plan:
    """Plan the conversion.

    Args:
        root: Folder with ``photos/*.jpg`` and ``annotations/pixel-level/*.mat``.
        out: Folder that receives ``labels/*.png`` and ``lists/{train,val,test}.txt``.

    Raises:
        FileNotFoundError: If a photograph or a label map is missing.
        ValueError: If there is a label map that the split does not know.
    """
    lists = split()
    names = [name for part in lists.values() for name in part]
    photos, mats = root / 'photos', root / 'annotations/pixel-level'
    check_names(photos, '.jpg', names, 'photographs', ADVICE, others=True)  # 1,094 photographs have no label map
    check_names(mats, '.mat', names, 'label maps', ADVICE)
    jobs = [(mats / f'{name}.mat', out / 'labels' / f'{name}.png') for name in names]
    written = {out / 'lists' / f'{part}.txt': names for part, names in lists.items()}
    return Plan(jobs, partial(read, photos=photos), written)
