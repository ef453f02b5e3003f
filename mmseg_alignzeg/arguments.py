"""Types of command-line arguments that the tools share."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """A number of at least 1.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'expected a number of at least 1, got {text!r}')
    return int(text)
