"""One training at a time in a work_dir."""

from __future__ import annotations

import errno
import os
import platform
from datetime import datetime
from pathlib import Path
from typing import IO

from mmengine.logging import print_log

try:
    import fcntl
except ImportError:  # Windows: MMEngine trains there, and two trainings in one folder are not noticed
    fcntl = None  # type: ignore[assignment]

NAME = 'training.lock'
_held: dict[tuple[int, Path], IO[str]] = {}  # by process, as a forked one inherits the dict but no lock


def acquire(work_dir: str | Path) -> None:
    """Take a work_dir for the training of this process, until :func:`release` or the end of the process.

    The lock is the operating system's (POSIX record locks, which NFS knows too): it ends with the process however that
    ends, data loaders that outlive it do not inherit it, and a file that is left behind blocks nobody. A second
    training in the same process, after one that failed, goes on with the lock of the first.

    Raises:
        ValueError: If another process trains there; says which.
    """
    path = Path(work_dir).resolve() / NAME
    key = (os.getpid(), path)
    if key in _held or fcntl is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open('a+', encoding='utf-8')
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        with file:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                holder = file.read(200).strip() or 'another process'
                raise ValueError(
                    f'{work_dir} is in use: {holder} is training there. Wait for it, end it, or give another '
                    '--work-dir.'
                ) from None
        print_log(f'{path} cannot be locked ({error}): a second training there would not be noticed.', 'current')
        return
    file.truncate(0)
    file.write(f'process {os.getpid()} on {platform.node()}, since {datetime.now().astimezone():%Y-%m-%d %H:%M:%S %z},')
    file.flush()
    _held[key] = file


def release(work_dir: str | Path) -> None:
    """Give a work_dir back; does nothing where this process does not hold it."""
    file = _held.pop((os.getpid(), Path(work_dir).resolve() / NAME), None)
    if file is not None:
        file.close()
