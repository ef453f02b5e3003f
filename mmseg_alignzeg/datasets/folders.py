"""A custom dataset: a folder of images, a folder of label maps, and class names."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from mmcv.transforms import LoadAnnotations
from mmseg.registry import DATASETS

from ..vocabulary import Vocabulary, abridged
from .checked_datasets import CheckedFiles
from .loading import WIDE_IGNORE_LABEL

WIDE = (
    f'`ignore_index={WIDE_IGNORE_LABEL}` in dataset, `model.criterion` and metric, and as '
    '`model.data_preprocessor.seg_pad_val`'
)
WAY_OUT = f'load 16-bit label maps with `LoadWideAnnotations`, and set {WIDE}'


def refuse_unknown(names: Sequence[str], setting: str, known: Sequence[str], known_setting: str) -> None:
    """Refuse names that are not among the known ones, and suggest similar known names.

    Args:
        names: The names in a config.
        setting: The setting with these names, for the message.
        known: The allowed names.
        known_setting: The setting with the allowed names.

    Raises:
        ValueError: If a name is not known.
    """
    foreign = [name for name in names if name not in known]
    if not foreign:
        return
    exact = {name.casefold(): name for name in known}
    found = {name: get_close_matches(str(name).casefold(), exact, n=1) for name in foreign}
    meant = ', '.join(f'{exact[near[0]]!r} for {name!r}' for name, near in found.items() if near)
    todo = f'did you mean {meant}?' if meant else f'use exact names from {abridged(known, 20)}.'
    raise ValueError(f'{setting} names {foreign}, which are not among {known_setting}: {todo}')


@DATASETS.register_module()
class FoldersDataset(CheckedFiles):
    """Images and label maps with equal names in two folders; the config names the classes.

    ``BaseSegDataset`` has no class names of its own, so ``metainfo.classes`` only renames its labels 0, 1, 2, …: with a
    subset, labels would silently get wrong names, and unseen classes would be trained on. Here ``label_classes`` names
    the values in the files, and ``metainfo.classes`` selects those to use; the others become ``ignore_index``.

    More than 255 classes need 16-bit files, ``LoadWideAnnotations`` in the pipeline, and ``ignore_index=65535`` here,
    in the model's ``criterion``, as ``seg_pad_val`` of its data preprocessor, and in the metric.

    Args:
        label_classes: Names of the label values 0, 1, 2, … in the files.
        ignored_labels: Further label values in the files that mean "no label", besides 255 (unless it is a class) and
            ``ignore_index``. They are raw file values, also with ``reduce_zero_label``.
        metainfo: ``classes``, a subset of ``label_classes`` (default: all), and ``unseen_classes`` (default: none).
        **kwargs: Arguments of ``BaseSegDataset``: ``data_root``, ``data_prefix``, ``img_suffix``, ``seg_map_suffix``,
            …; and ``check_files`` and ``prepare_command`` of :class:`CheckedFiles`, which checks the files.

    Raises:
        FileNotFoundError: See :class:`CheckedFiles`.
        ValueError: See :class:`CheckedFiles`. Also if names are empty, repeated or unknown, an ignored label has a
            name, or labels do not fit into the 8 bits that mmseg's ``LoadAnnotations`` keeps.
    """

    guide = 'docs/custom_dataset.md'

    def __init__(
        self,
        label_classes: Sequence[str],
        ignored_labels: Sequence[int] = (),
        metainfo: dict | None = None,
        **kwargs: Any,
    ) -> None:
        self.label_classes = Vocabulary(tuple(label_classes)).classes
        self.ignored_labels = tuple(ignored_labels)
        # With `reduce_zero_label`, mmseg subtracts 1 from each value before the lookup.
        first = int(kwargs.get('reduce_zero_label') or False)
        named = [value for value in self.ignored_labels if 0 <= value - first < len(self.label_classes)]
        if named:
            raise ValueError(
                f'`ignored_labels` holds {named}, which `label_classes` names: remove them from one of the two.'
            )
        metainfo = {'classes': list(self.label_classes), 'unseen_classes': [], **(metainfo or {})}
        unseen = metainfo.get('unseen_classes') or ()
        if not metainfo['classes']:
            raise ValueError(
                'No class is left to train on, because `metainfo.classes` is empty: leave at least one of the '
                f'{len(self.label_classes)} `classes` out of `unseen_classes`.'
            )
        refuse_unknown(metainfo['classes'], '`metainfo.classes`', self.label_classes, '`label_classes`')
        refuse_unknown(unseen, '`unseen_classes`', metainfo['classes'], '`classes`')
        used = Vocabulary.from_metainfo(metainfo)
        palette = metainfo.get('palette') or ()
        if len(palette) == len(self.label_classes) > len(used.classes):
            # mmseg would select these colours too, but only if unused labels become 255.
            metainfo['palette'] = [palette[self.label_classes.index(name)] for name in used.classes]
        super().__init__(metainfo=metainfo, **kwargs)
        self._check_width()

    def _check_width(self) -> None:
        """Refuse an ``ignore_index`` that is the number of a class, and a loader that keeps too few bits."""
        count, used, none = len(self.label_classes), len(self.metainfo['classes']), self.ignore_index
        if 0 <= none < (count if count > 255 else used):
            todo = WAY_OUT if count > 255 else 'use 255'
            raise ValueError(f'`ignore_index={none}` is also the label of a class: {todo}.')
        narrow = [type(step).__name__ for step in self.pipeline.transforms if isinstance(step, LoadAnnotations)]
        if narrow and max(count - 1, none) > 255:
            given = f'{count} `label_classes` and `ignore_index={none}`'
            raise ValueError(f'`{narrow[0]}` keeps 8 bits, too few for {given}: {WAY_OUT}.')

    def get_label_map(self, new_classes: Sequence[str] | None = None) -> dict[int, int]:
        """Return the new label of each value in the files, ``ignore_index`` if unused (mmseg's hook for subsets)."""
        names = list(new_classes or self.label_classes)
        none = self.ignore_index
        used = {i: names.index(name) if name in names else none for i, name in enumerate(self.label_classes)}
        further = {} if none == 255 else {255: none}  # a class with the number 255 overrides this
        ignored = [value - int(self.reduce_zero_label) for value in self.ignored_labels]
        return {**further, **used, **dict.fromkeys(ignored, none)}
