"""``alignzeg check``: what a config needs, and its data, before a training."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from .options import add_command, add_overrides, existing, positive, read_config
from .output import complain, printable, write

SPLITS = ('train', 'val', 'test')
DETAILS = """
Says what is missing (CLIP's weights, a GPU that the config asks for, data), then opens every image and label map:
counts, missing and broken files, label values, the share of each class. Nothing is downloaded; if weights are not in
the cache, one request finds out whether the model hub answers.

The exit code is 0 if no problem was found, 1 if problems are listed, and 2 if the data could not be checked.
"""
EXAMPLES = """
alignzeg check configs/alignzeg_voc.py
alignzeg check street.py --split train --limit 200 --json street_problems.json
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, 'check', 'check the data and needs of a config before a training', DETAILS, EXAMPLES)
    parser.set_defaults(run=run)
    parser.add_argument('config', type=existing, metavar='CONFIG', help='a config (.py)')
    parser.add_argument('--split', nargs='+', choices=SPLITS, help='splits to check (default: all in the config)')
    parser.add_argument('--limit', type=positive, help='maximum number of images to open per split, evenly spaced')
    parser.add_argument('--workers', type=positive, default=os.cpu_count() or 1, help='processes (default: all cores)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all findings to this file')
    add_overrides(parser)


def run(args: argparse.Namespace) -> int:
    """Check, print and return the exit code."""
    from .options import load_library

    load_library()
    from mmengine.registry import init_default_scope
    from rich.console import Console
    from rich.progress import Progress

    from mmseg_alignzeg.datasets.validation.configs import check_config, trained_vocabulary
    from mmseg_alignzeg.engine.missing_parts import missing_data, missing_gpu, missing_weights
    from mmseg_alignzeg.files import write_text

    from .check_tables import bar_of, show

    cfg = read_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    own = SPLITS[1:] if cfg.get('trained_by') else SPLITS  # such a config tests the checkpoint of another one
    splits = args.split or [name for name in own if cfg.get(f'{name}_dataloader')]
    absent = [name for name in splits if not cfg.get(f'{name}_dataloader')]
    if absent or not splits:
        raise ValueError(f'The config {args.config} has no data for: {", ".join(absent or SPLITS)}.')
    model = cfg.get('model') or {}
    vocabulary = trained_vocabulary(model)
    lacking, no_data = list(filter(None, (missing_weights(model), missing_gpu(cfg)))), missing_data(cfg, splits)
    for line in (*lacking, *no_data):
        write(f'problem: {printable(" ".join(line.split()))}', args.stdout)
    if no_data:
        complain('the data cannot be checked until they are there.')
        return 2
    try:
        with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
            reports = check_config(cfg, splits, args.limit, args.workers, bar_of(progress))
    except RuntimeError as error:
        raise ValueError(error) from error
    show(Console(file=args.stdout), reports, vocabulary.seen_classes if vocabulary else None, missing=len(lacking))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        write_text(args.json, json.dumps({name: r.to_dict() for name, r in reports.items()}, indent=2) + '\n')
    return int(bool(lacking) or any(report.problems for report in reports.values()))
