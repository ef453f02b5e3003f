"""COCO-Stuff 164K: 171 labels out of the values 0 to 181."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...open_picture import open_picture
from .convert import Plan
from .originals import folder, relabel

UNUSED = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}  # of COCO's 91 things, those that were never annotated
LABELS = {value: label for label, value in enumerate(v for v in range(182) if v not in UNUSED)} | {255: 255}
SUFFIX = '_labelTrainIds.png'


def train_ids(path: Path) -> np.ndarray:
    """Read the labels of a published PNG, (H, W) uint8: 0 to 170 in the order of mmseg's COCO-Stuff, 255 for none.

    Raises:
        ValueError: If the file contains another value, or more than one channel.
    """
    with open_picture(path) as image:
        return relabel(np.asarray(image), LABELS)


def plan(root: Path, out: Path) -> Plan:
    """Plan the conversion.

    Args:
        root: Folder with ``annotations/train2017`` and ``annotations/val2017``, or one of them.
        out: Folder of the same layout that receives ``*_labelTrainIds.png``.

    Raises:
        FileNotFoundError: If neither contains a label map.
    """
    annotations = folder(root / 'annotations', 'unpack stuffthingmaps_trainval2017.zip into it.')
    paths = [path for part in ('train2017', 'val2017') for path in sorted((annotations / part).glob('*.png'))]
    paths = [path for path in paths if not path.name.endswith(SUFFIX)]
    if not paths:
        raise FileNotFoundError(
            f'There is no label map in {annotations}/train2017 or val2017: '
            'unpack stuffthingmaps_trainval2017.zip into annotations.'
        )
    jobs = [(path, out / 'annotations' / path.parent.name / f'{path.stem}{SUFFIX}') for path in paths]
    return Plan(jobs, train_ids)
