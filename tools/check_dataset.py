"""Check the data of a config before training: counts, missing and broken files, label values, classes.

Exit codes: 0: no problem was found; 1: problems were found and listed; 2: the check could not run, because an argument,
the config or the data root is wrong; 130: it was stopped with Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from alignzeg.cli.options import positive
from mmseg_alignzeg.datasets.file_checks import Problem
from mmseg_alignzeg.datasets.validation.configs import check_config, distinct
from mmseg_alignzeg.datasets.validation.splits import SplitReport, accepted_counts, either
from mmseg_alignzeg.files import write_text
from mmseg_alignzeg.printable import printable
from mmseg_alignzeg.vocabulary import Vocabulary, abridged

SPLITS = ('train', 'val', 'test')
SHOWN = 10  # problems per split; the JSON file has all
COLUMNS = {
    'missing': {'missing'},
    'broken': {'unreadable'},
    'wrong size': {'size'},
    'wrong labels': {'jpeg', 'channels', 'palette', 'values', 'empty', 'loader', 'unseen', 'names'},
}


def problem_lines(problems: Sequence[Problem], limit: int = SHOWN) -> list[str]:
    """Format at most ``limit`` problems, one line each: some of every kind, with the number of further ones."""
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
    """Return a table with one row of counts per split."""
    table = Table('split', title='Images', box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for column in ('found', 'expected', 'opened', *COLUMNS, 'no label', 'problems'):
        table.add_column(column.replace(' ', '\n', 1), justify='right')
    for name, report in reports.items():
        kinds = Counter(problem.kind for problem in report.problems)
        wrong = [sum(kinds[kind] for kind in members) for members in COLUMNS.values()]
        counts = [report.checked, *wrong, report.unlabelled, len(report.problems)]
        expected = either(accepted_counts(report.expected)) or '-'
        table.add_row(name, f'{report.images:,}', expected, *(f'{count:,}' for count in counts))
    return table


def share_table(reports: Mapping[str, SplitReport], seen_classes: Container[str] | None) -> Table:
    """Return a table of the share of labelled pixels per class and split, and the share of all pixels without a label.

    A class is marked as seen if the model has training labels for it.
    """
    table = Table('class', '', title='Share of the labelled pixels (%)', box=box.SIMPLE_HEAD)
    for name in reports:
        table.add_column(name, justify='right')
    for name in dict.fromkeys(name for report in reversed(list(reports.values())) for name in report.classes):
        cells = [percent(report.shares.get(name)) for report in reports.values()]
        split = '' if seen_classes is None else 'seen' if name in seen_classes else 'unseen'
        table.add_row(Text(printable(name)), split, *cells)
    table.add_section()
    totals = [report.ignored + report.pixels.total() for report in reports.values()]
    ignored = [f'{100 * r.ignored / max(total, 1):.2f}' for r, total in zip(reports.values(), totals, strict=True)]
    table.add_row('no label, of all pixels', '', *ignored)
    return table


def percent(share: float | None) -> str:
    """Format a share for the table."""
    if not share:
        return '' if share is None else 'absent'
    return '< 0.01' if share < 0.005 else f'{share:.2f}'


def show(console: Console, reports: Mapping[str, SplitReport], seen_classes: Container[str] | None) -> None:
    """Print tables and problems; splits with a common report share a row."""
    rows = distinct(reports)
    if any(report.shares for report in rows.values()):
        console.print(share_table(rows, seen_classes))
    console.print(count_table(rows))
    for name, report in rows.items():
        lines = [f'problem: {line}' for line in problem_lines(report.problems)]
        lines += [f'note: {line}' for line in problem_lines(report.notes)]
        if report.absent and report.shares:
            lines.append(f'note: {len(report.absent)} class(es) absent: {abridged(report.absent, limit=20)}')
        for line in lines:
            console.print(printable(f'{name}: {line}'), soft_wrap=True, markup=False, highlight=False)
    count = sum(len(report.problems) for report in rows.values())
    console.print(f'{count:,} problem(s) found.' if count else 'No problem found.')


def bar_of(progress: Progress) -> Callable[[str], Callable[[Iterable, int], Iterator]]:
    """Return a function that adds a named progress bar, whose total grows with each iterable passed to it."""

    def add(name: str) -> Callable[[Iterable, int], Iterator]:
        task, expected = progress.add_task(name, total=0), 0

        def track(items: Iterable, total: int) -> Iterator:
            nonlocal expected
            expected += total
            progress.update(task, total=expected)
            for item in items:
                progress.advance(task)
                yield item

        return track

    return add


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=Path)
    parser.add_argument('--split', nargs='+', choices=SPLITS, help='splits to check (default: all in the config)')
    parser.add_argument('--limit', type=positive, help='maximum number of images to open per split, evenly spaced')
    parser.add_argument('--workers', type=positive, default=os.cpu_count() or 1, help='processes (default: all cores)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all findings to this file')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, help='overrides, as in `mim train`')
    args = parser.parse_args(arguments)
    try:
        cfg = Config.fromfile(args.config)
        cfg.merge_from_dict(args.cfg_options)
    except Exception as error:  # a config is code and can raise any exception
        reason = ' '.join(str(error).split())
        print(printable(f'The config {args.config} cannot be read: {reason}'), file=sys.stderr)
        return 2
    init_default_scope('mmseg')
    own = SPLITS[1:] if cfg.get('trained_by') else SPLITS  # such a config tests the checkpoint of another one
    splits = args.split or [name for name in own if cfg.get(f'{name}_dataloader')]
    lacking = [name for name in splits if not cfg.get(f'{name}_dataloader')]
    if lacking or not splits:
        print(f'The config {args.config} has no data for: {", ".join(lacking or SPLITS)}.', file=sys.stderr)
        return 2
    try:
        with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
            reports = check_config(cfg, splits, args.limit, args.workers, bar_of(progress))
    except (RuntimeError, ValueError, OSError) as error:
        print(printable(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('Stopped before everything was checked.', file=sys.stderr)
        return 130
    model = cfg.get('model') or {}
    show(Console(), reports, Vocabulary.from_metainfo(model).seen_classes if model.get('classes') else None)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        write_text(args.json, json.dumps({name: r.to_dict() for name, r in reports.items()}, indent=2) + '\n')
    return int(any(report.problems for report in reports.values()))


if __name__ == '__main__':
    sys.exit(main())
