"""PASCAL Context from its first release, ``trainval/*.mat``, without the package ``detail``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from mmseg.datasets import PascalContextDataset59

from .convert import Plan
from .originals import folder, read_mat, read_names, relabel

LABELS_459 = {0: 65535} | {value: value - 1 for value in range(1, 460)}
RELEASE = 'unpack trainval.tar.gz of PASCAL Context into VOCdevkit/VOC2010.'
LISTS = 'unpack VOCtrainval_03-May-2010.tar, or pass a list of your own.'


def read_classes(path: Path) -> dict[int, str]:
    """Read the name of each value in the release, from the lines ``1: accordion`` … of its ``labels.txt``.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If a line has another format.
    """
    lines = [line.partition(':') for line in read_names(path, RELEASE)]
    if not all(value.isdecimal() and name.strip() for value, _, name in lines):
        raise ValueError(f'A line of {path} does not have the format `1: accordion`: {RELEASE}')
    return {int(value): name.strip() for value, _, name in lines}


def labels_59(names: Mapping[int, str], classes: Sequence[str]) -> dict[int, int]:
    """Return the label of each value in the release: 1 to 59 in the order of ``classes``, 0 (background) for others.

    Classes are matched by name, not by number. ``59_labels.txt`` of the release is not read: it has another order, and
    other names for three classes (``diningtable``, ``bedcloth``, ``clothes``), where mmseg agrees with ``labels.txt``.

    Raises:
        ValueError: If a class is not among ``names``.
    """
    missing = [name for name in classes if name not in names.values()]
    if missing:
        raise ValueError(f'labels.txt does not name {missing}: use the file from trainval.tar.gz, which has 459 lines.')
    return {0: 0} | {value: classes.index(name) + 1 if name in classes else 0 for value, name in names.items()}


def read_59(path: Path, label_of: Mapping[int, int]) -> np.ndarray:
    """Read the labels of one ``.mat``, (H, W) uint8, with the map of :func:`labels_59`.

    Raises:
        ValueError: If the file has another format, or contains a value without a name.
    """
    return relabel(read_mat(path, 'LabelMap'), label_of)


def read_459(path: Path) -> np.ndarray:
    """Read the labels of one ``.mat``, (H, W) uint16: 0 to 458 in the order of ``labels.txt``, 65535 for none.

    Raises:
        ValueError: If the file has another format, or contains a value above 459.
    """
    return relabel(read_mat(path, 'LabelMap'), LABELS_459, np.uint16)


def plan_59(root: Path, out: Path, train_list: Path | None = None, val_list: Path | None = None) -> Plan:
    """Plan the conversion to 59 classes and background, as ``PascalContextDataset59`` reads them.

    Args:
        root: ``VOCdevkit/VOC2010``, with ``trainval/*.mat`` and ``labels.txt``.
        out: Folder of the same layout that receives ``SegmentationClassContext`` and ``ImageSets/SegmentationContext``.
        train_list: Names for training; by default VOC 2010's own ``ImageSets/Main/train.txt``, 4,998 names.
        val_list: Names for test; by default ``ImageSets/Main/val.txt``, 5,105 names.

    Raises:
        FileNotFoundError: If one of the originals is missing.
        ValueError: If a list is empty or a class is not named.
    """
    mats = folder(root / 'trainval', RELEASE)
    label_of = labels_59(read_classes(root / 'labels.txt'), PascalContextDataset59.METAINFO['classes'])
    lists = {
        'train': read_names(train_list or root / 'ImageSets/Main/train.txt', LISTS),
        'val': read_names(val_list or root / 'ImageSets/Main/val.txt', LISTS),
    }
    names = [name for part in lists.values() for name in part]
    jobs = [(mats / f'{name}.mat', out / 'SegmentationClassContext' / f'{name}.png') for name in names]
    written = {out / 'ImageSets/SegmentationContext' / f'{part}.txt': names for part, names in lists.items()}
    return Plan(jobs, partial(read_59, label_of=label_of), written)


def plan_459(root: Path, out: Path, val_list: Path | None = None) -> Plan:
    """Plan the conversion of the test images to 459 classes, as 16-bit TIFF.

    Args:
        root: See :func:`plan_59`.
        out: Folder of the same layout that receives ``annotations_detectron2/pc459_val``.
        val_list: See :func:`plan_59`.

    Raises:
        FileNotFoundError: If one of the originals is missing.
        ValueError: If the list is empty.
    """
    mats = folder(root / 'trainval', RELEASE)
    names = read_names(val_list or root / 'ImageSets/Main/val.txt', LISTS)
    return Plan(
        [(mats / f'{name}.mat', out / 'annotations_detectron2/pc459_val' / f'{name}.tif') for name in names], read_459
    )
