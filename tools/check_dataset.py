"""Check the data of a config before training: counts, missing and broken files, label values, classes.

Exit code 0: nothing is wrong; 1: problems were found, and are named; 2: it cannot run, because an argument, the config
or the data root is wrong.
"""

from __future__ import annotations

from mmseg_alignzeg.datasets import validation  # isort: skip  (before mmseg: its MMCV may lack compiled operators)

import argparse
import copy
import json
import os
import os.path as osp
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmengine import list_from_file
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mmseg_alignzeg.datasets.checked import (
    CheckedFiles,
    Problem,
    evenly_spaced,
    is_local,
    list_fault,
    missing_files,
    missing_hint,
)
from mmseg_alignzeg.vocabulary import Vocabulary, abridged

SPLITS = ('train', 'val', 'test')
CHUNK = 16  # pairs that a process takes at a time
SHOWN = 10  # problems per split; the JSON file has all
COLUMNS = {
    'missing': {'missing'},
    'broken': {'unreadable'},
    'wrong size': {'size'},
    'wrong labels': {'jpeg', 'channels', 'palette', 'values', 'empty', 'loader', 'unseen', 'names'},
}


@dataclass
class SplitReport:
    """What was found in one split.

    Args:
        images: Images in the lists or folders.
        expected: How many the config states, if it does.
        checked: Images that were opened.
        problems: What is wrong.
        notes: What may be.
        classes: Names of the labels, and ``pixels`` of each.
        ignored: Pixels without label.
        unlabelled: Images without any label left.
        paths: Paths of all images.
    """

    images: int
    expected: int | None = None
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
        """Percent of the labelled pixels per class; empty if nothing has a label."""
        total = self.pixels.total()
        return {name: 100 * self.pixels[name] / total for name in self.classes} if total else {}

    @property
    def absent(self) -> list[str]:
        """Classes without a pixel."""
        return [name for name in self.classes if not self.pixels[name]]

    def to_dict(self) -> dict[str, Any]:
        """All of it but the paths, for JSON."""
        fields = {key: value for key, value in asdict(self).items() if key not in ('paths', 'pixels', 'classes')}
        return {**fields, 'pixel_share': self.shares, 'absent': self.absent}


# ---------------------------------------------------------------- datasets of a config


def keep_broken_files(dataset: dict) -> None:
    """Let datasets with ``CheckedFiles`` be built with broken files, which this tool lists instead."""
    for part in [*dataset.get('datasets', ()), dataset.get('dataset')]:
        if isinstance(part, dict):
            keep_broken_files(part)
    kind = dataset.get('type')
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    if isinstance(kind, type) and issubclass(kind, CheckedFiles):
        dataset['check_files'] = False


def build(name: str, cfg: dict) -> Any:
    """Build the dataset of a split.

    Raises:
        RuntimeError: If that fails; one line with the reason.
    """
    keep_broken_files(cfg)
    try:
        return DATASETS.build(cfg)
    except Exception as error:  # a dataset may raise anything; mmseg's raise AssertionError without a word
        roots = [part.get('data_root') or '' for part in (cfg, *cfg.get('datasets', ()))]
        gone = [root for root in roots if is_local(root) and not osp.isdir(root or '.')]
        reason = str(error) or 'the folders of `data_prefix` or the list `ann_file` are not there'
        if gone and '`data_root' not in reason:
            reason = f'`data_root={gone[0]!r}` is no folder (looked for {osp.abspath(gone[0])}): put the data there'
        raise RuntimeError(f'The {name} data cannot be built: {" ".join(reason.split())}') from error


def leaf_datasets(dataset: Any) -> list[Any]:
    """The datasets inside wrappers (``ConcatDataset``, ``RepeatDataset``, …), each once."""
    if hasattr(dataset, 'datasets'):
        return [leaf for part in dataset.datasets for leaf in leaf_datasets(part)]
    return leaf_datasets(dataset.dataset) if hasattr(dataset, 'dataset') else [dataset]


# ---------------------------------------------------------------- a split

_checker: validation.PairChecker | None = None  # of a worker process


def _start(checker: validation.PairChecker) -> None:
    global _checker
    _checker = checker


