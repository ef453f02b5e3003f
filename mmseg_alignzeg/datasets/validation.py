"""What the label maps of a dataset hold, what its pipeline makes of them, and what the numbers say is wrong.

A pair of files is opened once, by :class:`PairChecker`; a :class:`Tally` adds the pairs up; the functions below it read
the sums. Every finding is a :class:`~mmseg_alignzeg.datasets.checked.Problem`, which is one line.
"""

from __future__ import annotations

import os.path as osp
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mmcv.transforms import LoadAnnotations
from PIL import Image

from ..vocabulary import Vocabulary, abridged
from .checked import Header, Problem, is_local, label_problems, read_image, size_problems, unreadable
from .loading import LoadWideAnnotations

BY_VALUE = (LoadAnnotations, LoadWideAnnotations)  # loaders that treat each value of a file by itself
VOC_BORDER = (224, 224, 192)  # colour of the value 255 in the palette of PASCAL VOC
COCO_STUFF_IDS = frozenset(range(171, 182))  # values of COCO-Stuff's own files that no TrainId reaches


@dataclass(frozen=True)
class LabelRules:
    """What the label files of a dataset may hold, and what becomes of it.

    Args:
        classes: Names of the labels 0 … C-1 after loading.
        num_values: How many class numbers the files have (K); more than C where a subset is used.
        label_map: Label of each class number, as mmseg applies it after ``reduce_zero_label``; None keeps them.
        reduce_zero_label: Whether 0 means "no label" in the files and classes count from 1.
        ignored: Labels that mean "no label" after loading.
        palette: RGB colours of the K class numbers, if the dataset has some of its own.
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
        """Rules of a dataset of mmseg.

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
            # 255 is a class where there are more than 255 of them.
            ignored=frozenset({dataset.ignore_index, 255} if len(classes) <= 255 else {dataset.ignore_index}),
            palette=palette if len(palette) == len(names) else (),
            train_ids=dataset.seg_map_suffix == '_labelTrainIds.png',
        )

    def label_of(self, value: int) -> int | None:
        """The label of a value in the files by mmseg's rules; None if nothing names the value."""
        if self.reduce_zero_label:
            if value == 0:
                return 255
            value -= 1
        if self.label_map is not None:
            return self.label_map.get(value)
        return value if 0 <= value < self.num_values else None

    def fits(self, value: int | None, label: int) -> bool:
        """Whether a label means "no label", or is a class and the value in the file (None: unknown) is named."""
        known = value is None or self.label_of(value) is not None
        return label in self.ignored or (known and 0 <= label < len(self.classes))


# ---------------------------------------------------------------- one pair of files


def annotation_loader(dataset: Any) -> Callable | None:
    """The transform of a dataset's pipeline that loads the labels, if there is one."""
    transforms = getattr(dataset.pipeline, 'transforms', [])
    named = [t for t in transforms if type(t).__name__.startswith('Load') and 'Image' not in type(t).__name__]
    return next((t for t in transforms if isinstance(t, BY_VALUE)), named[0] if named else None)


