"""The work of `alignzeg bench`: many configs and seeds, and one table of mean ± std beside the paper's results."""

from __future__ import annotations

import argparse
import signal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .bench import Bench, device_groups
from .plan import Trial, check_unchanged, plan, work_folder
from .published import beside, read_published
from .shipped import shipped
from .sweep import read_sweep
from .table import finished_runs, markdown, table_rows, write_tables

PUBLISHED, SWEEPS = 'configs/published_results.yml', 'configs/ablations/sweeps.yml'


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


def bench(args: argparse.Namespace, console: Console) -> int:
    """Train and test what has no result yet, print the table, and return the exit code.

    Raises:
        OSError: If a config or a file is missing.
        ValueError: If an argument or a config is invalid, or a config has changed since its results.
    """
    root = args.work_dir.resolve()
    sweep = read_sweep(shipped(SWEEPS), args.sweep) if args.sweep else None
    trials = plan(args.folder, dict.fromkeys(args.seeds), root, args.cfg_options, sweep)
    rows = list(dict.fromkeys(trial.row for trial in trials))
    if args.compare_with not in (None, *rows):
        raise ValueError(f'--compare-with {args.compare_with!r} is not a row; available rows: {rows}.')
    check_unchanged(trials)
    published = read_published(shipped(PUBLISHED))
    devices = device_groups(args.jobs, args.gpus_per_run)
    if sweep:
        console.print(f'{sweep.name}: {sweep.varies}', markup=False, highlight=False, soft_wrap=True)
    paper = published.paper()
    for line in batch_warnings(trials, max(1, len(devices[0])), paper):
        console.print(line, style='yellow', highlight=False, soft_wrap=True)
    columns = [TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn()]
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        bench = Bench(devices, progress)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` ends all runs, as Ctrl-C does
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
