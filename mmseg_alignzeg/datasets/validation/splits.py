"""The check of a split: its number of images, its list, its files and their labels."""

from __future__ import annotations

import os
import os.path as osp
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from mmengine import list_from_file

from ...workers import start_worker
from ..file_checks import (
    IMAGE_ENDINGS,
    SUFFIX_SETTING,
    Problem,
    evenly_spaced,
    is_local,
    list_fault,
    missing_files,
    missing_hint,
    names_in,
)
from .findings import colour_notes, name_notes, shift_notes, training_problems, value_problems
from .pairs import PairChecker, PairReport, Tally
from .rules import LabelRules, annotation_loader, image_loader

CHUNK = 16  # pairs that a process checks at a time
Counts = int | Sequence[int] | None  # expected number of images of a split: one number, several, or unknown
Progress = Callable[[Iterable, int], Iterable]  # shows the progress of an iterable of known length


def accepted_counts(expected: Counts) -> tuple[int, ...]:
    """Return the numbers of images that a split may have; an empty tuple if unknown.

    Raises:
        ValueError: If ``expected`` is neither a number nor a list of numbers.
    """
    if expected is None:
        return ()
    counts = tuple(expected) if isinstance(expected, (list, tuple)) else (expected,)
    if not counts or not all(isinstance(count, int) for count in counts):
        raise ValueError(f'`expected_images` contains {expected!r}: expected a number, or a list of numbers.')
    return counts


def either(counts: Sequence[int]) -> str:
    """Format numbers for a message: ``4,996 or 4,998``."""
    return ' or '.join(f'{count:,}' for count in counts)


