"""What commands say: results on stdout, all else on stderr, each in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress


def complain(message: str) -> None:
    """Write one line to stderr."""
    write(f'alignzeg: {" ".join(message.split())}', sys.stderr)


def write(line: str, stream: TextIO) -> None:
    """Write a line at once; characters that the stream cannot encode are escaped, not an error."""
    encoding = getattr(stream, 'encoding', None) or 'utf-8'
    print(line.encode(encoding, 'backslashreplace').decode(encoding), file=stream, flush=True)


def writer(args: argparse.Namespace, progress: Progress) -> Callable[[str], None]:
    """What writes result lines to the real stdout, and above the progress bar where both are one terminal."""
    if args.stdout.isatty() and not progress.disable:
        return lambda line: progress.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
    return lambda line: write(line, args.stdout)
