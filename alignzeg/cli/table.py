"""``alignzeg table``: a folder of results as one table for a paper."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .options import add_command

DETAILS = """
Reads every runs.csv that alignzeg bench wrote below FOLDER and prints one table: pAcc, seen (S),
unseen (U) and h per dataset, or mIoU without h; mean ± standard deviation over seeds, best in bold, and a
note about significance.
"""
EXAMPLES = """
alignzeg table work_dirs/benchmark/ablations/msrc/table4
alignzeg table work_dirs/benchmark --format latex --compare-with baseline > table.tex
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, 'table', 'turn a folder of results into a table for a paper', DETAILS, EXAMPLES)
    parser.set_defaults(run=run)
    parser.add_argument('folder', type=Path, metavar='FOLDER', help='folder with runs.csv files, or one CSV file')
    parser.add_argument('--format', choices=('markdown', 'latex'), default='markdown', help='default: markdown')
    parser.add_argument(
        '--compare-with', metavar='ROW', help='reference of the t-tests (default: `baseline`, if there is such a row)'
    )


def run(args: argparse.Namespace) -> int:
    """Print the table and return the exit code."""
    if not args.folder.exists():
        raise FileNotFoundError(f'{args.folder} does not exist: give a folder with results of `alignzeg bench`.')
    from ..benchmark.paper_table import paper_table, read_folder

    table = paper_table(read_folder(args.folder), args.compare_with)
    args.stdout.write(table.latex() if args.format == 'latex' else table.markdown())
    return 0
