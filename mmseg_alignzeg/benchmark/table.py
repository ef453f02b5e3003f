"""Mean ± standard deviation over seeds, beside the paper's figures, as Markdown and CSV."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path
from typing import Any

from scipy.stats import ttest_rel

from ..whole_file import whole_file, write_text
from .plan import Trial, read_result

KEYS = ('pAcc', 'mIoU', 'mIoU_seen', 'mIoU_unseen', 'hIoU')
COMPARED = 'hIoU'


def table_rows(
    trials: list[Trial], paper: dict[str, dict[str, Any]], reference: str | None = None
) -> list[dict[str, Any]]:
    """Mean and sample standard deviation over seeds, row by row.

    Args:
        trials: In the order of the table.
        paper: The paper's figures by config path, as in ``configs/paper_results.yml``.
        reference: A row that the others are compared with, seed by seed.

    Returns:
        One dict per row: ``row``, ``config``, ``seeds`` (how many), ``<key>_mean`` and ``<key>_std`` in percent (no
        std for one seed), ``paper`` (where the figures stand), and ``paper_<key>``; with a reference also ``gain``,
        the mean difference of ``COMPARED`` over common seeds, and ``p`` of a paired t-test (from two seeds on). A row
        without result is left out.
    """
    rows: dict[str, list[tuple[Trial, dict[str, float]]]] = {}
    for trial in trials:
        if (scores := read_result(trial.test)) is not None:
            rows.setdefault(trial.row, []).append((trial, scores))
    base = {trial.seed: scores[COMPARED] for trial, scores in rows.get(reference or '', []) if COMPARED in scores}
    table = []
    for name, results in rows.items():
        config = results[0][0].config
        line: dict[str, Any] = {'row': name, 'config': str(config), 'seeds': len(results)}
        for key in KEYS:
            values = [scores[key] for _, scores in results if key in scores]
            if values:
                line[f'{key}_mean'] = statistics.mean(values)
            if len(values) > 1:
                line[f'{key}_std'] = statistics.stdev(values)
        pairs = [
            (scores[COMPARED], base[trial.seed])
            for trial, scores in results
            if trial.seed in base and COMPARED in scores
        ]
        if pairs and name != reference:
            ours, theirs = zip(*pairs, strict=True)
            line['gain'] = statistics.mean(ours) - statistics.mean(theirs)
            if len(pairs) > 1:
                line['p'] = float(ttest_rel(ours, theirs).pvalue)
        published = paper.get(str(config))
        if published and '=' not in name:  # a sweep's values are not what the paper's row was made with
            line['paper'] = published['where']
            line |= {f'paper_{key}': published[key] for key in KEYS if key in published}
        table.append(line)
    return table


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table; the paper's figures in columns of their own."""
    ours = [key for key in KEYS if any(f'{key}_mean' in row for row in rows)]
    theirs = [key for key in KEYS if any(f'paper_{key}' in row for row in rows)]
    tested = [f'Δ {COMPARED}', 'p'] if any('gain' in row for row in rows) else []
    header = ['config', 'seeds', *ours, *tested, *(f'paper: {key}' for key in theirs)]
    header += ['paper: where'] if theirs else []
    lines = [header, ['---'] * len(header)]
    for row in rows:
        cells = [f'`{row["row"]}`', str(row['seeds'])]
        for key in ours:
            std = f' ± {row[f"{key}_std"]:.1f}' if f'{key}_std' in row else ''
            cells.append(f'{row[f"{key}_mean"]:.1f}{std}' if f'{key}_mean' in row else '-')
        if tested:
            cells.append(f'{row["gain"]:+.1f}' if 'gain' in row else '-')
            cells.append(f'{row["p"]:.3f}' if 'p' in row else '-')
        cells += [str(row.get(f'paper_{key}', '-')) for key in theirs]
        lines.append(cells + ([row.get('paper', '-')] if theirs else []))
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines) + '\n'


def write_tables(rows: list[dict[str, Any]], folder: Path) -> None:
    """Write ``table.md`` and ``table.csv``."""
    note = 'Percent, mean ± sample standard deviation over seeds. Columns "paper" are the paper\'s own figures.'
    if any('gain' in row for row in rows):
        note += f' Δ and p: mean difference of {COMPARED} to the row without them, and a paired t-test over seeds.'
    note += '\n\n'
    write_text(folder / 'table.md', note + markdown(rows))
    spread = [f'{key}_{part}' for key in KEYS for part in ('mean', 'std')]
    fields = ['row', 'config', 'seeds', *spread, 'gain', 'p', 'paper', *(f'paper_{key}' for key in KEYS)]
    with whole_file(folder / 'table.csv') as part, part.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(rows)
