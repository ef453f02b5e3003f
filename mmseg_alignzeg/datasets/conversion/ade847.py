"""ADE20K with all its classes, of which 847 are used: the release ADE20K_2021_17_01."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from mmcv import imresize

from ...open_picture import open_picture
from ..large_vocabulary import original_labels
from .convert import Plan
from .originals import folder, relabel

SEG = '_seg.png'


def read_index_map() -> dict[int, int]:
    """Return the label, 0 to 846, of each used class index of ADE20K, as the label maps of the release encode it."""
    return {index: label for label, index in enumerate(original_labels('ade847'))}


def class_labels(pixels: np.ndarray, label_of: Mapping[int, int]) -> np.ndarray:
    """Return the labels of one ``*_seg.png``.

    Args:
        pixels: (H, W, 3 or 4) uint8. R // 10 * 256 + G is the index of a class, 0 for none; B counts instances.
        label_of: Label of each used index.

    Returns:
        (H, W) uint16; 65535 for every index that is not used.

    Raises:
        ValueError: If ``pixels`` does not have three channels or more.
    """
    if pixels.ndim != 3 or pixels.shape[2] < 3:
        raise ValueError(f'expected an RGB image, (H, W, 3), but the file contains {pixels.shape}')
    red, green = pixels[..., 0].astype(np.int64), pixels[..., 1]
    return relabel(red // 10 * 256 + green, label_of, np.uint16, rest=65535)


def fitted(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Return (width, height) with the shorter side reduced to ``short_side``, unchanged if that is 0 or not smaller."""
    if not 0 < short_side < min(width, height):
        return width, height
    if width >= height:
        return round(width / height * short_side), short_side
    return short_side, round(height / width * short_side)


def convert(path: Path, label_of: Mapping[int, int], short_side: int) -> np.ndarray | Path:
    """Return the labels of a ``*_seg.png``, (H, W) uint16, or a photograph, (H, W, 3): its path if the size is kept."""
    with open_picture(path) as image:
        size = fitted(*image.size, short_side)
        if path.name.endswith(SEG):
            return imresize(class_labels(np.asarray(image), label_of), size, interpolation='nearest')
        return path if size == image.size else imresize(np.asarray(image), size)


def plan(root: Path, out: Path, short_side: int = 512, label_of: Mapping[int, int] | None = None) -> Plan:
    """Plan the conversion.

    Args:
        root: ``ADE20K_2021_17_01``.
        out: Folder that receives ``images_detectron2`` and ``annotations_detectron2``.
        short_side: Larger images are reduced to it, with their labels. Published scores use 512, the size in
            Mask2Former's preparation: at full size, large images would have more weight. 0 keeps all sizes.
        label_of: Label of each used index; by default the package's 847.

    Raises:
        FileNotFoundError: If no label map is found.
    """
    advice = 'pass the folder ADE20K_2021_17_01 of the release of that name.'
    images = folder(root / 'images/ADE', advice)
    jobs = []
    for part in ('training', 'validation'):
        for path in sorted((images / part).rglob(f'*{SEG}')):
            name = path.name.removesuffix(SEG)
            jobs.append((path, out / 'annotations_detectron2' / part / f'{name}.tif'))
            jobs.append((path.with_name(f'{name}.jpg'), out / 'images_detectron2' / part / f'{name}.jpg'))
    if not jobs:
        raise FileNotFoundError(f'There is no *{SEG} in {images}/training or validation: {advice}')
    return Plan(
        jobs, partial(convert, label_of=read_index_map() if label_of is None else label_of, short_side=short_side)
    )
