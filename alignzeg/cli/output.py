"""Output of the commands: results on stdout, messages on stderr, one line each whatever a file name contains."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress


def printable(text: str) -> str:
    """Escape what could control a terminal, as the library does; it is imported only for text that may need it."""
    if text.isprintable():
        return text
    from mmseg_alignzeg.printable import printable as escaped

    return escaped(text)


class Parser(argparse.ArgumentParser):
    """An argument parser whose error messages are escaped, because they may quote file names."""

    def error(self, message: str) -> NoReturn:
        """Print the escaped message and exit, as argparse does."""
        super().error(printable(message))


def complain(message: str) -> None:
    """Write a message to stderr, as one line."""
    write(f'alignzeg: {" ".join(message.split())}', sys.stderr)


def write(line: str, stream: TextIO) -> None:
    """Write a line and flush it. Control characters, and those that the stream cannot encode, are escaped."""
    encoding = getattr(stream, 'encoding', None) or 'utf-8'
    print(printable(line).encode(encoding, 'backslashreplace').decode(encoding), file=stream, flush=True)


def writer(args: argparse.Namespace, progress: Progress) -> Callable[[str], None]:
    """Return the function that writes result lines to the real stdout, above the progress bar on a terminal."""
    if args.stdout.isatty() and not progress.disable:
        show = partial(progress.console.print, markup=False, highlight=False, emoji=False, soft_wrap=True)
        return lambda line: show(printable(line))
    return lambda line: write(line, args.stdout)
