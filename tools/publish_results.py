"""Copy measured results to the metafiles and to the tables of README and docs.

Each result is stored once, as ``docs/results/NAME.csv``: the ``runs.csv`` of ``alignzeg bench``, or the
file of ``alignzeg speed``, if NAME begins with ``speed``. A Markdown file contains its table between
``<!-- docs/results/NAME.csv -->`` and ``<!-- end -->``; the text in between is replaced. The gains of components in
Table 4 have the mark ``<!-- docs/results/patterns_table4.csv by component -->``. The table of the paper's
results, and the page docs/published_results.md, come from configs/published_results.yml in the same way.
"""

from __future__ import annotations

import argparse
import itertools
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config
from scipy.stats import ttest_1samp

from alignzeg.benchmark.published import ABOUT, Published, read_published, source_of
from alignzeg.benchmark.speed import table as speed
from alignzeg.benchmark.table import KEYS, Run, gain_cells, of_a_sweep, pipe_table, read_runs, score_cell, table_rows
from mmseg_alignzeg.files import write_text

RESULTS = Path('docs/results')
PUBLISHED = Path('configs/published_results.yml')
PAGE = Path('docs/published_results.md')
TEXTS = (Path('README.md'), Path('docs/study.md'))
TITLES = {'pAcc': 'pAcc', 'mIoU_seen': 'mIoU(S)', 'mIoU_unseen': 'mIoU(U)', 'hIoU': 'hIoU'}
SHORT = {'mIoU_seen': 'S', 'mIoU_unseen': 'U', 'hIoU': 'h'}  # on the page of published results
GAINS = ('mIoU_seen', 'mIoU_unseen', 'hIoU')  # of components
HEADER = '# `Results` are written by tools/publish_results.py, from docs/results.\n'
REFERENCE = 'baseline'  # the row that all others are compared with, if a table has it
HEAD = """\
# Published results

Results in percent as others have published them, each with its source; nothing on this page was measured by this
project. `-` means that the source does not say. "second-hand" marks numbers that were not read in their own
publication. S, U and h are the mIoU of seen classes, that of unseen classes and their harmonic mean. "input" is the
short side of a test image, "window" the side of the windows or `whole`, "stride" their step, all in pixels.
"calibration" is what lowers seen scores at test time; "dropped" as background is a softmax over C + 1 classes whose
last one is then dropped. [protocol.md](protocol.md) explains why results of different protocols cannot be compared.
`alignzeg bench` shows your results beside those of the same protocol. `tools/publish_results.py` writes this
page from `configs/published_results.yml`.
"""
CROSS = 'mIoU of models trained on the 171 classes of COCO-Stuff. Backbones differ, and with them the cost.'
TABLE4 = RESULTS / 'patterns_table4.csv'
PLAIN, MRPE = ('baseline', 'baseline_pbc'), ('baseline_pbc_mrpe', 'baseline_pbc_mrpe_fes', 'full')  # rows of Table 4
#: What each component adds in Table 4: rows with it, and rows without it.
COMPONENTS = {
    'φ_bc and PBC on the baseline': (PLAIN[1:], PLAIN[:1]),
    'MRPE for the plain decoder': (MRPE[:1], PLAIN[1:]),
    '**MRPE: the mean of its three rows for that of the two without**': (MRPE, PLAIN),
    'feature expansion, λ3 from 0 to 0.01': (MRPE[1:2], MRPE[:1]),
    'background diversity, M from 1 to 10': (MRPE[2:], MRPE[1:2]),
    'MRPE, feature expansion and background diversity': (MRPE[2:], PLAIN[1:]),
    '**all of them**': (MRPE[2:], PLAIN[:1]),
}
Row = Mapping[str, Any]


def what(config: str) -> str:
    """Return the description of a config from its first line: ``# Table 4 …: <description>``."""
    first = Path(config).read_text(encoding='utf-8').splitlines()[0]
    return first.removeprefix('# ').rpartition(': ')[2].rstrip('.')


def markdown(rows: Sequence[Row]) -> str:
    """Format rows as a Markdown table, in percent: mean ± sample standard deviation over seeds."""
    compared = ['Δ hIoU', '95 %', 'p'] if any('gain' in row for row in rows) else []
    lines = []
    for row in rows:
        scores = [score_cell(row, key) for key in TITLES]
        cells = [f'`{row["row"]}`', '' if of_a_sweep(row['row']) else what(row['config']), str(row['seeds']), *scores]
        lines.append(cells + (gain_cells(row) if compared else []))
    return pipe_table(['row', '', 'seeds', *TITLES.values(), *compared], lines)


def component_table(runs: Sequence[Run]) -> str:
    """Format the gain of each component as a Markdown table: differences of two rows, paired over the seeds of both."""
    scores = {(run.row, run.seed): run.scores for run in runs}
    lines = []
    for what, sides in COMPONENTS.items():
        seeds = sorted({seed for _, seed in scores if all((row, seed) in scores for side in sides for row in side)})
        gains: dict[str, list[float]] = {key: [] for key in GAINS}
        for seed, key in itertools.product(seeds, GAINS):
            rows, without = (statistics.mean(scores[row, seed][key] for row in side) for side in sides)
            gains[key].append(rows - without)
        test = ttest_1samp(gains['hIoU'], 0)
        low, high = test.confidence_interval(0.95)
        means = [f'{statistics.mean(values):+.1f} ± {statistics.stdev(values):.1f}' for values in gains.values()]
        up = sum(gain > 0 for gain in gains['hIoU'])
        lines.append([what, *means, f'[{low:+.1f}, {high:+.1f}]', f'{test.pvalue:.2g}', f'{up} of {len(seeds)}'])
    return pipe_table(['', *(f'Δ {TITLES[key]}' for key in GAINS), '95 %', 'p (hIoU)', 'seeds up'], lines)