def _check_chunk(infos: Sequence[Mapping[str, Any]]) -> list[validation.PairReport]:
    assert _checker is not None
    return [_checker(info) for info in infos]


def check_pairs(
    checker: validation.PairChecker, infos: Sequence[Mapping[str, Any]], workers: int
) -> Iterator[validation.PairReport]:
    """Reports in the order of ``infos``, made by several processes where that pays."""
    chunks = [infos[i : i + CHUNK] for i in range(0, len(infos), CHUNK)]
    if workers <= 1 or len(chunks) <= 1:
        yield from map(checker, infos)
        return
    with ProcessPoolExecutor(min(workers, len(chunks)), initializer=_start, initargs=(checker,)) as pool:
        for reports in pool.map(_check_chunk, chunks):
            yield from reports


def check_split(
    dataset: Any,
    expected: int | None = None,
    seen_classes: Sequence[str] | None = None,
    limit: int | None = None,
    workers: int = 1,
    progress: Callable[[Iterable, int], Iterable] = lambda items, total: items,
) -> SplitReport:
    """Look at the images and label maps of a split.

    Args:
        dataset: A built dataset, or a wrapper of some.
        expected: How many images it should have.
        seen_classes: Of training data, the classes that may have labels, in the order of the model.
        limit: Open at most so many images, evenly spaced; lists and folders are compared in full all the same.
        workers: Processes.
        progress: Shows how an iterable of known length goes on.

    Raises:
        ValueError: If a dataset has no class names.
    """
    leaves = leaf_datasets(dataset)
    lists = [[leaf.get_data_info(i) for i in range(len(leaf))] for leaf in leaves]
    paths = [info['img_path'] for infos in lists for info in infos]
    report = SplitReport(len(paths), expected, paths=paths)
    if expected is not None and expected != len(paths):
        where = ', '.join(str(leaf.ann_file or leaf.data_prefix.get('img_path')) for leaf in leaves)
        what = f'{len(paths):,} images where the config expects {expected:,}'
        report.problems.append(Problem('count', where, what, 'complete them, or correct `expected_images`'))
    repeated = [path for path, count in Counter(paths).items() if count > 1]
    if repeated:
        what = f'{len(repeated):,} image(s), first this one, occur more than once in the split'
        report.notes.append(Problem('repeated', repeated[0], what, 'fine if it is meant'))
    chosen, begin = set(evenly_spaced(len(paths), limit)), 0
    for leaf, infos in zip(leaves, lists, strict=True):
        lost = check_existence(leaf, infos, report)
        opened = [info for i, info in enumerate(infos, begin) if i in chosen]
        opened = [info for info in opened if lost.isdisjoint((info['img_path'], info.get('seg_map_path')))]
        check_contents(leaf, opened, report, seen_classes, workers, progress)
        begin += len(infos)
    return report


def check_existence(leaf: Any, infos: Sequence[Mapping[str, Any]], report: SplitReport) -> set[str]:
    """Add faults of the list and missing files of one dataset to the report; return the missing paths."""
    if leaf.ann_file and osp.isfile(leaf.ann_file):
        fault = list_fault(list_from_file(leaf.ann_file))
        report.problems += [Problem('list', leaf.ann_file, *fault)] if fault else []
    has_labels = validation.annotation_loader(leaf) is not None
    lost: set[str] = set()
    for key, suffix in (('img_path', leaf.img_suffix), ('seg_map_path', leaf.seg_map_suffix))[: 1 + has_labels]:
        missing = missing_files([info[key] for info in infos if is_local(info.get(key, '://'))])
        command = getattr(leaf, 'prepare_command', None)
        todo = (missing_hint(missing[0], suffix) if missing else '') or 'complete the data set'
        todo += f' (`{command}`)' if command else ''
        report.problems += [Problem('missing', path, 'this file is missing', todo) for path in missing]
        lost.update(missing)
    if has_labels and not leaf.ann_file:
        wanted = defaultdict(set)
        for folder, name in (osp.split(info.get('seg_map_path', '')) for info in infos):
            wanted[folder].add(name)
        for folder, names in wanted.items():
            present = {n for n in os.listdir(folder) if n.endswith(leaf.seg_map_suffix)} if osp.isdir(folder) else set()
            if present - names:
                what = f'{len(present - names):,} label maps have no image, first: {min(present - names)}'
                report.notes.append(Problem('orphans', folder, what, 'fine if the images are left out on purpose'))
    return lost


