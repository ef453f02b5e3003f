"""``alignzeg bench``: configs over seeds, in one table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .options import add_command, add_overrides, existing, load_library, parsed_overrides, positive

DETAILS = """
Trains and tests a config, or all configs of a folder, over several seeds, and writes one table: mean ± std, with the
paper's results. A config with `trained_by = 'configs/OTHER.py'` is tested with the checkpoint of that config; all
others train their own. --sweep NAME gives one row per value of a setting, as defined in configs/ablations/sweeps.yml.
Existing results are reused, and interrupted trainings are resumed.
"""
EXAMPLES = """
alignzeg bench configs/ablations/patterns/table4 --seeds 0 1 2 --compare-with baseline
alignzeg bench configs/alignzeg_patterns.py --sweep gamma
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, 'bench', 'train and test configs over several seeds', DETAILS, EXAMPLES)
    parser.set_defaults(run=run)
    parser.add_argument(
        'folder', type=existing, metavar='FOLDER', help='folder of configs, or one config, below configs'
    )
    parser.add_argument('--sweep', metavar='NAME', help='a setting to vary, such as gamma')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='seeds of the trainings (default: 0)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/benchmark'), help='(default: %(default)s)')
    parser.add_argument('--jobs', type=positive, help='concurrent runs (default: as many as the GPUs allow, else 1)')
    parser.add_argument('--gpus-per-run', type=positive, default=1, help='the full-size configs are made for 8')
    parser.add_argument('--compare-with', metavar='ROW', help='reference row of the paired t-tests')
    add_overrides(parser)


def run(args: argparse.Namespace) -> int:
    """Run the benchmark and return the exit code."""
    load_library()
    from rich.console import Console

    from ..benchmark.command import bench

    args.cfg_options = parsed_overrides(args.cfg_options)
    return bench(args, Console(file=args.stdout))
