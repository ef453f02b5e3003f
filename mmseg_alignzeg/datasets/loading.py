"""Transforms for label maps: loading a subset or more than 255 classes, checking, and dropping unlabelled images."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS

from ..open_picture import open_picture
from .file_checks import is_local

EIGHT_BITS = ('1', 'L', 'P')  # modes of PIL
WIDE_IGNORE_LABEL = 65535  # "no label" in 16-bit label maps, where 255 is a class


@TRANSFORMS.register_module()
class LoadClassSubset(LoadAnnotations):
    """mmseg's ``LoadAnnotations`` for a dataset with a subset of the classes: one lookup renames all labels.

    mmseg compares the whole map with each label in ``label_map``, which takes a third of the time of loading and
    preparing an image of COCO-Stuff. The arguments and the result are the same.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``gt_seg_map``, uint8 (H, W)."""
        label_map = results.get('label_map')
        results = super().transform({**results, 'label_map': None})
        if label_map is not None:
            table = np.arange(256, dtype=np.uint8)
            for label, new in label_map.items():
                if label < len(table):  # others cannot be in the file
                    table[label] = new
            results['gt_seg_map'] = cv2.LUT(results['gt_seg_map'], table)
        return {**results, 'label_map': label_map}


@TRANSFORMS.register_module()
class LoadWideAnnotations(BaseTransform):
    """Load a label map of more than 255 classes: a 16-bit PNG or TIFF, or any narrower one.

    mmseg's ``LoadAnnotations`` casts to uint8, which turns label 256 into 0. This one keeps uint16 and adds
    ``gt_seg_map``, uint16 (H, W), where 65535 means "no label"; an 8-bit 255 stays label 255. ``reduce_zero_label`` and
    ``label_map`` of the dataset apply in mmseg's order: 0 becomes 65535 and the rest one less, then labels are renamed.

    A ``results`` without ``seg_map_path`` is returned unchanged, because mmseg's inference removes only
    ``LoadAnnotations`` from the test pipeline.

    Args:
        backend_args: Arguments of MMEngine's file backend; the local disk by default.

    Raises:
        ValueError: If a file is not an image, has several channels, contains numbers outside 0 … 65535, or differs in
            size from the loaded image. The message names the file.
    """

    def __init__(self, backend_args: dict | None = None) -> None:
        self.backend_args = backend_args

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``gt_seg_map``, and its name to ``seg_fields``, so that resizing, cropping and flipping include it."""
        path = results.get('seg_map_path')
        if path is None:
            return results
        labels = _decode(fileio.get(path, backend_args=self.backend_args), path)
        size = results.get('ori_shape', labels.shape)[:2]
        if labels.shape != tuple(size):
            raise ValueError(
                f'{path}: the label map has {labels.shape[0]} x {labels.shape[1]} pixels (height x width) and its '
                f'image {results.get("img_path")} {size[0]} x {size[1]}: both must have the same size.'
            )
        table = _lookup_table(results.get('label_map'), results.get('reduce_zero_label', False))
        results['gt_seg_map'] = table[labels]
        results.setdefault('seg_fields', []).append('gt_seg_map')
        return results


@TRANSFORMS.register_module()
class CheckLabelMap(BaseTransform):
    """Refuse a label map that does not fit its image or its loader. It must directly follow ``LoadAnnotations``.

    ``LoadAnnotations`` casts to uint8, which turns label −1 into 255 and 256 into 0. Files of more than 8 bits are read
    again to check their values; for the others, the header is enough.

    Required keys: ``seg_map_path``, ``gt_seg_map`` and ``ori_shape``; a ``results`` without one is returned unchanged.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Check the label map and return ``results`` unchanged.

        Raises:
            ValueError: If there is not one label for each pixel of the image, or a value in the file is neither an
                integer in 0 … 255 nor 65535, "no label" in 16 bits.
        """
        if not {'seg_map_path', 'gt_seg_map', 'ori_shape'} <= results.keys():
            return results
        path, labels, size = results['seg_map_path'], results['gt_seg_map'], tuple(results['ori_shape'][:2])
        if labels.shape != size:
            raise ValueError(
                f'{path}: a label map of shape {labels.shape} for an image of {size} (height, width): create it in the '
                'size of its image, with one label per pixel.'
            )
        if is_local(path):
            with open_picture(path) as image:
                if image.mode not in EIGHT_BITS:
                    _check_values(np.asarray(image), path)
        return results


def _check_values(values: np.ndarray, path: str) -> None:
    """Raise ValueError for a value that uint8 would change, except 65535, which becomes 255: both mean "no label"."""
    kept = np.isin(values, [*range(256), WIDE_IGNORE_LABEL])
    if not kept.all():
        raise ValueError(
            f'{path}: contains the value {values[~kept][0]}; `LoadAnnotations` keeps integers in 0 … 255: correct the '
            'file, or load more classes with `LoadWideAnnotations`.'
        )


@TRANSFORMS.register_module()
class DropUnlabelled(BaseTransform):
    """Drop an image without any labelled pixel, so that the dataset draws another one in its place.

    Use it in training pipelines, after the loader of the labels or after a crop: some images contain no seen class, and
    so have no label. Do not use it in testing, where every image counts and MMEngine refuses a dropped one.

    Args:
        ignore_index: The label that means "no label".
    """

    def __init__(self, ignore_index: int = 255) -> None:
        self.ignore_index = ignore_index

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Return ``results`` unchanged, or None if ``gt_seg_map`` is ``ignore_index`` everywhere."""
        return None if (results['gt_seg_map'] == self.ignore_index).all() else results


def _decode(content: bytes, path: str) -> np.ndarray:
    """Decode an image file into a label map (H, W), uint16."""
    try:
        with open_picture(io.BytesIO(content)) as image:
            labels = np.asarray(image)
    except Exception as error:  # every decoder has its own exceptions; all mean the same to the user
        raise ValueError(f'{path}: not a readable image: save label maps as 16-bit PNG or TIFF.') from error
    if labels.ndim != 2:
        raise ValueError(
            f'{path}: an image of mode {image.mode} with {labels.shape[2]} channels; a label map has a single one, '
            'which contains the numbers of the labels, not their colours.'
        )
    if labels.dtype.kind == 'f' or not 0 <= labels.min() <= labels.max() <= WIDE_IGNORE_LABEL:
        raise ValueError(
            f'{path}: contains {labels.dtype} from {labels.min()} to {labels.max()}; labels are integers in 0 … 65535.'
        )
    return labels.astype(np.uint16)


def _lookup_table(label_map: Mapping[int, int] | None, reduce_zero_label: bool) -> np.ndarray:
    """Return the label of each value in the file, uint16 (65536,)."""
    table = np.arange(WIDE_IGNORE_LABEL + 1, dtype=np.uint16)
    for old, new in (label_map or {}).items():
        table[old] = new
    if reduce_zero_label:
        table = table[np.r_[WIDE_IGNORE_LABEL, : WIDE_IGNORE_LABEL - 1, WIDE_IGNORE_LABEL]]
    return table