def check_contents(
    leaf: Any,
    infos: Sequence[Mapping[str, Any]],
    report: SplitReport,
    seen_classes: Sequence[str] | None,
    workers: int,
    progress: Callable[[Iterable, int], Iterable],
) -> None:
    """Open the files of one dataset, and add to the report what they hold."""
    tally = validation.Tally(validation.LabelRules.of(leaf))
    checker = validation.PairChecker(validation.annotation_loader(leaf), tally.rules)
    for pair in progress(check_pairs(checker, infos, workers), len(infos)):
        report.problems += pair.problems
        tally.add(pair)
    report.problems += validation.value_problems(tally)
    if seen_classes is not None:
        report.problems += validation.training_problems(tally, seen_classes)
    report.notes += validation.shift_notes(tally)
    if checker.loader is None:
        where = str(leaf.data_prefix.get('img_path'))
        report.notes.append(Problem('no labels', where, 'the pipeline loads no labels', 'they were not checked'))
    report.checked += len(infos)
    report.classes = tally.rules.classes
    report.pixels.update({name: use.pixels for name, use in tally.class_uses.items()})
    report.ignored += tally.ignored_pixels
    report.unlabelled += len(tally.unlabelled)


def distinct(reports: Mapping[str, SplitReport]) -> dict[str, SplitReport]:
    """Each report once, under the names of all splits that share it."""
    return {', '.join(name for name, r in reports.items() if r is report): report for report in reports.values()}


def overlap_problems(reports: Mapping[str, SplitReport]) -> list[Problem]:
    """Training images that are also validated or tested on."""
    trained = set(reports['train'].paths) if 'train' in reports else set()
    problems = []
    for name, report in distinct(reports).items():
        common = trained.intersection(report.paths) if name != 'train' else set()
        if common:
            what = f'{len(common):,} training image(s), first this one, are also in {name}'
            problems.append(Problem('overlap', min(common), what, 'remove them from the training list'))
    return problems


# ---------------------------------------------------------------- what is printed


