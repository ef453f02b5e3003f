"""Mean ± standard deviation over seeds, with the paper's results, as Markdown; and all runs as CSV."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import ttest_rel

from mmseg_alignzeg.files import whole_file, write_text

from .plan import Trial, read_result

KEYS = ('pAcc', 'mIoU', 'mIoU_seen', 'mIoU_unseen', 'hIoU')
COMPARED = 'hIoU'


@dataclass(frozen=True)
class Run:
    """The scores of one row with one seed.

    Attributes:
        row: Name of the row.
        config: The tested config, below ``configs``.
        seed: Seed of the training.
        scores: Scores in percent; its keys are among :data:`KEYS`.
    """

    row: str
    config: str
    seed: int
    scores: Mapping[str, float]


def of_a_sweep(row: str) -> bool:
    """Return whether a row is one value of a sweep, ``CONFIG NAME=VALUE``, and not an unchanged config."""
    return '=' in row


def finished_runs(trials: Iterable[Trial]) -> list[Run]:
    """Return the runs of trials that have a result."""
    results = ((trial, read_result(trial.test)) for trial in trials)
    return [
        Run(trial.row, str(trial.config), trial.seed, {key: scores[key] for key in KEYS if key in scores})
        for trial, scores in results
        if scores is not None
    ]


def read_runs(path: Path) -> list[Run]:
    """Read the file of :func:`write_runs`."""
    with path.open(newline='', encoding='utf-8') as file:
        lines = list(csv.DictReader(file))
    return [
        Run(line['row'], line['config'], int(line['seed']), {key: float(line[key]) for key in KEYS if line[key]})
        for line in lines
    ]


def write_runs(runs: Iterable[Run], path: Path) -> None:
    """Write one line per run, with scores in percent to two decimals, as printed by tests."""
    with whole_file(path) as part, part.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, ['row', 'config', 'seed', *KEYS], lineterminator='\n')
        writer.writeheader()
        for run in runs:
            scores = {key: f'{value:.2f}' for key, value in run.scores.items()}
            writer.writerow({'row': run.row, 'config': run.config, 'seed': run.seed, **scores})


def table_rows(
    runs: Sequence[Run], paper: Mapping[str, Mapping[str, Any]] | None = None, reference: str | None = None
) -> list[dict[str, Any]]:
    """Compute mean and sample standard deviation over seeds for each row.

    Args:
        runs: Runs in the order of the table.
        paper: The paper's results by config path, see :meth:`Published.paper`.
        reference: A row that all others are compared with, seed by seed.

    Returns:
        One dict per row: ``row``, ``config``, ``seeds`` (number), ``<key>_mean`` and ``<key>_std`` in percent (no std
        for one seed), ``paper`` (source in the paper), and ``paper_<key>``. With a reference, also ``gain``, the mean
        difference of ``COMPARED`` over common seeds, and for two or more seeds its 95 % confidence interval, ``low``
        and ``high``, and ``p`` of a paired t-test. Rows without a result are left out.
    """
    rows: dict[str, list[Run]] = {}
    for run in runs:
        rows.setdefault(run.row, []).append(run)
    base = {run.seed: run.scores[COMPARED] for run in rows.get(reference or '', []) if COMPARED in run.scores}
    table = []
    for name, results in rows.items():
        config = results[0].config
        line: dict[str, Any] = {'row': name, 'config': config, 'seeds': len(results)}
        for key in KEYS:
            values = [run.scores[key] for run in results if key in run.scores]
            if values:
                line[f'{key}_mean'] = statistics.mean(values)
            if len(values) > 1:
                line[f'{key}_std'] = statistics.stdev(values)
        pairs = [
            (run.scores[COMPARED], base[run.seed]) for run in results if run.seed in base and COMPARED in run.scores
        ]
        if pairs and name != reference:
            ours, theirs = zip(*pairs, strict=True)
            line['gain'] = statistics.mean(ours) - statistics.mean(theirs)
            if len(pairs) > 1:
                test = ttest_rel(ours, theirs)
                line['p'] = float(test.pvalue)
                line['low'], line['high'] = map(float, test.confidence_interval(0.95))
        published = (paper or {}).get(config)
        if published and not of_a_sweep(name):  # the paper's result is for the unchanged config
            line['paper'] = published['where']
            line |= {f'paper_{key}': published[key] for key in KEYS if key in published}
        table.append(line)
    return table


def spread(values: Sequence[float]) -> str:
    """Format mean ± sample standard deviation; the mean alone for a single value."""
    deviation = f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.1f}{deviation}'


def score_cell(row: Mapping[str, Any], key: str) -> str:
    """Format mean ± standard deviation of a score, as far as available."""
    if f'{key}_mean' not in row:
        return '-'
    std = f' ± {row[f"{key}_std"]:.1f}' if f'{key}_std' in row else ''
    return f'{row[f"{key}_mean"]:.1f}{std}'


def gain_cells(row: Mapping[str, Any]) -> list[str]:
    """Format gain, its 95 % confidence interval and p, as far as available."""
    tested = [f'[{row["low"]:+.1f}, {row["high"]:+.1f}]', f'{row["p"]:.2g}'] if 'p' in row else ['-', '-']
    return [f'{row["gain"]:+.1f}' if 'gain' in row else '-', *tested]


def pipe_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table."""
    return ''.join('| ' + ' | '.join(line) + ' |\n' for line in (header, ['---'] * len(header), *lines))


def markdown(rows: list[dict[str, Any]]) -> str:
    """Format the rows as a Markdown table, with the paper's results in separate columns."""
    ours = [key for key in KEYS if any(f'{key}_mean' in row for row in rows)]
    theirs = [key for key in KEYS if any(f'paper_{key}' in row for row in rows)]
    tested = [f'Δ {COMPARED}', '95 %', 'p'] if any('gain' in row for row in rows) else []
    header = ['config', 'seeds', *ours, *tested, *(f'paper: {key}' for key in theirs)]
    header += ['paper: where'] if theirs else []
    lines = []
    for row in rows:
        cells = [f'`{row["row"]}`', str(row['seeds'])]
        cells += [score_cell(row, key) for key in ours]
        if tested:
            cells += gain_cells(row)
        cells += [str(row.get(f'paper_{key}', '-')) for key in theirs]
        lines.append(cells + ([row.get('paper', '-')] if theirs else []))
    return pipe_table(header, lines)


def write_tables(rows: list[dict[str, Any]], runs: Iterable[Run], folder: Path, others: str = '') -> None:
    """Write ``table.md``, which ends with the text ``others``, and ``runs.csv``."""
    note = 'Percent, mean ± sample standard deviation over seeds. Columns "paper" are the paper\'s own figures.'
    if any('gain' in row for row in rows):
        note += (
            f' Δ, 95 % and p: mean difference of {COMPARED} to the row without these values, its confidence interval, '
            'and a paired t-test over seeds.'
        )
    write_text(folder / 'table.md', f'{note}\n\n{markdown(rows)}' + (f'\n{others}' if others else ''))
    write_runs(runs, folder / 'runs.csv')
