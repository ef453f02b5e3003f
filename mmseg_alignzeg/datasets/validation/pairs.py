"""Checks of image and label map pairs, each opened once, and sums over the label maps of a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..file_checks import Header, Problem, is_local, label_problems, read_image, size_problems, unreadable
from .rules import BY_VALUE, VOC_BORDER, LabelRules, label_table

SMOOTH = 0.1  # share of the borders
BORDERS = 200  # pixels at borders; fewer prove nothing
MANY_COLOURS = 256  # more than the colours of a label map
PLAIN_FORMATS = frozenset({'BMP', 'JPEG', 'MPO', 'PNG', 'TIFF', 'WEBP'})
PLAIN_MODES = frozenset({'1', 'CMYK', 'I;16', 'L', 'LA', 'P', 'RGB', 'RGBA'})


def count_values(values: np.ndarray) -> dict[int, int]:
    """Count the pixels of each value in an array of numbers of any shape."""
    if values.dtype.kind in 'bu' and values.dtype.itemsize <= 2:
        counts = np.bincount(values.reshape(-1))  # no sorting
        return {int(value): int(counts[value]) for value in counts.nonzero()[0]}
    found, counts = np.unique(values, return_counts=True)
    return {int(value): int(count) for value, count in zip(found, counts, strict=True)}


def palette_problems(path: str, label: Header, values: Iterable[int], rules: LabelRules) -> list[Problem]:
    """Find a palette that assigns the classes' colours to other numbers, as PIL's ``quantize`` does."""
    if not label.palette or not rules.palette or rules.reduce_zero_label:
        return []
    number_of = {VOC_BORDER: 255, **{colour: number for number, colour in reversed([*enumerate(rules.palette)])}}
    colour_of = {value: label.palette[3 * value : 3 * value + 3] for value in values if value != 255}
    moved = [value for value, colour in colour_of.items() if number_of.get(colour, value) != value]
    # A single unknown colour means that it is another palette, which proves nothing.
    if not moved or not set(colour_of.values()) <= set(number_of):
        return []
    what = f'value {moved[0]} has the palette colour of class number {number_of[colour_of[moved[0]]]}'
    return [
        Problem('palette', path, what, 'the palette was recreated; use the original files, or map the colours back')
    ]


def smooth_problems(path: str, values: np.ndarray) -> list[Problem]:
    """Find a label map that was resized smoothly: it has values that lie between those of both neighbours.

    In 472 label maps of CamVid and MSRC-v2, as they are and resized with NEAREST, at most 3 % of the pixels whose two
    neighbours differ have such a value; after a bilinear or bicubic resizing, most maps have 30 to 80 %.

    Args:
        path: The file, for the message.
        values: (H, W) numbers as stored.
    """
    between = borders = 0
    for rows in (values.astype(np.int32), values.T.astype(np.int32)):
        before, here, after = rows[:, :-2], rows[:, 1:-1], rows[:, 2:]
        borders += int((before != after).sum())
        between += int((((before < here) & (here < after)) | ((before > here) & (here > after))).sum())
    if borders < BORDERS or between < SMOOTH * borders:
        return []
    what = f'at {between / borders:.0%} of the borders, a value between those of both sides: resized smoothly'
    return [
        Problem('smooth', path, what, 'create the label map again from its original, resized with NEAREST if at all')
    ]


def count_colours(pixels: np.ndarray) -> Counter[tuple[int, ...]]:
    """Count the pixels of the most frequent RGB colours (or greys, with equal channels) of a picture.

    Args:
        pixels: (H, W, channels) integers; a fourth channel, or the second of two, is ignored.
    """
    channels = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., [0, 0, 0]]
    codes, counts = np.unique(channels.astype(np.int64) @ (1 << 32, 1 << 16, 1), return_counts=True)
    frequent = np.argsort(-counts, kind='stable')[:MANY_COLOURS]
    pairs = zip(codes[frequent].tolist(), counts[frequent].tolist(), strict=True)
    return Counter({(code >> 32, code >> 16 & 0xFFFF, code & 0xFFFF): count for code, count in pairs})


@dataclass
class PairReport:
    """The findings in an image and its label map.

    Args:
        file: The label map, or the image if there is no label map.
        problems: Problems of the two files.
        values: Pixels of each (value in the file, label after loading); the value is None where only the loader knows.
        colours: Pixels of each colour, if the label map has several channels.
    """

    file: str
    problems: list[Problem] = field(default_factory=list)
    values: dict[tuple[int | None, int], int] = field(default_factory=dict)
    colours: Counter[tuple[int, ...]] = field(default_factory=Counter)


class PairChecker:
    """Checks the pairs of one dataset, and caches the loader's tables between calls.

    Args:
        loader: The loader of labels in the dataset's pipeline; with None, labels are not checked.
        rules: The dataset's rules.
        image_loader: The loader of images in the pipeline, which is tried on files in unusual formats or modes.
    """

    def __init__(self, loader: Callable | None, rules: LabelRules, image_loader: Callable | None = None) -> None:
        self.loader, self.rules, self.image_loader = loader, rules, image_loader
        self._tables: dict[Header, np.ndarray] = {}

    def __call__(self, info: Mapping[str, Any]) -> PairReport:
        """Decode the image and the labels of one entry of the dataset's list."""
        path = info.get('seg_map_path')
        report = PairReport(path or info['img_path'])
        image = _decoded(info['img_path'], report)
        if image and self.image_loader and (image[0].format not in PLAIN_FORMATS or image[0].mode not in PLAIN_MODES):
            report.problems += _image_problems(self.image_loader, info, image[0])
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
                if label[1].ndim == 3:
                    report.colours = count_colours(label[1])
                return report
            if label[1].dtype.kind == 'f' and not (np.isfinite(label[1]) & (label[1] == np.trunc(label[1]))).all():
                what = 'contains fractional or infinite numbers, where a label map has class numbers'
                report.problems.append(Problem('values', path, what, 'save label maps as PNG with whole numbers'))
                return report
            stored = label[0], count_values(label[1])
            report.problems += palette_problems(path, *stored, self.rules) + smooth_problems(path, label[1])
        try:
            report.values = self._values(self.loader, info, stored)
        except Exception as error:  # a loader may raise anything
            reason = f'{type(self.loader).__name__} {error}'.splitlines()[0]
            report.problems.append(Problem('loader', path, reason, 'check the file and the pipeline'))
        return report

    def _values(
        self, loader: Callable, info: Mapping[str, Any], stored: tuple[Header, dict[int, int]] | None
    ) -> dict[tuple[int | None, int], int]:
        """Count the pixels of each (value, label), with the loader's table if possible, else with the loader itself."""
        if stored is None or not isinstance(loader, BY_VALUE) or stored[0].mode == 'F':
            labels = loader({**info, 'seg_fields': []})['gt_seg_map']
            return {(None, number): pixels for number, pixels in count_values(np.asarray(labels)).items()}
        header, values = stored
        kind = Header((0, 0), header.mode, header.format, palette=header.palette)
        if kind not in self._tables:
            self._tables[kind] = label_table(loader, info, kind)
        table = self._tables[kind]
        return {(v, int(table[v]) if 0 <= v < len(table) else -1): pixels for v, pixels in values.items()}


