"""The tables and lines that `alignzeg check` prints."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from mmseg_alignzeg.datasets.file_checks import Problem
from mmseg_alignzeg.datasets.validation.configs import distinct
from mmseg_alignzeg.datasets.validation.splits import SplitReport, accepted_counts, either
from mmseg_alignzeg.printable import printable
from mmseg_alignzeg.vocabulary import abridged

NAMED = 3  # files of a problem; the JSON file has all
COLUMNS = {
    'missing': {'missing'},
    'broken': {'unreadable'},
    'wrong size': {'size'},
    'wrong labels': {'jpeg', 'channels', 'palette', 'smooth', 'values', 'empty', 'loader', 'unseen', 'names'},
}


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """Format one line per kind of problem: the first one, the names of two more files, and the number of the others."""
    groups = defaultdict(list)
    for problem in problems:
        groups[problem.kind].append(problem)
    lines = []
    for first, *others in groups.values():
        more = [problem.file for problem in others[: NAMED - 1]]
        more += [f'{len(others) - len(more):,} more'] if len(others) > len(more) else []
        named = f'{first.file} (and {", ".join(more)})' if more else first.file
        lines.append(str(replace(first, file=named)))
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


def show(
    console: Console, reports: Mapping[str, SplitReport], seen_classes: Container[str] | None, missing: int
) -> None:
    """Print tables and problems; splits with a common report share a row. ``missing`` things count as problems too."""
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
    count = missing + sum(len(report.problems) for report in rows.values())
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
