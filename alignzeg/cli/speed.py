"""``alignzeg speed``: time and memory beside mmseg's SAN."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from .options import add_command, positive
from .output import write as write_line

NOTE = 'Random CLIP weights: only times and memory have a meaning; no score is computed.'


DETAILS = """
Measures AlignZeg and mmseg's SAN on the same inputs, in one run, on one thread by default. Weights are random and all
classes count as seen, so that PBC gives all of them the same score, which is the worst case of a prediction. Rows with
trained masks, and those that are too large for SAN, have AlignZeg alone. Row by row, a new process measures the peak
memory of each model, and then their steps are timed in turn; long steps are timed in that process. The table shows
medians, minima and maxima.

--out writes a CSV file. To publish it, copy it to docs/results/speed.csv (or speed_NAME.csv) and run
tools/publish_results.py, which writes its table to the README.
"""
EXAMPLES = """
alignzeg speed --rows predict train --budget 10
alignzeg speed --device cuda --out work_dirs/bench/speed_gpu.csv
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, 'speed', "measure time and memory beside mmseg's SAN", DETAILS, EXAMPLES)
    parser.set_defaults(run=run)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu', help='(default: cpu)')
    parser.add_argument('--rows', nargs='+', metavar='ROW', help='some rows instead of all; a wrong name lists them')
    parser.add_argument('--quick', action='store_true', help='measure every step once, to see that all rows work')
    parser.add_argument('--budget', type=positive, default=20, help='seconds of timed steps per row (default: 20)')
    parser.add_argument('--memory-limit', type=positive, default=12, help='GB per model on a CPU (default: 12)')
    parser.add_argument('--threads', type=positive, default=1, help='(default: 1)')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/bench/speed.csv'), help='(default: %(default)s)')


def run(args: argparse.Namespace) -> int:
    """Measure the rows, print the table, write the file, and return the exit code."""
    from ..benchmark.speed.rows import choose

    rows = choose(args.device, args.rows)
    write_line(NOTE, args.stdout)
    os.environ.update(OMP_NUM_THREADS=str(args.threads), MKL_NUM_THREADS=str(args.threads))  # before torch is imported

    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ..benchmark.speed.measure import Settings, run
    from ..benchmark.speed.table import markdown, write

    if args.device == 'cuda' and not torch.cuda.is_available():
        raise ValueError('--device cuda needs a GPU, and torch sees none: leave it out, or check nvidia-smi.')
    cpu = f'CPU with {torch.backends.cpu.get_cpu_capability()}, threads: {args.threads}'
    setup = f'{torch.cuda.get_device_name() if args.device == "cuda" else cpu}, torch {torch.__version__}'
    settings = Settings(args.device, 0 if args.quick else args.budget, args.memory_limit, setup)
    results, incomplete = [], False
    console = Console(file=args.stdout)
    columns = [TextColumn('{task.description}', markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, console=console) as progress:
        task = progress.add_task('', total=len(rows))
        for row in rows:
            progress.update(task, description=row.title)
            found, failures = run(row, settings)
            for line in failures:
                console.print(line, style='yellow', markup=False, highlight=False, soft_wrap=True)
            for result in found:
                console.print('  '.join(result.cells()), markup=False, highlight=False, soft_wrap=True)
            results += found
            incomplete |= not found or not all(result.values.get('alignzeg') for result in found)
            write(results, args.out)  # after each row, so that an interrupted run leaves what it measured
            progress.advance(task)
    args.stdout.write(f'\n{markdown(results)}\n{args.out}\n')
    return int(incomplete)
