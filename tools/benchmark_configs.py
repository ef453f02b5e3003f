"""Train and test a folder of configs over several seeds, and write one table: mean ± std, with the paper's results.

A config with ``trained_by = 'configs/OTHER.py'`` is tested with the checkpoint of that config; all others train their
own. ``--sweep NAME`` gives one row per value of a setting, as defined in configs/ablations/sweeps.yml. Existing results
are reused, and interrupted trainings are resumed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmengine.config import DictAction
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from alignzeg.benchmark.bench import Bench, device_groups
from alignzeg.benchmark.plan import Trial, check_unchanged, plan, work_folder
from alignzeg.benchmark.published import beside, read_published
from alignzeg.benchmark.sweep import read_sweep
from alignzeg.benchmark.table import finished_runs, markdown, table_rows, write_tables
from alignzeg.cli.options import positive
from mmseg_alignzeg.printable import printable

PUBLISHED = Path('configs/published_results.yml')
SWEEPS = Path('configs/ablations/sweeps.yml')


def batch_warnings(trials: list[Trial], gpus: int, paper: dict) -> list[str]:
    """Return a warning per config whose batch size differs from its schedule's, for configs with a row in the paper."""
    lines = {}
    for trial in trials:
        cfg = trial.train.load()
        meant = cfg.get('auto_scale_lr', {}).get('base_batch_size')
        batch = cfg.train_dataloader.batch_size * gpus * cfg.optim_wrapper.get('accumulative_counts', 1)
        if str(trial.config) in paper and meant and batch != meant:
            lines[trial.train.config] = (
                f'{trial.train.config} trains with batch size {batch}, the paper with {meant}: '
                'set --gpus-per-run, or train_dataloader.batch_size.'
            )
    return list(lines.values())


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='folder of configs, or one config')
    parser.add_argument('--sweep', metavar='NAME', help=f'a setting to vary, such as gamma; see {SWEEPS}')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/benchmark'))
    parser.add_argument('--jobs', type=positive, help='concurrent runs (default: as many as the GPUs allow, else 1)')
    parser.add_argument('--gpus-per-run', type=positive, default=1, help='the full-size configs are made for 8')
    parser.add_argument('--compare-with', metavar='ROW', help='reference row of the paired t-tests')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, help='overrides for all runs')
    args = parser.parse_args()
    console = Console()
    try:
        root = args.work_dir.resolve()
        sweep = read_sweep(SWEEPS, args.sweep) if args.sweep else None
        trials = plan(args.folder, dict.fromkeys(args.seeds), root, args.cfg_options, sweep)
        rows = list(dict.fromkeys(trial.row for trial in trials))
        if args.compare_with not in (None, *rows):
            raise ValueError(f'--compare-with {args.compare_with!r} is not a row; available rows: {rows}.')
        check_unchanged(trials)
        published = read_published(PUBLISHED)
        devices = device_groups(args.jobs, args.gpus_per_run)
    except (FileNotFoundError, ValueError) as error:
        message = printable(f'{type(error).__name__}: {error}')
        console.print(message, style='red', markup=False, highlight=False, soft_wrap=True)
        return 2
    if sweep:
        console.print(f'{sweep.name}: {sweep.varies}', markup=False, highlight=False, soft_wrap=True)
    paper = published.paper()
    for line in batch_warnings(trials, max(1, len(devices[0])), paper):
        console.print(line, style='yellow', highlight=False, soft_wrap=True)
    columns = [TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn()]
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        bench = Bench(devices, progress)
        try:
            bench.run(trials)
        except KeyboardInterrupt:
            console.print('Stopped. Repeat the command to continue.')
            return 130
    folder = root / work_folder(args.folder) / (sweep.name if sweep else '')
    runs = finished_runs(trials)
    if table := table_rows(runs, paper, args.compare_with):
        others = beside(published, table, {trial.row: trial.test.load() for trial in trials})
        write_tables(table, runs, folder, others)
        console.print(markdown(table), others, sep='\n', markup=False, soft_wrap=True, highlight=False)
        console.print(f'{folder}/table.md, {folder}/runs.csv', soft_wrap=True)
    return 1 if bench.failures else 0


if __name__ == '__main__':
    sys.exit(main())
