"""The command line, ``alignzeg COMMAND``, or ``python -m alignzeg COMMAND``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

from . import analyze, bench, check, clip, convert, demo, doctor, export, predict, speed, table, web
from .output import Parser, complain

COMMANDS = (predict, demo, web, export, doctor, check, convert, analyze, bench, table, speed, clip)
EXIT_CODES = """\
exit codes:
  0    done
  1    partly done: some files, rows or runs failed, or `doctor` or `check` found a problem
  2    nothing done: an argument or a file is wrong
  130  stopped with Ctrl-C; what was finished is kept
"""
OPTIONS = {
    'pbc=False': '--no-pbc',
    'set others=False': 'leave out --others',
    "device='cpu'": '--device cpu',
    '`clip_weights`': '--clip-weights',
}


class ShowVersion(argparse.Action):
    """Print the installed version; the metadata are read only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print and exit, as argparse's own action does."""
        from importlib.metadata import version

        print(f'mmseg_alignzeg {version("mmseg_alignzeg")}')
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each puts its function into ``run``."""
    parser = Parser(
        prog='alignzeg',
        description='Segment images into classes given by name: zero-shot semantic segmentation with AlignZeg.',
        epilog=f'`alignzeg COMMAND --help` explains a command and shows examples.\n\n{EXIT_CODES}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action=ShowVersion, nargs=0, help="show program's version number and exit")
    commands = parser.add_subparsers(metavar='COMMAND', required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code.

    Args:
        arguments: Those of the command line if None.
    """
    try:
        args = build_parser().parse_args(arguments)
        args.stdout = sys.stdout
        with redirect_stdout(sys.stderr):  # libraries log to stdout, where only results belong
            return args.run(args)
    except KeyboardInterrupt:
        complain('stopped.')
        return 130
    except (ValueError, OSError, ImportError) as error:
        complain(f'error: {in_options(str(error))}')
        return 2
    except RuntimeError as error:
        if type(error).__name__ != 'OutOfMemoryError':  # of torch, which is not imported for this
            raise
        complain(f'error: the GPU has too little memory ({str(error).splitlines()[0]}): pass --device cpu.')
        return 2


def in_options(message: str) -> str:
    """Return a message of the library with options of the command line in place of Python arguments."""
    for argument, option in OPTIONS.items():
        message = message.replace(argument, option)
    return message