@dataclass
class SplitReport:
    """The findings in one split.

    Args:
        images: Number of images in the lists or folders.
        expected: Number of images that the config states, if it does, or several such numbers.
        checked: Number of images that were opened.
        problems: Definite problems.
        notes: Possible problems.
        classes: Names of the labels.
        pixels: Number of pixels of each class.
        ignored: Number of pixels without a label.
        unlabelled: Number of images without any label left.
        paths: Paths of all images.
    """

    images: int
    expected: Counts = None
    checked: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    pixels: Counter[str] = field(default_factory=Counter)
    ignored: int = 0
    unlabelled: int = 0
    paths: list[str] = field(default_factory=list)

    @property
    def shares(self) -> dict[str, float]:
        """The percentage of the labelled pixels per class; empty if no pixel has a label."""
        total = self.pixels.total()
        return {name: 100 * self.pixels[name] / total for name in self.classes} if total else {}

    @property
    def absent(self) -> list[str]:
        """The classes without a pixel."""
        return [name for name in self.classes if not self.pixels[name]]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the paths, for JSON."""
        fields = {key: value for key, value in asdict(self).items() if key not in ('paths', 'pixels', 'classes')}
        return {**fields, 'pixel_share': self.shares, 'absent': self.absent}


def leaf_datasets(dataset: Any) -> list[Any]:
    """Return the datasets inside wrappers (``ConcatDataset``, ``RepeatDataset``, …), each once."""
    if hasattr(dataset, 'datasets'):
        return [leaf for part in dataset.datasets for leaf in leaf_datasets(part)]
    return leaf_datasets(dataset.dataset) if hasattr(dataset, 'dataset') else [dataset]


_checker: PairChecker | None = None  # of a worker process


def _start(checker: PairChecker) -> None:
    global _checker
    start_worker()
    _checker = checker


def _check_chunk(infos: Sequence[Mapping[str, Any]]) -> list[PairReport]:
    assert _checker is not None
    return [_checker(info) for info in infos]


def check_pairs(checker: PairChecker, infos: Sequence[Mapping[str, Any]], workers: int) -> Iterator[PairReport]:
    """Yield reports in the order of ``infos``; several processes check long lists."""
    chunks = [infos[i : i + CHUNK] for i in range(0, len(infos), CHUNK)]
    if workers <= 1 or len(chunks) <= 1:
        yield from map(checker, infos)
        return
    workers = min(workers, len(chunks))
    pool = ProcessPoolExecutor(workers, initializer=_start, initargs=(checker,))
    try:
        for reports in pool.map(_check_chunk, chunks):
            yield from reports
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, drops the chunks that have not started


def check_split(
    dataset: Any,
    expected: Counts = None,
    seen_classes: Sequence[str] | None = None,
    limit: int | None = None,
    workers: int = 1,
    progress: Progress = lambda items, total: items,
) -> SplitReport:
    """Check the images and label maps of a split.

    Args:
        dataset: A built dataset, or a wrapper of datasets.
        expected: Expected number of images, or a list of such numbers.
        seen_classes: For training data, the classes that may have labels, in the order of the model.
        limit: Maximum number of images to open, evenly spaced; lists and folders are always compared in full.
        workers: Number of processes.
        progress: Shows the progress of an iterable of known length.

    Raises:
        ValueError: If a dataset has no class names, or ``expected`` is neither a number nor numbers.
    """
    counts = accepted_counts(expected)
    leaves = leaf_datasets(dataset)
    lists = [[leaf.get_data_info(i) for i in range(len(leaf))] for leaf in leaves]
    paths = [info['img_path'] for infos in lists for info in infos]
    report = SplitReport(len(paths), expected, paths=paths)
    if counts and len(paths) not in counts:
        where = ', '.join(str(leaf.ann_file or leaf.data_prefix.get('img_path')) for leaf in leaves)
        what = f'{len(paths):,} images where the config expects {either(counts)}'
        report.problems.append(
            Problem(
                'count',
                where,
                what,
                'add the missing images, or correct `expected_images` in the config (None: no check)',
            )
        )
    repeated = [path for path, count in Counter(paths).items() if count > 1]
    if repeated:
        what = f'{len(repeated):,} image(s), first this one, occur more than once in the split'
        report.notes.append(Problem('repeated', repeated[0], what, 'fine if intended'))
    chosen, begin = set(evenly_spaced(len(paths), limit)), 0
    for leaf, infos in zip(leaves, lists, strict=True):
        lost = check_existence(leaf, infos, report)
        opened = [info for i, info in enumerate(infos, begin) if i in chosen]
        opened = [info for info in opened if lost.isdisjoint((info['img_path'], info.get('seg_map_path')))]
        check_contents(leaf, opened, report, seen_classes, workers, progress)
        begin += len(infos)
    return report


def check_existence(leaf: Any, infos: Sequence[Mapping[str, Any]], report: SplitReport) -> set[str]:
    """Add list faults and missing files of one dataset to the report, and return the missing paths."""
    if leaf.ann_file and osp.isfile(leaf.ann_file):
        fault = list_fault(list_from_file(leaf.ann_file))
        report.problems += [Problem('list', leaf.ann_file, *fault)] if fault else []
    has_labels = annotation_loader(leaf) is not None
    report.notes += unlisted_notes(leaf, infos)
    lost: set[str] = set()
    for key, suffix in (('img_path', leaf.img_suffix), ('seg_map_path', leaf.seg_map_suffix))[: 1 + has_labels]:
        missing = missing_files([info[key] for info in infos if is_local(info.get(key, '://'))])
        command = getattr(leaf, 'prepare_command', None)
        listings = {folder: sorted(names_in(folder)) for folder in {osp.dirname(path) for path in missing}}
        for path in missing:
            hint = missing_hint(path, suffix, SUFFIX_SETTING[key], listings[osp.dirname(path)])
            todo = (hint or 'complete the dataset') + (f' (`{command}`)' if command else '')
            report.problems.append(Problem('missing', path, 'this file is missing', todo))
        lost.update(missing)
    if has_labels and not leaf.ann_file:
        wanted = defaultdict(set)
        for folder, name in (osp.split(info.get('seg_map_path', '')) for info in infos):
            wanted[folder].add(name)
        for folder, names in wanted.items():
            present = {n for n in os.listdir(folder) if n.endswith(leaf.seg_map_suffix)} if osp.isdir(folder) else set()
            if present - names:
                what = f'{len(present - names):,} label maps have no image, first: {min(present - names)}'
                report.notes.append(Problem('orphans', folder, what, 'fine if the images were left out on purpose'))
    return lost


def unlisted_notes(leaf: Any, infos: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """Note images with other endings in a folder without a list, which are silently skipped."""
    if leaf.ann_file:
        return []
    notes = []
    for folder in sorted({osp.dirname(info['img_path']) for info in infos}):  # none of a remote folder
        known = tuple(filter(None, (leaf.img_suffix, leaf.seg_map_suffix)))
        other = [n for n in names_in(folder) if n.lower().endswith(IMAGE_ENDINGS) and not n.endswith(known)]
        if other:
            what = f'{len(other):,} image(s) do not end with {leaf.img_suffix!r} and are not used, first: {min(other)}'
            notes.append(Problem('unlisted', folder, what, 'fine if intended; otherwise use one suffix for all images'))
    return notes


def check_contents(
    leaf: Any,
    infos: Sequence[Mapping[str, Any]],
    report: SplitReport,
    seen_classes: Sequence[str] | None,
    workers: int,
    progress: Progress,
) -> None:
    """Open the files of one dataset, and add the findings to the report."""
    tally = Tally(LabelRules.of(leaf))
    checker = PairChecker(annotation_loader(leaf), tally.rules, image_loader(leaf))
    for pair in progress(check_pairs(checker, infos, workers), len(infos)):
        report.problems += pair.problems
        tally.add(pair)
    report.problems += value_problems(tally)
    if seen_classes is not None:
        report.problems += training_problems(tally, seen_classes)
    report.notes += shift_notes(tally) + colour_notes(tally) + name_notes(tally.rules)
    if checker.loader is None:
        where = str(leaf.data_prefix.get('img_path'))
        report.notes.append(Problem('no labels', where, 'the pipeline loads no labels', 'they were not checked'))
    report.checked += len(infos)
    report.classes = tally.rules.classes
    report.pixels.update({name: use.pixels for name, use in tally.class_uses.items()})
    report.ignored += tally.ignored_pixels
    report.unlabelled += len(tally.unlabelled)
