"""Files that are there whole or not at all, and the folder of what was computed once."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(target: Path, flush: bool = True) -> Iterator[Path]:
    """Lend a path beside ``target``: what was written there becomes ``target`` at the end, and vanishes on an error.

    Args:
        target: Replaced if it exists; its folder is made if need be.
        flush: Wait until the file is on the disk before it takes the place of the old one, so that it is whole after a
            power cut too. False is for many small files that are quickly made again.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f'{target.name}.{os.getpid()}.{secrets.token_hex(4)}.part')  # containers share numbers
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
    """Write a text file, in UTF-8, whole or not at all."""
    with whole_file(target) as part:
        part.write_text(text, encoding='utf-8', newline='')


def _flush(path: Path) -> None:
    """Write what the system still holds of a file, or of the names in a folder, to the disk."""
    if os.name == 'nt':  # which opens no folders, and flushes no file that was opened for reading
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot flush a folder
            raise
    finally:
        os.close(descriptor)


def cache_folder() -> Path:
    """``$MMSEG_ALIGNZEG_CACHE`` or ``~/.cache/mmseg_alignzeg``."""
    return Path(os.environ.get('MMSEG_ALIGNZEG_CACHE', '~/.cache/mmseg_alignzeg')).expanduser()