def label_table(loader: Callable, info: Mapping[str, Any], header: Header) -> np.ndarray:
    """The label that a loader makes of each value: it loads one small file that holds all of them.

    mmseg's loader goes over a label map once per class, which takes longer than all the rest.

    Args:
        loader: A transform that reads ``seg_map_path`` and treats each value by itself.
        info: An entry of the dataset's list, for its ``label_map`` and ``reduce_zero_label``.
        header: The kind of file: mode, format and palette.

    Returns:
        int64 (number of values,).

    Raises:
        ValueError: If the loader does not make one label of one pixel.
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
            f'makes {labels.size:,} labels of {count:,} pixels of mode {header.mode} (`imdecode_backend` must be '
            "'pillow': cv2 reads a palette as colours)"
        )
    return labels.reshape(-1).astype(np.int64)


def count_values(values: np.ndarray) -> dict[int, int]:
    """Pixels of each value of an array of numbers, of any shape."""
    if values.dtype.kind in 'bu' and values.dtype.itemsize <= 2:
        counts = np.bincount(values.reshape(-1))  # no sorting
        return {int(value): int(counts[value]) for value in counts.nonzero()[0]}
    found, counts = np.unique(values, return_counts=True)
    return {int(value): int(count) for value, count in zip(found, counts, strict=True)}


@dataclass
class PairReport:
    """An image with its labels.

    Args:
        file: The label map, or the image where there is none.
        problems: What is wrong with the two files.
        values: Pixels of each (value in the file, label after loading); the value is None where only the loader knows.
    """

    file: str
    problems: list[Problem] = field(default_factory=list)
    values: dict[tuple[int | None, int], int] = field(default_factory=dict)


class PairChecker:
    """Open images with their label maps, of one dataset; a loader's tables are kept between calls.

    Args:
        loader: The loader of labels in the dataset's pipeline; with None, labels are left alone.
        rules: The dataset's rules.
    """

    def __init__(self, loader: Callable | None, rules: LabelRules) -> None:
        self.loader, self.rules = loader, rules
        self._tables: dict[Header, np.ndarray] = {}

    def __call__(self, info: Mapping[str, Any]) -> PairReport:
        """Decode the image and the labels of one entry of the dataset's list."""
        path = info.get('seg_map_path')
        report = PairReport(path or info['img_path'])
        image = _decoded(info['img_path'], report)
        if path is None or self.loader is None:
            return report
        label = _decoded(path, report)
        stored = None
        if is_local(path):
            if label is None:
                return report
            wrong = label_problems(path, label[0])
            report.problems += wrong or (size_problems(path, image[0], label[0]) if image else [])
            if wrong:
                return report
            stored = label[0], count_values(label[1])
            report.problems += palette_problems(path, *stored, self.rules)
        try:
            report.values = self._values(self.loader, info, stored)
        except Exception as error:  # a loader may raise anything
            reason = f'{type(self.loader).__name__} {error}'.splitlines()[0]
            report.problems.append(Problem('loader', path, reason, 'check the file and the pipeline'))
        return report

    def _values(
        self, loader: Callable, info: Mapping[str, Any], stored: tuple[Header, dict[int, int]] | None
    ) -> dict[tuple[int | None, int], int]:
        """Pixels of each (value, label): through the loader's table where it allows one, else by the loader itself."""
        if stored is None or not isinstance(loader, BY_VALUE) or stored[0].mode == 'F':
            labels = loader({**info, 'seg_fields': []})['gt_seg_map']
            return {(None, number): pixels for number, pixels in count_values(np.asarray(labels)).items()}
        header, values = stored
        kind = Header((0, 0), header.mode, header.format, palette=header.palette)
        if kind not in self._tables:
            self._tables[kind] = label_table(loader, info, kind)
        table = self._tables[kind]
        return {(v, int(table[v]) if 0 <= v < len(table) else -1): pixels for v, pixels in values.items()}


def _decoded(path: str, report: PairReport) -> tuple[Header, np.ndarray] | None:
    """Head and pixels of a local file; None, and a problem in the report, if it cannot be read."""
    if not is_local(path):
        return None
    try:
        header, pixels = read_image(path, decode=True)
    except ValueError as error:
        report.problems.append(unreadable(path, error))
        return None
    assert pixels is not None
    return header, pixels


def palette_problems(path: str, label: Header, values: Iterable[int], rules: LabelRules) -> list[Problem]:
    """Whether a palette file gives the classes' own colours to other numbers, as PIL's ``quantize`` does."""
    if not label.palette or not rules.palette or rules.reduce_zero_label:
        return []
    number_of = {VOC_BORDER: 255, **{colour: number for number, colour in reversed([*enumerate(rules.palette)])}}
    colour_of = {value: label.palette[3 * value : 3 * value + 3] for value in values if value != 255}
    moved = [value for value, colour in colour_of.items() if number_of.get(colour, value) != value]
    # With one foreign colour it is another palette, which says nothing.
    if not moved or not set(colour_of.values()) <= set(number_of):
        return []
    what = f'value {moved[0]} has the palette colour of class number {number_of[colour_of[moved[0]]]}'
    return [Problem('palette', path, what, 'the palette was made anew; use the original files, or map colours back')]


# ---------------------------------------------------------------- all pairs of a dataset


@dataclass
class Use:
    """The pixels of a value, and the first file that holds it."""

    first: str
    pixels: int = 0


@dataclass
class Tally:
    """Sums over the label maps of one dataset.

    Args:
        rules: The dataset's rules.
        values: Use of each (value in the files, label after loading).
        images: Label maps that could be read.
        unlabelled: Those without any label left.
    """

    rules: LabelRules
    values: dict[tuple[int | None, int], Use] = field(default_factory=dict)
    images: int = 0
    unlabelled: list[str] = field(default_factory=list)

    def add(self, report: PairReport) -> None:
        """Count one label map; one that could not be read counts nowhere."""
        if not report.values:
            return
        self.images += 1
        for key, pixels in report.values.items():
            self.values.setdefault(key, Use(report.file)).pixels += pixels
        if all(label in self.rules.ignored for _, label in report.values):
            self.unlabelled.append(report.file)

    @property
    def class_uses(self) -> dict[str, Use]:
        """Use of each class that occurs."""
        uses: dict[str, Use] = {}
        for (_, label), use in self.values.items():
            if label not in self.rules.ignored and 0 <= label < len(self.rules.classes):
                uses.setdefault(self.rules.classes[label], Use(use.first)).pixels += use.pixels
        return uses

    @property
    def ignored_pixels(self) -> int:
        """Pixels without label."""
        return sum(use.pixels for (_, label), use in self.values.items() if label in self.rules.ignored)


