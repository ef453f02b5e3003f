"""Train and test a folder of configs over several seeds, and write one table: mean ± std, beside the paper's figures.

A config that says ``trained_by = 'configs/OTHER.py'`` is tested with the checkpoint of that config; the others train
their own. ``sweep = dict(key='model.bias_correction.gamma', values=[...])`` makes one row per value. What is done
already is read back, and a training that was cut off goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml
from mmengine.config import DictAction
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mmseg_alignzeg.benchmark.plan import check_unchanged, plan
from mmseg_alignzeg.benchmark.run import Bench, device_groups
from mmseg_alignzeg.benchmark.table import markdown, table_rows, write_tables

PAPER = Path('configs/paper_results.yml')


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='folder of configs, or one config')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/benchmark'))
    parser.add_argument('--jobs', type=int, help='runs at the same time (default: as the GPUs allow, else 1)')
    parser.add_argument('--gpus-per-run', type=int, default=1)
    parser.add_argument('--compare-with', metavar='ROW', help='row to compare the others with, by a paired t-test')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, help='overrides for all runs')
    args = parser.parse_args()
    console = Console()
    try:
        root = args.work_dir.resolve()
        trials = plan(args.folder, dict.fromkeys(args.seeds), root, args.cfg_options)
        check_unchanged(trials)
        devices = device_groups(args.jobs, args.gpus_per_run)
    except (FileNotFoundError, ValueError) as error:
        console.print(f'{type(error).__name__}: {error}', style='red', highlight=False, soft_wrap=True)
        return 2
    columns = [TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn()]
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        bench = Bench(devices, progress)
        bench.run(trials)
    try:
        rows = table_rows(trials, yaml.safe_load(PAPER.read_text()), args.compare_with)
    except ValueError as error:
        console.print(str(error), style='red', highlight=False, soft_wrap=True)
        return 2
    folder = root / args.folder.resolve().relative_to(Path('configs').resolve()).with_suffix('')
    if rows:
        write_tables(rows, folder)
        console.print(markdown(rows), soft_wrap=True, highlight=False)
        console.print(f'{folder}/table.md, {folder}/table.csv', soft_wrap=True)
    return 1 if bench.failures else 0


if __name__ == '__main__':
    sys.exit(main())
