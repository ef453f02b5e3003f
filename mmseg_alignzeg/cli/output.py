"""What commands say: results on stdout, all else on stderr, each in one line that no file name can break."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TextIO

from ..printable import printable

if TYPE_CHECKING:
    from rich.progress import Progress


class Parser(argparse.ArgumentParser):
    """Its errors quote arguments, which a shell may have made of file names."""

    def error(self, message: str) -> NoReturn:
        """As of argparse."""
        super().error(printable(message))


def complain(message: str) -> None:
    """Write one line to stderr."""
    write(f'alignzeg: {" ".join(message.split())}', sys.stderr)


def write(line: str, stream: TextIO) -> None:
    """Write a line at once; control characters, and those that the stream cannot encode, are escaped."""
    encoding = getattr(stream, 'encoding', None) or 'utf-8'
    print(printable(line).encode(encoding, 'backslashreplace').decode(encoding), file=stream, flush=True)


def writer(args: argparse.Namespace, progress: Progress) -> Callable[[str], None]:
    """What writes result lines to the real stdout, and above the progress bar where both are one terminal."""
    if args.stdout.isatty() and not progress.disable:
        show = partial(progress.console.print, markup=False, highlight=False, emoji=False, soft_wrap=True)
        return lambda line: show(printable(line))
    return lambda line: write(line, args.stdout)
