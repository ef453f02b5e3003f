"""A folder of results as one table for a paper: seen, unseen and h per dataset, best in bold, Markdown or LaTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .table import Run, pipe_table, read_runs, score_cell, table_rows

COLUMNS = {'pAcc': 'pAcc', 'mIoU_seen': 'S', 'mIoU_unseen': 'U', 'hIoU': 'h', 'mIoU': 'mIoU'}
LEVEL = 0.05  # of significance
MARK = '†'


def dataset_of(config: str) -> str:
    """Return the dataset of a config from its path: ``voc`` of ``configs/ablations/voc/…`` and ``configs/…_voc.py``."""
    parts = Path(config).parts
    return parts[2] if parts[1:2] == ('ablations',) and len(parts) > 3 else Path(config).stem.rpartition('_')[2]


def read_folder(folder: Path) -> dict[str, list[Run]]:
    """Read every ``runs.csv`` below a folder, as written by ``alignzeg bench``, or one such file of any name.

    Returns:
        Runs by dataset.

    Raises:
        FileNotFoundError: If none is found.
        ValueError: If a file has another format, or two files have the same row and seed.
    """
    paths = [folder] if folder.is_file() else sorted(folder.rglob('runs.csv'))
    if not paths:
        raise FileNotFoundError(f'{folder} contains no results: expected runs.csv of alignzeg bench.')
    found: dict[tuple[str, str, int], Path] = {}
    datasets: dict[str, list[Run]] = {}
    for path in paths:
        try:
            runs = read_runs(path)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f'{path} is not a file of results: expected runs.csv ({error!r}).') from None
        for run in runs:
            key = (dataset_of(run.config), run.row, run.seed)
            if key in found:
                raise ValueError(
                    f'{found[key]} and {path} both have {run.row!r} on {key[0]}, seed {run.seed}: keep one.'
                )
            found[key] = path
            datasets.setdefault(key[0], []).append(run)
    return datasets


@dataclass(frozen=True)
class Cell:
    """A score: mean ± standard deviation, whether it is the best of its column, and whether it is significant."""

    text: str
    best: bool
    significant: bool


@dataclass(frozen=True)
class PaperTable:
    """The table, without a format.

    Attributes:
        columns: Dataset and score of each column.
        rows: The cells of each row by its name; None where a result is missing.
        note: What the numbers and marks mean.
    """

    columns: Sequence[tuple[str, str]]
    rows: Mapping[str, Sequence[Cell | None]]
    note: str

    def markdown(self) -> str:
        """Format the table as Markdown, with the note below it."""
        header = ['', *(f'{dataset} {COLUMNS[key]}' for dataset, key in self.columns)]
        lines = [[f'`{name}`', *map(_markdown_cell, cells)] for name, cells in self.rows.items()]
        return f'{pipe_table(header, lines)}\n{self.note}\n'

    def latex(self) -> str:
        """Format the table as LaTeX, for ``booktabs``, with the note as a comment."""
        datasets = list(dict.fromkeys(dataset for dataset, _ in self.columns))
        counts = [sum(dataset == each for each, _ in self.columns) for dataset in datasets]
        heads = [rf'\multicolumn{{{n}}}{{c}}{{{_escape(name)}}}' for name, n in zip(datasets, counts, strict=True)]
        lines = [f'{_escape(name)} & {" & ".join(map(_latex_cell, cells))} \\\\' for name, cells in self.rows.items()]
        return '\n'.join(
            [
                *(f'% {line}' for line in self.note.splitlines()),
                rf'\begin{{tabular}}{{l{"c" * len(self.columns)}}}',
                r'\toprule',
                f' & {" & ".join(heads)} \\\\',
                f' & {" & ".join(COLUMNS[key] for _, key in self.columns)} \\\\',
                r'\midrule',
                *lines,
                r'\bottomrule',
                r'\end{tabular}',
                '',
            ]
        )


def paper_table(datasets: Mapping[str, Sequence[Run]], reference: str | None = None) -> PaperTable:
    """Compute the table.

    Args:
        datasets: Runs by dataset.
        reference: The row that the others are compared with; by default ``baseline``, if there is one.

    Raises:
        ValueError: If ``reference`` is not a row.
    """
    names = list(dict.fromkeys(run.row for runs in datasets.values() for run in runs))
    if reference not in (None, *names):
        raise ValueError(f'{reference!r} is not a row; the rows are {", ".join(names)}.')
    reference = reference or ('baseline' if 'baseline' in names else None)
    columns: list[tuple[str, str]] = []
    rows: dict[str, list[Cell | None]] = {name: [] for name in names}
    results: list[dict[str, Any]] = []
    for dataset, runs in datasets.items():
        table = {row['row']: row for row in table_rows(runs, reference=reference)}
        results += table.values()
        for key in COLUMNS:
            means = [round(row[f'{key}_mean'], 1) for row in table.values() if f'{key}_mean' in row]
            if not means or (key == 'mIoU' and (dataset, 'hIoU') in columns):
                continue
            columns.append((dataset, key))
            for name in names:
                rows[name].append(_cell(table.get(name, {}), key, max(means)))
    return PaperTable(columns, rows, _note(results, reference))


def _cell(row: Mapping[str, Any], key: str, best: float) -> Cell | None:
    """Return the cell of a row, best and significant judged at the printed precision; None without a result."""
    if f'{key}_mean' not in row:
        return None
    significant = key == 'hIoU' and row.get('p', 1.0) < LEVEL
    return Cell(score_cell(row, key), round(row[f'{key}_mean'], 1) == best, significant)


def _note(rows: Sequence[Mapping[str, Any]], reference: str | None) -> str:
    """Return the note about seeds and significance."""
    counts = sorted({row['seeds'] for row in rows})
    seeds = '1 seed' if counts == [1] else f'{" to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))} seeds'
    note = f'Percent, mean ± sample standard deviation over {seeds}; best in bold.'
    tested = sum('p' in row for row in rows)
    if not tested:
        why = 'no row to compare with' if reference is None else 'fewer than two common seeds'
        return f'{note} No test of significance: {why}.'
    return (
        f'{note} {MARK}: h differs from {reference} with p < {LEVEL}, two-sided paired t-test over common seeds, not '
        f'corrected for {tested} comparison(s).'
    )


def _markdown_cell(cell: Cell | None) -> str:
    if cell is None:
        return '-'
    return (f'**{cell.text}**' if cell.best else cell.text) + (f' {MARK}' if cell.significant else '')


def _latex_cell(cell: Cell | None) -> str:
    if cell is None:
        return '--'
    text = cell.text.replace(' ± ', r' $\pm$ ')
    return (rf'\textbf{{{text}}}' if cell.best else text) + (r'$^\dagger$' if cell.significant else '')


def _escape(text: str) -> str:
    """Escape what LaTeX would interpret."""
    return re.sub(r'([&%$#_{}])', r'\\\1', text)
