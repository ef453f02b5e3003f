"""A dataset of one's own: a folder of images, a folder of label maps, and names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.transforms import LoadAnnotations
from mmseg.registry import DATASETS

from ..vocabulary import Vocabulary
from .checked import CheckedFiles
from .loading import WIDE_IGNORE_LABEL

WIDE = f'`ignore_index={WIDE_IGNORE_LABEL}` in dataset, model and metric'
WAY_OUT = f'load 16-bit label maps with `LoadWideAnnotations`, and set {WIDE}'


@DATASETS.register_module()
class FoldersDataset(CheckedFiles):
    """Images and label maps of equal names in two folders, with the names of the labels given by config.

    ``BaseSegDataset`` knows no names of its own, so that ``metainfo.classes`` only renames its labels 0, 1, 2, …:
    with a subset, labels would silently get wrong names, and unseen ones would be trained. Here ``label_classes``
    says what the files hold, and ``metainfo.classes`` which of it to use; the rest becomes ``ignore_index``.

    More than 255 classes need 16-bit files, ``LoadWideAnnotations`` in the pipeline, and ``ignore_index=65535`` here,
    in the model and in the metric.

    Args:
        label_classes: Names of the label values 0, 1, 2, … in the files.
        ignored_labels: Further label values in the files that mean "no label", besides 255 (if it is no class) and
            ``ignore_index``.
        metainfo: ``classes``, a subset of ``label_classes`` (default: all), and ``unseen_classes`` (default: none).
        **kwargs: As ``BaseSegDataset``: ``data_root``, ``data_prefix``, ``img_suffix``, ``seg_map_suffix``, …; and
            ``check_files`` and ``prepare_command`` of :class:`CheckedFiles`, which looks at the files.

    Raises:
        FileNotFoundError, ValueError: As :class:`CheckedFiles`.
        ValueError: If names are empty, repeated or unknown, an ignored label has a name, or labels do not fit into the
            8 bits that mmseg's ``LoadAnnotations`` keeps.
    """

    guide = "README.md, 'A dataset of your own'"

    def __init__(
        self,
        label_classes: Sequence[str],
        ignored_labels: Sequence[int] = (),
        metainfo: dict | None = None,
        **kwargs: Any,
    ) -> None:
        self.label_classes = Vocabulary(tuple(label_classes)).classes
        self.ignored_labels = tuple(ignored_labels)
        named = [value for value in self.ignored_labels if 0 <= value < len(self.label_classes)]
        if named:
            raise ValueError(f'`ignored_labels` holds {named}, which `label_classes` names: leave them out of one.')
        metainfo = {'classes': list(self.label_classes), 'unseen_classes': [], **(metainfo or {})}
        used = Vocabulary.from_metainfo(metainfo)
        foreign = [name for name in used.classes if name not in self.label_classes]
        if foreign:
            raise ValueError(f'`metainfo.classes` names {foreign}, which are not among `label_classes`.')
        palette = metainfo.get('palette') or ()
        if len(palette) == len(self.label_classes) > len(used.classes):
            # mmseg would pick these colours too, but only where what is dropped becomes 255.
            metainfo['palette'] = [palette[self.label_classes.index(name)] for name in used.classes]
        super().__init__(metainfo=metainfo, **kwargs)
        self._check_width()

    def _check_width(self) -> None:
        """Refuse a "no label" that is the number of a class, and a loader that keeps too few bits."""
        count, none = len(self.label_classes), self.ignore_index
        if count > 255 and none < count:
            raise ValueError(f'{count} `label_classes` leave no label for `ignore_index={none}`: {WAY_OUT}.')
        narrow = [type(step).__name__ for step in self.pipeline.transforms if isinstance(step, LoadAnnotations)]
        if narrow and max(count - 1, none) > 255:
            given = f'{count} `label_classes` and `ignore_index={none}`'
            raise ValueError(f'`{narrow[0]}` keeps 8 bits, too few for {given}: {WAY_OUT}.')

    def get_label_map(self, new_classes: Sequence[str] | None = None) -> dict[int, int]:
        """New label of each value in the files, ``ignore_index`` for what is not used (mmseg's hook for subsets)."""
        names = list(new_classes or self.label_classes)
        none = self.ignore_index
        used = {i: names.index(name) if name in names else none for i, name in enumerate(self.label_classes)}
        further = {} if none == 255 else {255: none}  # which a class of that number overrides
        return {**further, **used, **dict.fromkeys(self.ignored_labels, none)}
