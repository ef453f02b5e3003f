"""A dataset of one's own: a folder of images, a folder of label maps, and names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmseg.registry import DATASETS

from ..vocabulary import Vocabulary
from .checked import CheckedFiles


@DATASETS.register_module()
class FoldersDataset(CheckedFiles):
    """Images and label maps of equal names in two folders, with the names of the labels given by config.

    ``BaseSegDataset`` knows no names of its own, so that ``metainfo.classes`` only renames its labels 0, 1, 2, …:
    with a subset, labels would silently get wrong names, and unseen ones would be trained. Here ``label_classes``
    says what the files hold, and ``metainfo.classes`` which of it to use; the rest becomes 255.

    Args:
        label_classes: Names of the label values 0, 1, 2, … in the files.
        ignored_labels: Further label values in the files that mean "no label", besides 255.
        metainfo: ``classes``, a subset of ``label_classes`` (default: all), and ``unseen_classes`` (default: none).
        **kwargs: As ``BaseSegDataset``: ``data_root``, ``data_prefix``, ``img_suffix``, ``seg_map_suffix``, …; and
            ``check_files`` and ``prepare_command`` of :class:`CheckedFiles`, which looks at the files.

    Raises:
        FileNotFoundError, ValueError: As :class:`CheckedFiles`.
        ValueError: If names are empty, repeated or unknown, or an ignored label has a name.
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
        super().__init__(metainfo=metainfo, **kwargs)

    def get_label_map(self, new_classes: Sequence[str] | None = None) -> dict[int, int]:
        """New label of each value in the files; 255 for what is not used (mmseg's hook for class subsets)."""
        names = list(new_classes or self.label_classes)
        used = {i: names.index(name) if name in names else 255 for i, name in enumerate(self.label_classes)}
        return {**used, **dict.fromkeys(self.ignored_labels, 255)}