def spans(values: Iterable[int]) -> str:
    """Numbers for a message: ``1…3, 7``."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return abridged([str(a) if a == b else f'{a}…{b}' for a, b in runs])


def value_problems(tally: Tally) -> list[Problem]:
    """What the values tell: unnamed ones, a shift by one, colours as grey, unconverted files, nothing but 255."""
    problems = []
    for (value, label), use in tally.values.items():
        if value is not None and value > 255 and tally.rules.label_of(value) not in (None, label):
            todo = "mmseg's loader keeps 8 bits; put `LoadWideAnnotations` into the pipeline"
            problems.append(Problem('values', use.first, f'value {value} becomes label {label}', todo))
            break
    misfits = {key: use for key, use in tally.values.items() if not tally.rules.fits(*key)}
    if misfits:
        share = 100 * sum(u.pixels for u in misfits.values()) / sum(u.pixels for u in tally.values.values())
        foreign = {label if value is None else value for value, label in misfits}
        what, todo = _explain(foreign, _raw_values(tally), tally.rules, f'{share:.2g}% of the pixels')
        problems.append(Problem('values', next(iter(misfits.values())).first, what, todo))
    if tally.images and len(tally.unlabelled) == tally.images:
        todo = 'check `metainfo.classes`, `reduce_zero_label` and the values in the files'
        what = 'neither this nor any other file has a label left after loading'
        problems.append(Problem('empty', tally.unlabelled[0], what, todo))
    return problems


def _raw_values(tally: Tally) -> set[int]:
    return {value for value, _ in tally.values if value is not None}


def _explain(foreign: set[int], raw: set[int], rules: LabelRules, share: str) -> tuple[str, str]:
    """Where values that no class names may come from, and what to do."""
    count, first = rules.num_values, int(rules.reduce_zero_label)
    if rules.train_ids and foreign <= COCO_STUFF_IDS:
        what = f'holds {spans(foreign)} ({share}): class ids of COCO-Stuff, not converted to TrainIds'
        return what, 'run `python tools/convert_dataset.py coco_stuff ROOT`'
    if foreign == {count} and first == 0:
        if 0 not in raw:
            what = f'values are {spans(raw - rules.ignored)} where 0…{count - 1} are expected, off by one'
            return what, 'set `reduce_zero_label=True` in the dataset, or write each value less 1'
        what = f'holds {count} ({share}), one more than the last of 0…{count - 1}'
        return what, 'if 0 means "no label", set `reduce_zero_label=True`; if it is this value, write 255 in its place'
    if rules.palette and raw <= _greys(rules.palette):
        what = f'holds {spans(foreign)} ({share}), the grey shades of the class colours'
        return what, "palette files were made grey (`convert('L')`); use the palette files as they are"
    if foreign == {65535}:
        return f'holds 65535 ({share})', 'if it means "no label", set `ignore_index=65535` in dataset, model and metric'
    what = f'holds {spans(foreign)} ({share}) where {first}…{count - 1 + first} and 255 for "no label" are expected'
    return what, 'for "no label" write 255, or set `ignored_labels` of FoldersDataset; name what is a class'


def _greys(palette: Sequence[tuple[int, ...]]) -> set[int]:
    """Grey values that PIL makes of colours and of VOC's border, with 255."""
    colours = np.array([*palette, VOC_BORDER], dtype=np.uint8)[None]
    return {255, *np.asarray(Image.fromarray(colours).convert('L'))[0].tolist()}


def shift_notes(tally: Tally) -> list[Problem]:
    """A hint that ``reduce_zero_label`` may be one too many: all of 0 … K-1 occur, and K does not."""
    raw, count = _raw_values(tally), tally.rules.num_values
    if not tally.rules.reduce_zero_label or not set(range(count)) <= raw or count in raw:
        return []
    what = f'with `reduce_zero_label`, 1…{count} are classes; all of 0…{count - 1} occur and {count} does not'
    first = next(iter(tally.values.values())).first
    return [Problem('shift', first, what, 'if 0 is a class in the files, set `reduce_zero_label=False`')]


def training_problems(tally: Tally, seen_classes: Sequence[str]) -> list[Problem]:
    """Training labels of classes that the model must not see, and names that differ from the model's.

    Args:
        tally: Sums over the training labels.
        seen_classes: The model's classes less its unseen ones, in order.
    """
    todo = 'set `metainfo.classes` of the training data to the seen classes, in the order of the model'
    problems = [
        Problem('unseen', use.first, f'{use.pixels:,} pixels of {name!r}, no seen class, reach training', todo)
        for name, use in tally.class_uses.items()
        if name not in seen_classes
    ]
    names = tally.rules.classes
    pairs = enumerate(zip(names, seen_classes, strict=False))
    what = next((f'label {i} is {a!r}, and {b!r} in the model' for i, (a, b) in pairs if a != b), '')
    if not what and len(names) != len(seen_classes):
        what = f'{len(names)} class names, and {len(seen_classes)} seen ones in the model'
    return problems + ([Problem('names', 'training data', what, todo)] if what else [])
