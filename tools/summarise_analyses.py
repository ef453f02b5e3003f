"""Average results of alignzeg analyze over checkpoints: one row per setting, compared on the same weights.

python tools/summarise_analyses.py work_dirs/analyses/*/analysis.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from scipy.stats import ttest_rel

from alignzeg.benchmark.table import spread

KEYS = ('pAcc', 'mIoU_seen', 'mIoU_unseen', 'hIoU', 'unseen_as_seen')
Setting = tuple[float | None, float, bool]  # γ, constant of stacking, oracle


def name(setting: Setting) -> str:
    """Describe a setting."""
    gamma, constant, oracle = setting
    parts = [f'PBC γ={gamma:g}'] if gamma is not None else []
    parts += [f'stacking {constant:g}'] if constant else []
    return 'oracle classes' if oracle else ' + '.join(parts) or 'without PBC'


def order(setting: Setting) -> tuple[Any, ...]:
    """Sort key: without PBC, PBC by γ, stacking by its constant, both, oracle."""
    gamma, constant, oracle = setting
    return oracle, constant != 0 and gamma is not None, constant != 0, constant, gamma or 0.0


def summarise(analyses: list[dict[str, Any]]) -> list[list[str]]:
    """Return the cells of a table: setting, mean ± sample standard deviation of each measure, gain of hIoU and its p.

    Args:
        analyses: Contents of ``analysis.json``. Settings that are not in all of them are left out.

    Returns:
        One row per setting; gain and p are from a paired comparison with ``without PBC``.
    """
    scores = [{(r['gamma'], r['constant'], r['oracle']): r for r in analysis['rows']} for analysis in analyses]
    plain: Setting = (None, 0.0, False)
    rows = []
    for setting in sorted(scores[0], key=order):
        if not all(setting in each for each in scores):
            continue
        cells = [name(setting)]
        for key in KEYS:
            values = [each[setting][key] for each in scores if key in each[setting]]
            cells.append(spread(values) if values else '-')
        if not all('hIoU' in each[setting] and 'hIoU' in each[plain] for each in scores):
            rows.append([*cells, '-', '-'])
            continue
        ours, base = ([each[which]['hIoU'] for each in scores] for which in (setting, plain))
        gains = [a - b for a, b in zip(ours, base, strict=True)]
        tested = any(gains) and len(gains) > 1
        cells.append(f'{statistics.mean(gains):+.2f} ({sum(gain > 0 for gain in gains)} of {len(gains)} up)')
        cells.append(f'{ttest_rel(ours, base).pvalue:.1g}' if tested else '-')
        rows.append(cells)
    return rows


def main() -> int:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('files', nargs='+', type=Path, help='analysis.json of several checkpoints')
    args = parser.parse_args()
    missing = [path for path in args.files if not path.is_file()]
    if missing:
        print(f'{str(missing[0])!r} does not exist: give analysis.json files of alignzeg analyze.', file=sys.stderr)
        return 2
    header = ['setting', *KEYS, 'Δ hIoU', 'p']
    try:
        analyses = [json.loads(path.read_text()) for path in args.files]
    except ValueError as error:
        print(f'A file was not written by alignzeg analyze: {error}.', file=sys.stderr)
        return 2
    for row in [header, ['---'] * len(header), *summarise(analyses)]:
        print('| ' + ' | '.join(row) + ' |')
    return 0


if __name__ == '__main__':
    sys.exit(main())