def _image_problems(loader: Callable, info: Mapping[str, Any], header: Header) -> list[Problem]:
    """Find an image on which the pipeline's own loader fails; otherwise it would fail during training."""
    try:
        if loader(dict(info)) is not None:
            return []
        reason = 'it returns None'
    except Exception as error:  # a loader may raise anything
        reason = f'{type(error).__name__} {error}'.splitlines()[0]
    what = f'a {header.format} of mode {header.mode}, which {type(loader).__name__} cannot read ({reason})'
    return [Problem('unreadable', info['img_path'], what, 'save the image with 8 bits per channel, as JPEG or PNG')]


def _decoded(path: str, report: PairReport) -> tuple[Header, np.ndarray] | None:
    """Return header and pixels of a local file; None, and a problem in the report, if it cannot be read."""
    if not is_local(path):
        return None
    try:
        header, pixels = read_image(path, decode=True)
    except ValueError as error:
        report.problems.append(unreadable(path, error))
        return None
    assert pixels is not None
    return header, pixels


@dataclass
class Use:
    """The pixels of a value, and the first file that contains it."""

    first: str
    pixels: int = 0


@dataclass
class Tally:
    """Sums over the label maps of one dataset.

    Args:
        rules: The dataset's rules.
        values: Use of each (value in the files, label after loading).
        images: Label maps that could be read.
        unlabelled: Label maps without any label left.
        colours: Pixels of each colour in label maps with several channels.
        coloured: Label maps with several channels.
    """

    rules: LabelRules
    values: dict[tuple[int | None, int], Use] = field(default_factory=dict)
    images: int = 0
    unlabelled: list[str] = field(default_factory=list)
    colours: Counter[tuple[int, ...]] = field(default_factory=Counter)
    coloured: list[str] = field(default_factory=list)

    def add(self, report: PairReport) -> None:
        """Add one label map; a label map that could not be read is not counted."""
        if report.colours:
            self.colours += report.colours
            self.coloured.append(report.file)
        if not report.values:
            return
        self.images += 1
        for key, pixels in report.values.items():
            self.values.setdefault(key, Use(report.file)).pixels += pixels
        if all(label in self.rules.ignored for _, label in report.values):
            self.unlabelled.append(report.file)

    @property
    def class_uses(self) -> dict[str, Use]:
        """The use of each class that occurs."""
        uses: dict[str, Use] = {}
        for (_, label), use in self.values.items():
            if label not in self.rules.ignored and 0 <= label < len(self.rules.classes):
                uses.setdefault(self.rules.classes[label], Use(use.first)).pixels += use.pixels
        return uses

    @property
    def ignored_pixels(self) -> int:
        """The number of pixels without a label."""
        return sum(use.pixels for (_, label), use in self.values.items() if label in self.rules.ignored)