def paper_table(published: Published) -> str:
    """Format the paper's GZS3 results as a Markdown table, one line per dataset."""
    rows = [row for row in published.rows if row['method'] == 'AlignZeg' and 'variant' not in row]
    lines = [
        [published.splits[row['split']]['name'], *(f'{row[key]:.1f}' for key in TITLES), row['source']]
        for row in rows
        if published.splits[row['split']]['task'] == 'GZS3'
    ]
    return pipe_table(['paper', *TITLES.values(), 'source'], lines)


def split_table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Return a Markdown table of results: the method, the named fields, and the source."""
    lines = [[row['method'], *(str(row.get(key, '-')) for key in columns), source_of(row)] for row in rows]
    return pipe_table(['method', *(SHORT.get(key, key) for key in columns), 'source'], lines)


def page(published: Published) -> str:
    """Return the text of ``docs/published_results.md``."""
    parts = [HEAD]
    for key, split in published.splits.items():
        rows = [row for row in published.rows if row['split'] == key and 'variant' not in row]
        if split['task'] != 'cross-dataset':
            scores = [name for name in KEYS if any(name in row for row in rows)]
            parts.append(f'## {split["task"]}: {split["name"]}\n\n{split_table(rows, [*ABOUT, *scores])}')
    parts.append(f'## Cross-dataset\n\n{CROSS}\n\n{cross_table(published)}')
    variants = [row for row in published.rows if 'variant' in row]
    scores = [name for name in KEYS if any(name in row for row in variants)]
    parts.append(f"## The paper's ablations\n\n{split_table(variants, ['variant', 'split', *scores])}")
    return '\n'.join(parts)


def cross_table(published: Published) -> str:
    """Return the cross-dataset results, one line per method."""
    splits = {key: split['name'] for key, split in published.splits.items() if split['task'] == 'cross-dataset'}
    lines: dict[str, dict[str, Row]] = {}
    for row in published.rows:
        if row['split'] in splits and 'variant' not in row:
            lines.setdefault(row['method'], {})[row['split']] = row
    table = []
    for method, found in lines.items():
        first = next(iter(found.values()))
        scores = [str(found[key]['mIoU']) if key in found else '-' for key in splits]
        about = [str(first.get(key, '-')) for key in ('year', 'venue', 'backbone', 'calibration')]
        sources = dict.fromkeys(row['source'] for row in found.values())
        notes = dict.fromkeys(row['note'] for row in found.values() if 'note' in row)
        table.append([method, *about, *scores, '; '.join([*sources, *notes])])
    return pipe_table(['method', 'year', 'venue', 'backbone', 'calibration', *splits.values(), 'source'], table)


def with_tables(text: str, tables: Mapping[str, str]) -> str:
    """Replace the marked tables in a Markdown text.

    Args:
        text: The text.
        tables: Markdown tables by the path in their mark.
    """
    for path, table in tables.items():
        mark = re.compile(rf'(<!-- {re.escape(path)} -->\n).*?(<!-- end -->)', re.DOTALL)
        text = mark.sub(lambda found, table=table: found[1] + table + found[2], text)  # type: ignore[misc]
    return text


def with_results(metafile: str, rows: Mapping[str, Row]) -> str:
    """Set the results of the configs in a metafile; configs without a row get none.

    Args:
        metafile: YAML.
        rows: Rows by config.
    """
    index = yaml.safe_load(metafile)
    for model in index['Models']:
        model.pop('Results', None)
        if row := rows.get(model['Config']):
            metrics = {key: round(row[f'{key}_mean'], 1) for key in TITLES}
            task = 'Zero-Shot Semantic Segmentation'
            model['Results'] = [{'Task': task, 'Dataset': 'Patterns', 'Metrics': metrics}]
    return HEADER + yaml.safe_dump(index, sort_keys=False, allow_unicode=True)


def published() -> dict[Path, str]:
    """Return the expected content of every file."""
    times, paths = sorted(RESULTS.glob('speed*.csv')), sorted(RESULTS.glob('*.csv'))
    tables = {path: table_rows(read_runs(path), reference=REFERENCE) for path in paths if path not in times}
    rows = {row['config']: row for table in tables.values() for row in table if not of_a_sweep(row['row'])}
    for config, row in list(rows.items()):
        cfg = Config.fromfile(config)
        if 'trained_by' in cfg and Config.fromfile(cfg.trained_by).model == cfg.model:  # the same model
            rows.setdefault(cfg.trained_by, row)
    others = read_published(PUBLISHED)
    drawn = {path.as_posix(): markdown(table) for path, table in tables.items()}
    drawn |= {path.as_posix(): speed.markdown(speed.read(path)) for path in times}
    if TABLE4 in tables:
        drawn[f'{TABLE4.as_posix()} by component'] = component_table(read_runs(TABLE4))
    drawn[PUBLISHED.as_posix()] = paper_table(others)
    texts = {path: with_tables(path.read_text(encoding='utf-8'), drawn) for path in TEXTS}
    texts[PAGE] = page(others)
    for config in rows:
        path = next(folder / 'metafile.yml' for folder in Path(config).parents if (folder / 'metafile.yml').is_file())
        texts[path] = with_results(path.read_text(encoding='utf-8'), rows)
    return texts


def main() -> int:
    """Write the files, or compare them with ``--check``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='write nothing; exit with 1 if a file would change')
    args = parser.parse_args()
    files = published().items()
    changed = {path: text for path, text in files if not path.is_file() or text != path.read_text(encoding='utf-8')}
    for path, text in changed.items():
        print(path)
        if not args.check:
            write_text(path, text)
    return int(args.check and bool(changed))


if __name__ == '__main__':
    sys.exit(main())
