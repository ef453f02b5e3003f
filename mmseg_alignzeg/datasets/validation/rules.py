"""The values that the label files of a dataset may contain, and the label that its pipeline assigns to each."""

from __future__ import annotations

import os.path as osp
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from PIL import Image

from ...vocabulary import Vocabulary
from ..file_checks import Header
from ..loading import LoadWideAnnotations

BY_VALUE = (LoadAnnotations, LoadWideAnnotations)  # loaders that map each value independently
VOC_BORDER = (224, 224, 192)  # colour of the value 255 in the palette of PASCAL VOC


@dataclass(frozen=True)
class LabelRules:
    """The values that the label files of a dataset may contain, and their labels after loading.

    Args:
        classes: Names of the labels 0 … C-1 after loading.
        num_values: Number of class numbers in the files (K); more than C if a subset is used.
        label_map: Label of each class number, as mmseg applies it after ``reduce_zero_label``; None keeps them.
        reduce_zero_label: Whether 0 means "no label" in the files and classes count from 1.
        ignored: Labels that mean "no label" after loading.
        palette: RGB colours of the K class numbers, if the dataset defines them.
        train_ids: Whether the files are COCO-Stuff's TrainIds.
    """

    classes: tuple[str, ...]
    num_values: int
    label_map: Mapping[int, int] | None = None
    reduce_zero_label: bool = False
    ignored: frozenset[int] = frozenset({255})
    palette: tuple[tuple[int, ...], ...] = ()
    train_ids: bool = False

    @classmethod
    def of(cls, dataset: Any) -> LabelRules:
        """Return the rules of an mmseg dataset.

        Raises:
            ValueError: If its ``metainfo`` has no class names.
        """
        classes = Vocabulary.from_metainfo(dataset.metainfo).classes
        own = type(dataset).METAINFO
        names = getattr(dataset, 'label_classes', None) or own.get('classes') or classes
        palette = tuple(tuple(colour) for colour in own.get('palette', ()))
        return cls(
            classes=classes,
            num_values=len(names),
            label_map=dataset.label_map,
            reduce_zero_label=dataset.reduce_zero_label,
            # 255 is a class if there are more than 255 classes.
            ignored=frozenset({dataset.ignore_index, 255} if len(classes) <= 255 else {dataset.ignore_index}),
            palette=palette if len(palette) == len(names) else (),
            train_ids=dataset.seg_map_suffix == '_labelTrainIds.png',
        )

    def label_of(self, value: int) -> int | None:
        """Return the label of a value in the files by mmseg's rules; None if the value has no class."""
        if self.reduce_zero_label:
            if value == 0:
                return 255
            value -= 1
        if self.label_map is not None:
            return self.label_map.get(value)
        return value if 0 <= value < self.num_values else None

    def fits(self, value: int | None, label: int) -> bool:
        """Return whether a label means "no label", or is a class and the file value (None: unknown) has one too."""
        known = value is None or self.label_of(value) is not None
        return label in self.ignored or (known and 0 <= label < len(self.classes))


def annotation_loader(dataset: Any) -> Callable | None:
    """Return the transform of a dataset's pipeline that loads the labels, if there is one."""
    transforms = getattr(dataset.pipeline, 'transforms', [])
    named = [t for t in transforms if type(t).__name__.startswith('Load') and 'Image' not in type(t).__name__]
    return next((t for t in transforms if isinstance(t, BY_VALUE)), named[0] if named else None)


def image_loader(dataset: Any) -> Callable | None:
    """Return the transform of a dataset's pipeline that loads the image from its file, if there is one."""
    transforms = getattr(dataset.pipeline, 'transforms', [])
    return next((t for t in transforms if isinstance(t, LoadImageFromFile)), None)


def label_table(loader: Callable, info: Mapping[str, Any], header: Header) -> np.ndarray:
    """Return the label that a loader assigns to each value, by loading one small file with all values.

    mmseg's loader scans a label map once per class, which would take longer than all other checks.

    Args:
        loader: A transform that reads ``seg_map_path`` and maps each value independently.
        info: An entry of the dataset's list, for its ``label_map`` and ``reduce_zero_label``.
        header: The kind of file: mode, format and palette.

    Returns:
        int64 (number of values,).

    Raises:
        ValueError: If the loader does not return one label per pixel.
    """
    count, dtype = {'1': (2, np.bool_), 'L': (256, np.uint8), 'P': (256, np.uint8)}.get(header.mode, (65536, np.uint16))
    values = np.arange(count).reshape(-1, min(count, 256))
    picture = Image.fromarray(values.astype(np.int32 if header.mode == 'I' else dtype))
    if header.mode == 'P':
        picture.putpalette(header.palette)
    with tempfile.TemporaryDirectory() as folder:
        path = osp.join(folder, 'values' + osp.splitext(info['seg_map_path'])[1])
        picture.save(path, format=header.format)
        labels = np.asarray(loader({**info, 'seg_map_path': path, 'seg_fields': []})['gt_seg_map'])
    if labels.size != count:
        raise ValueError(
            f'returns {labels.size:,} labels for {count:,} pixels of mode {header.mode} (`imdecode_backend` must be '
            "'pillow': cv2 reads a palette as colours)"
        )
    return labels.reshape(-1).astype(np.int64)
