"""``alignzeg analyze``: scores over γ, calibrated stacking, oracle classes and more, from one pass over a test set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .options import add_command, add_overrides, existing, load_library, positive, read_config

GAMMAS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
CONSTANTS = [0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8]
DETAILS = """
Runs a model once over its test set. All analyses use its proposals, without further forward passes: the scores over γ
(figure 6 of the paper), calibrated stacking with and without PBC, the scores with oracle classes (table 6), mask
quality, how well φ_bc separates unseen from seen classes, and the predictions for unseen classes. DIR gets report.html,
analysis.json, curves.csv and proposals.npz; with --from DIR/proposals.npz, other γ and constants need no model.
"""
EXAMPLES = """
alignzeg analyze configs/alignzeg_patterns.py work_dirs/demo/iter_1000.pth
alignzeg analyze config.py iter_80000.pth --from analysis/proposals.npz --gammas 0.25 0.3 0.35 --out finer
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, 'analyze', 'analyse a checkpoint in one pass over its test set', DETAILS, EXAMPLES)
    parser.set_defaults(run=run)
    parser.add_argument('config', type=existing, metavar='CONFIG')
    parser.add_argument('checkpoint', type=existing, metavar='CHECKPOINT')
    parser.add_argument('--out', type=Path, metavar='DIR', help='default: analysis/ beside the checkpoint')
    parser.add_argument(
        '--gammas',
        type=float,
        nargs='+',
        default=GAMMAS,
        metavar='G',
        help='γ of the curve of PBC (default: %(default)s)',
    )
    parser.add_argument(
        '--constants', type=float, nargs='+', default=CONSTANTS, metavar='C', help='of stacking (default: %(default)s)'
    )
    parser.add_argument('--limit', type=positive, metavar='N', help='only the first N test images')
    parser.add_argument('--batch-size', type=positive, help='default: as in `mim test`, which gives identical scores')
    parser.add_argument(
        '--from',
        dest='source',
        type=existing,
        metavar='FILE',
        help='read proposals of the same CONFIG and CHECKPOINT, without the model',
    )
    parser.add_argument('--no-proposals', dest='save_proposals', action='store_false', help='write no proposals.npz')
    add_overrides(parser)


def run(args: argparse.Namespace) -> int:
    """Analyse and return the exit code."""
    load_library()
    from rich.console import Console

    from ..analysis.command import analyse

    args.out = args.out or args.checkpoint.parent / 'analysis'
    cfg = read_config(args.config, args.cfg_options)
    try:
        analyse(cfg, args, Console(file=args.stdout))
    except TypeError as error:  # an override of a part that the config lacks
        raise ValueError(error) from error
    return 0
