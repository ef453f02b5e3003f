"""MSRC-v2 with the cleaned labels of Malisiewicz and Efros: 591 photographs, 21 classes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from .convert import Plan
from .originals import read_mat, relabel, same_size
from .split_rule import check_names, split_by_number

#: The class of each value 1, 2, … in ``newlabels``. Horse and mountain are too rare and are left out, as usual.
CLASSES_23 = (
    'building', 'grass', 'tree', 'cow', 'horse', 'sheep', 'sky', 'mountain', 'aeroplane', 'water', 'face', 'car',
    'bicycle', 'flower', 'sign', 'bird', 'book', 'chair', 'road', 'cat', 'dog', 'body', 'boat',
)  # fmt: skip
UNUSED = ('horse', 'mountain')
#: Photographs of each group: names are ``GROUP_NUMBER_s``, both from 1.
GROUP_SIZES = dict.fromkeys(range(1, 21), 30) | {10: 32, 12: 34, 15: 24, 20: 21}
ADVICE = 'unpack msrc_objcategimagedatabase_v2.zip and the cleaned labels (newsegmentations_mats) again.'


def split() -> dict[str, list[str]]:
    """Return the names of train, val and test: 359, 58 and 174, in each group by the last digit of the number."""
    pairs = [(group, number) for group, size in GROUP_SIZES.items() for number in range(1, size + 1)]
    return split_by_number([f'{group}_{number}_s' for group, number in pairs], [number for _, number in pairs])


def segment_labels(segments: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the label of each pixel from the class of its segment.

    Args:
        segments: ``newseg``, (H, W) segment ids from 1.
        labels: ``newlabels``, the class of segment 1, 2, …, any shape.

    Returns:
        (H, W) uint8: 0 to 20 in the order of :data:`CLASSES_23` without :data:`UNUSED`; 255 for a segment without a
        class, that is one beyond ``labels``, or whose class is beyond the list or not used.

    Raises:
        ValueError: If ``segments`` is not (H, W), or an id is not a whole number of at least 1.
    """
    whole = np.asarray(segments).astype(np.int64)
    if whole.size == 0 or whole.min() < 1 or not np.array_equal(whole, segments):
        raise ValueError('`newseg` must contain whole numbers from 1, one per pixel: get the file again')
    kept = [name for name in CLASSES_23 if name not in UNUSED]
    label_of = {value: kept.index(name) for value, name in enumerate(CLASSES_23, start=1) if name in kept}
    classes = enumerate(np.asarray(labels).ravel().tolist(), start=1)
    return relabel(whole, {segment: label_of.get(value, 255) for segment, value in classes}, rest=255)


def read(path: Path, photos: Path) -> np.ndarray:
    """Read the labels of one ``.mat``, see :func:`segment_labels`.

    Raises:
        ValueError: If the file has another format, or another size than its photograph in ``photos``.
    """
    labels = segment_labels(read_mat(path, 'newseg'), read_mat(path, 'newlabels'))
    return same_size(labels, photos / f'{path.name.removesuffix("_GT.mat")}.bmp')


def plan(root: Path, out: Path) -> Plan:
    """Plan the conversion.

    Args:
        root: Folder with ``Images/*.bmp`` of MSRC-v2 and ``newsegmentations_mats/*_GT.mat`` of the cleaned labels.
        out: Folder that receives ``labels/*.png`` and ``lists/{train,val,test}.txt``.

    Raises:
        FileNotFoundError: If a photograph or a label map is missing.
        ValueError: If there is a photograph that the split does not know.
    """
    lists = split()
    names = [name for part in lists.values() for name in part]
    photos, mats = root / 'Images', root / 'newsegmentations_mats'
    check_names(photos, '.bmp', names, 'photographs', ADVICE)
    check_names(mats, '_GT.mat', names, 'label maps', ADVICE)
    jobs = [(mats / f'{name}_GT.mat', out / 'labels' / f'{name}.png') for name in names]
    written = {out / 'lists' / f'{part}.txt': names for part, names in lists.items()}
    return Plan(jobs, partial(read, photos=photos), written)
