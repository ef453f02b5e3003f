"""PASCAL VOC 2012 with the Semantic Boundaries Dataset (SBD): 1,464 + 9,118 training images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .convert import Plan
from .originals import folder, read_mat, read_names, relabel

LABELS = {label: label for label in (*range(21), 255)}


def sbd_labels(path: Path) -> np.ndarray:
    """Read the labels of a file in SBD's ``cls`` folder, (H, W) uint8: 0 is background, 1 to 20 are VOC's classes.

    Raises:
        ValueError: If the file has another format, or contains another value.
    """
    return relabel(read_mat(path, 'GTcls')[0, 0]['Segmentation'], LABELS)


def added_names(sbd: Iterable[str], voc: Iterable[str]) -> list[str]:
    """Return the names that SBD adds to VOC, in alphabetical order."""
    return sorted(set(sbd) - set(voc))


def plan(root: Path, out: Path, sbd: Path | None = None) -> Plan:
    """Plan the conversion.

    Args:
        root: ``VOCdevkit/VOC2012``.
        out: Folder of the same layout that receives ``SegmentationClassAug`` and ``ImageSets/Segmentation/aug.txt``.
        sbd: SBD's folder ``dataset``; by default ``VOCaug/dataset`` beside ``root``, as in mmseg.

    Raises:
        FileNotFoundError: If one of the originals is missing.
    """
    sbd = sbd or root.parent / 'VOCaug/dataset'
    lists = folder(root, 'pass the folder VOC2012 of VOCtrainval_11-May-2012.tar.') / 'ImageSets/Segmentation'
    mats = folder(sbd / 'cls', 'unpack benchmark.tgz of SBD and pass its folder `dataset` with --sbd.')
    voc_names = [name for part in ('train', 'val') for name in read_names(lists / f'{part}.txt', 'unpack VOC 2012.')]
    sbd_names = [name for part in ('train', 'val') for name in read_names(sbd / f'{part}.txt', 'unpack SBD.')]
    added = added_names(sbd_names, voc_names)
    names = sorted({path.stem for path in mats.glob('*.mat')}.union(added))
    jobs = [(mats / f'{name}.mat', out / 'SegmentationClassAug' / f'{name}.png') for name in names]
    return Plan(jobs, sbd_labels, {out / 'ImageSets/Segmentation/aug.txt': added})
