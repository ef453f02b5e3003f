"""Atomic file writes, and the cache folder."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(target: Path, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``target``, which replaces ``target`` at the end and is deleted on an error.

    Args:
        target: Replaced if it exists; its folder is created if necessary.
        flush: Flush the file to the disk before it replaces the old one, so that it is complete even after a power
            failure. Pass False for many small files that can be recreated quickly.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f'{target.name}.{os.getpid()}.{secrets.token_hex(4)}.part')  # containers share process ids
    try:
        yield part
        if flush:
            _flush(part)
        os.replace(part, target)
        if flush:
            _flush(target.parent)
    finally:
        part.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    with whole_file(target) as part:
        part.write_text(text, encoding='utf-8', newline='')


def _flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    if os.name == 'nt':  # Windows cannot open folders, or flush files opened for reading
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # the file system cannot flush folders
            raise
    finally:
        os.close(descriptor)


def cache_folder() -> Path:
    """Return ``$MMSEG_ALIGNZEG_CACHE`` or ``~/.cache/mmseg_alignzeg``."""
    return Path(os.environ.get('MMSEG_ALIGNZEG_CACHE', '~/.cache/mmseg_alignzeg')).expanduser()
