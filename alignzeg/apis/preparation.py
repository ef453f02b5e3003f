"""Preparation of images for the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mmcv
import numpy as np
import torch
from mmseg.structures import SegDataSample

from .image_files import Source, read_rgb


@dataclass(frozen=True)
class Item:
    """One prepared image of a batch.

    Attributes:
        source: Origin of the image.
        image: (H, W, 3) uint8 RGB, upright.
        packed: ``inputs`` (3, h, w) uint8 BGR and ``data_samples``, as created by mmseg's ``PackSegInputs``.
        notes: Messages for the user, one line each.
    """

    source: Source
    image: np.ndarray
    packed: dict[str, Any]
    notes: tuple[str, ...]


def prepare(source: Source, scale: Sequence[int] | None) -> Item:
    """Read and resize an image.

    Args:
        source: See :func:`read_rgb`.
        scale: (long, short) pixels, see :func:`fit`; None keeps the size of the image.

    Raises:
        ValueError: See :func:`read_rgb`.
    """
    image = read_rgb(source)
    height, width = image.shape[:2]
    columns, rows = (width, height) if scale is None else fit((width, height), scale)
    # Bilinear as in mmseg's pipelines; when reducing by more than half, it would skip pixels.
    interpolation = 'area' if 4 * columns * rows < width * height else 'bilinear'
    if (columns, rows) == (width, height):
        resized = image
    else:
        resized = mmcv.imresize(image, (columns, rows), interpolation=interpolation)
    notes = []
    if columns * rows < width * height:
        notes.append(f'scaled from {width} × {height} to {columns} × {rows} pixels for the model')
    sample = SegDataSample(metainfo=dict(img_path=source.name, ori_shape=(height, width), img_shape=(rows, columns)))
    inputs = torch.from_numpy(np.ascontiguousarray(resized[..., ::-1].transpose(2, 0, 1)))  # BGR
    return Item(source, image, dict(inputs=inputs, data_samples=sample), tuple(notes))


def fit(size: tuple[int, int], scale: Sequence[int]) -> tuple[int, int]:
    """Return columns and rows of an input: the largest that fit into ``scale``, as in mmcv's ``Resize``; at least 1.

    Args:
        size: Columns and rows of the image.
        scale: (long, short) bounds; an input never has more than long × short pixels.
    """
    columns, rows = mmcv.rescale_size(size, tuple(scale))
    return max(1, columns), max(1, rows)
