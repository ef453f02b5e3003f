"""What `alignzeg predict` refuses before the library is imported, which takes seconds."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence
from glob import glob
from pathlib import Path

from .result_files import CLASSES, FILM, SUFFIXES
from .videos import check_formats, is_video

SHOWN = 3  # names in a message


def check_inputs(args: argparse.Namespace, alone: bool = True) -> None:
    """Expand patterns in ``args.images``, and refuse missing pictures and existing results.

    This is the part that needs no library: the names of results that this check cannot know are checked later.

    Args:
        args: The command line.
        alone: Whether this is the only process; others may have written some of the results by now.

    Raises:
        FileNotFoundError: If none of the pictures exists.
        ValueError: If ``--out`` is a file, results exist without ``--overwrite`` or ``--skip-done``, or a video cannot
            be written in the formats.
    """
    args.images = expand(args.images)
    if not any(map(os.path.exists, args.images)):
        told = abridged([repr(name) for name in args.images])
        verb = 'do' if len(args.images) > 1 else 'does'
        raise FileNotFoundError(f'{told} {verb} not exist: give the path of an image or a folder, or a pattern.')
    check_formats(args.save, list(filter(is_video, args.images)))
    if os.path.exists(args.out) and not os.path.isdir(args.out):
        raise ValueError(f'--out {args.out} is a file: pass a folder, new or existing.')
    if args.overwrite or args.skip_done or not alone or not os.path.isdir(args.out):
        return
    existing = sorted(set(os.listdir(args.out)).intersection(expected(args.images, args.out, args.save)))
    if existing:
        told = abridged([os.path.join(args.out, name) for name in existing])
        verb = 'exist' if len(existing) > 1 else 'exists'
        raise ValueError(f'{told} {verb} already: pass --overwrite, --skip-done or another --out.')


def expand(given: Sequence[str]) -> list[str]:
    """Replace each pattern (``*``, ``?``, ``[…]``) that is not the name of a file by the sorted files that it matches.

    A pattern without any match stays, so that an error message can name it.
    """
    return [name for item in given for name in ([item] if os.path.exists(item) else sorted(glob(item)) or [item])]


def expected(given: Sequence[str], out: Path, kinds: Iterable[str]) -> Iterator[str]:
    """Yield the names of files in ``out`` that results of these pictures would replace, as far as names tell."""
    stems = set()
    for item in given:
        folder = os.path.isdir(item)
        stems |= {Path(name).stem for name in (os.listdir(item) if folder else [item])}
    endings = [SUFFIXES[kind] for kind in kinds] + ([FILM] if any(map(is_video, given)) else [])
    yield from [CLASSES] if SUFFIXES['png'] in endings else []
    for name in os.listdir(out):
        if any(name.endswith(ending) and name.removesuffix(ending) in stems for ending in endings):
            yield name


def abridged(names: Sequence[str]) -> str:
    """Format the first of several names, with the number of the others."""
    more = f' (and {len(names) - SHOWN:,} more)' if len(names) > SHOWN else ''
    return f'{", ".join(names[:SHOWN])}{more}'