def problem_lines(problems: Sequence[Problem], limit: int = SHOWN) -> list[str]:
    """At most ``limit`` problems, one line each: some of every kind, with how many more there are of it."""
    groups = defaultdict(list)
    for problem in problems:
        groups[problem.kind].append(problem)
    each = max(1, limit // len(groups)) if groups else 0
    lines = []
    for group in list(groups.values())[:limit]:
        lines += [str(problem) for problem in group[:each]]
        if len(group) > each:
            lines[-1] += f' (and {len(group) - each:,} more like this)'
    return lines


def count_table(reports: Mapping[str, SplitReport]) -> Table:
    """One row of counts per split."""
    table = Table('split', title='Images', box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for column in ('found', 'expected', 'opened', *COLUMNS, 'no label', 'problems'):
        table.add_column(column.replace(' ', '\n', 1), justify='right')
    for name, report in reports.items():
        kinds = Counter(problem.kind for problem in report.problems)
        wrong = [sum(kinds[kind] for kind in members) for members in COLUMNS.values()]
        counts = [report.images, report.expected, report.checked, *wrong, report.unlabelled, len(report.problems)]
        table.add_row(name, *('-' if count is None else f'{count:,}' for count in counts))
    return table


def share_table(reports: Mapping[str, SplitReport], unseen_classes: Sequence[str]) -> Table:
    """Percent of the labelled pixels per class and split, and of all pixels what has no label."""
    table = Table('class', '', title='Share of the labelled pixels (%)', box=box.SIMPLE_HEAD)
    for name in reports:
        table.add_column(name, justify='right')
    for name in dict.fromkeys(name for report in reversed(list(reports.values())) for name in report.classes):
        cells = [percent(report.shares.get(name)) for report in reports.values()]
        table.add_row(name, 'unseen' if name in unseen_classes else 'seen', *cells)
    table.add_section()
    totals = [report.ignored + report.pixels.total() for report in reports.values()]
    ignored = [f'{100 * r.ignored / max(total, 1):.2f}' for r, total in zip(reports.values(), totals, strict=True)]
    table.add_row('no label, of all pixels', '', *ignored)
    return table


def percent(share: float | None) -> str:
    """A share for the table."""
    if not share:
        return '' if share is None else 'absent'
    return '< 0.01' if share < 0.005 else f'{share:.2f}'


def show(console: Console, reports: Mapping[str, SplitReport], unseen_classes: Sequence[str]) -> None:
    """Print tables and problems; splits that share a report share a row."""
    rows = distinct(reports)
    if any(report.shares for report in rows.values()):
        console.print(share_table(rows, unseen_classes))
    console.print(count_table(rows))
    for name, report in rows.items():
        lines = [f'problem: {line}' for line in problem_lines(report.problems)]
        lines += [f'note: {line}' for line in problem_lines(report.notes)]
        if report.absent and report.shares:
            lines.append(f'note: {len(report.absent)} class(es) absent: {abridged(report.absent, limit=20)}')
        for line in lines:
            console.print(f'{name}: {line}', soft_wrap=True, markup=False, highlight=False)
    count = sum(len(report.problems) for report in rows.values())
    console.print(f'{count:,} problem(s) found.' if count else 'No problem found.')


def positive(text: str) -> int:
    """A number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'expected a number of at least 1, got {text!r}')
    return int(text)


def check(cfg: Config, splits: Sequence[str], limit: int | None, workers: int, progress: Progress) -> dict:
    """Reports of the splits of a config.

    Raises:
        RuntimeError, ValueError: If a dataset cannot be built or has no names.
    """
    model = cfg.get('model') or {}
    vocabulary = Vocabulary.from_metainfo(model) if model.get('classes') else None
    reports: dict[str, SplitReport] = {}
    datasets: dict[str, tuple[dict, int | None]] = {}
    for name in splits:
        expected = cfg.get('expected_images', {}).get(name)
        data = cfg[f'{name}_dataloader'].dataset.to_dict()
        # Often one set serves to validate and to test: it is checked once.
        twins = [other for other in reports if 'train' not in (name, other) and datasets[other] == (data, expected)]
        datasets[name] = (copy.deepcopy(data), expected)
        if twins:
            reports[name] = reports[twins[0]]
            continue
        task = progress.add_task(name, total=0)

        def tracked(items: Iterable, total: int, task: Any = task) -> Iterator:
            progress.update(task, total=progress.tasks[task].total + total)
            for item in items:
                progress.advance(task)
                yield item

        seen = vocabulary.seen_classes if vocabulary and name == 'train' else None
        reports[name] = check_split(build(name, data), expected, seen, limit, workers, tracked)
    if 'train' in reports:
        reports['train'].problems += overlap_problems(reports)
    return reports


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, print and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=Path)
    parser.add_argument('--split', nargs='+', choices=SPLITS, help='which splits (default: all that the config has)')
    parser.add_argument('--limit', type=positive, help='open at most so many images per split, evenly spaced')
    parser.add_argument('--workers', type=positive, default=os.cpu_count() or 1, help='processes (default: all cores)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write everything found to this file')
    args = parser.parse_args(arguments)
    try:
        cfg = Config.fromfile(args.config)
    except Exception as error:  # a config is a program
        print(f'The config {args.config} cannot be read: {" ".join(str(error).split())}', file=sys.stderr)
        return 2
    init_default_scope('mmseg')
    splits = args.split or [name for name in SPLITS if cfg.get(f'{name}_dataloader')]
    lacking = [name for name in splits if not cfg.get(f'{name}_dataloader')]
    if lacking or not splits:
        print(f'The config {args.config} has no data for: {", ".join(lacking or SPLITS)}.', file=sys.stderr)
        return 2
    try:
        with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
            reports = check(cfg, splits, args.limit, args.workers, progress)
    except (RuntimeError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    show(Console(), reports, (cfg.get('model') or {}).get('unseen_classes') or cfg.get('unseen_classes') or ())
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({name: r.to_dict() for name, r in reports.items()}, indent=2) + '\n')
    return int(any(report.problems for report in reports.values()))


if __name__ == '__main__':
    sys.exit(main())
