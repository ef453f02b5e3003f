"""Benchmarks of several hundred classes that mmseg lacks: A-847 and PC-459."""

from __future__ import annotations

import os.path as osp
from collections.abc import Sequence
from importlib import resources
from typing import Any, ClassVar

from mmengine import fileio
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from ..vocabulary import Vocabulary, abridged
from .checked_datasets import CheckedFiles
from .loading import WIDE_IGNORE_LABEL


def original_labels(benchmark: str) -> dict[int, str]:
    """Return the original number and the name of each class, in the order of the labels 0, 1, 2, and so on.

    Args:
        benchmark: ``'ade847'``, whose numbers are ``R // 10 * 256 + G`` of ADE20K's ``*_seg.png``, or
            ``'context459'``, whose numbers are those of ``LabelMap`` in PASCAL Context's ``.mat`` files. Both count
            from 1; 0 means "no label".
    """
    text = resources.files('mmseg_alignzeg').joinpath('assets', 'names', f'{benchmark}.txt').read_text('utf-8')
    lines = (line.split('\t') for line in text.splitlines())
    return {int(number): name for number, name in lines}


class LargeVocabularyDataset(BaseSegDataset):
    """A dataset whose label maps are 16-bit files, in which 65535 means "no label" and 255 is a class.

    Its pipeline needs ``LoadWideAnnotations``, and the metric ``ignore_index=65535``.

    Args:
        img_suffix: The ending of image names.
        seg_map_suffix: The ending of label map names.
        ignore_index: The label that means "no label"; only 65535, which the files have.
        **kwargs: Arguments of ``BaseSegDataset``: ``data_root``, ``data_prefix``, ``ann_file``, ``metainfo``, …

    Raises:
        ValueError: If ``ignore_index`` is not 65535, or ``metainfo.classes`` repeats a name or contains one that the
            dataset does not have.
    """

    def __init__(
        self,
        img_suffix: str = '.jpg',
        seg_map_suffix: str = '.tif',
        ignore_index: int = WIDE_IGNORE_LABEL,
        **kwargs: Any,
    ) -> None:
        if ignore_index != WIDE_IGNORE_LABEL:
            raise ValueError(f'ignore_index={ignore_index}: these label maps have {WIDE_IGNORE_LABEL} for it.')
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, ignore_index=ignore_index, **kwargs)

    @classmethod
    def get_label_map(cls, new_classes: Sequence[str] | None = None) -> dict[int, int] | None:
        """Return the new label of each label in the files, 65535 if unused; None without a change (mmseg's hook)."""
        classes = cls.METAINFO['classes']
        names = Vocabulary(tuple(new_classes or classes)).classes
        foreign = [name for name in names if name not in classes]
        if foreign:
            raise ValueError(
                f'`metainfo.classes` names {foreign}, which are not among the {len(classes)} classes of '
                f'{cls.__name__} ({abridged(classes)}): use exact names, with all synonyms.'
            )
        new_label = {name: label for label, name in enumerate(names)}
        label_map = {label: new_label.get(name, WIDE_IGNORE_LABEL) for label, name in enumerate(classes)}
        return None if names == classes else label_map


class LabelledImagesDataset(LargeVocabularyDataset):
    """A :class:`LargeVocabularyDataset` that, without an ``ann_file``, uses only images that have a label map.

    Raises:
        ValueError: If there are images, but none has a label map.
    """

    def load_data_list(self) -> list[dict]:
        """List the images that have a label map, or those in ``ann_file`` (mmseg's hook)."""
        data_list = super().load_data_list()
        folder = self.data_prefix.get('seg_map_path')
        if self.ann_file or folder is None:
            return data_list
        names = fileio.list_dir_or_file(
            folder, list_dir=False, suffix=self.seg_map_suffix, recursive=True, backend_args=self.backend_args
        )
        labelled = {osp.join(folder, name) for name in names}
        kept = [info for info in data_list if info['seg_map_path'] in labelled]
        if data_list and not kept:
            raise ValueError(
                f'No image `*{self.img_suffix}` in {self.data_prefix.get("img_path")} has a label map '
                f'`*{self.seg_map_suffix}` in {folder}: check `data_root` and `data_prefix`.'
            )
        return kept


@DATASETS.register_module()
class ADE20KFullDataset(CheckedFiles, LargeVocabularyDataset):
    """A-847: the 847 classes of the full ADE20K that its training and validation images share.

    Names are WordNet's lists of synonyms, ``'road, route'``. The files are those that Mask2Former prepares, below
    ``ADE20K_2021_17_01``: ``images_detectron2/validation/*.jpg`` and ``annotations_detectron2/validation/*.tif``.
    :class:`CheckedFiles` checks them.
    """

    METAINFO: ClassVar[dict] = dict(classes=tuple(original_labels('ade847').values()), unseen_classes=[])


@DATASETS.register_module()
class PascalContext459Dataset(CheckedFiles, LabelledImagesDataset):
    """PC-459: all classes of PASCAL Context, including ``'unknown'``.

    The files are those that OVSeg and CAT-Seg prepare, below ``VOCdevkit/VOC2010``: ``JPEGImages/*.jpg`` and
    ``annotations_detectron2/pc459_val/*.tif``. ``JPEGImages`` contains the images of all splits, so without an
    ``ann_file`` the label maps determine the images of the dataset. :class:`CheckedFiles` checks them.
    """

    METAINFO: ClassVar[dict] = dict(classes=tuple(original_labels('context459').values()), unseen_classes=[])
