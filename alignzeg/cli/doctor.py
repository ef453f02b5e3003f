"""``alignzeg doctor``: check the installation, and explain how to fix it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from .options import add_command
from .output import write

DETAILS = """
Checks the installation without a network, and changes nothing but its own cache: versions, MMCV's compiled operators,
GPUs, CLIP's weights, the included model (which segments one picture), caches and disk space. Each line is `ok`, a
`note` (something optional is missing) or a `PROBLEM`, with a way to fix it. The exit code is 1 if there is a problem.
"""
EXAMPLES = """
alignzeg doctor
alignzeg doctor --json > doctor.json
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, 'doctor', 'check the installation and explain how to fix it', DETAILS, EXAMPLES)
    parser.set_defaults(run=run)
    parser.add_argument('--json', action='store_true', help='{"problems": N, "checks": [{name, status, found, fix}]}')


def run(args: argparse.Namespace) -> int:
    """Run and print all checks, and return the exit code."""
    from .checks import all_checks

    checks = []
    for check in all_checks():
        checks.append(check)
        if not args.json:
            write(f'{check.status:7}  {check.name:26}  {check.found}', args.stdout)
            if check.fix:
                write(f'{"":7}  {"":26}  -> {check.fix}', args.stdout)
    problems = sum(check.status == 'PROBLEM' for check in checks)
    if args.json:
        report = {'problems': problems, 'checks': [asdict(check) for check in checks]}
        for row in json.dumps(report, indent=2).splitlines():
            write(row, args.stdout)
    else:
        write(f'{problems} problem(s) found.' if problems else 'Everything that is needed works.', args.stdout)
    return int(problems > 0)
