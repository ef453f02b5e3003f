"""Lock of a work_dir, so that only one training uses it at a time."""

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
except ImportError:  # Windows, which MMEngine supports: there, a second training in a folder is not detected
    fcntl = None  # type: ignore[assignment]

NAME = 'training.lock'
_held: dict[tuple[int, Path], IO[str]] = {}  # keyed by process, because a forked one inherits the dict but no lock


def acquire(work_dir: str | Path) -> None:
    """Lock a work_dir for the training of this process, until :func:`release` or the end of the process.

    This is a lock of the operating system (POSIX record lock, also supported by NFS): it ends with the process in any
    case, data loader processes that survive do not inherit it, and a remaining file blocks nothing. A second training
    in the same process, after one that failed, reuses the lock of the first.

    Raises:
        ValueError: If another process trains there; the message names it.
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
                    f'{work_dir} is in use: {holder} is training there. Wait for it, end it, or pass another '
                    '--work-dir.'
                ) from None
        print_log(f'{path} cannot be locked ({error}): a second training there would not be detected.', 'current')
        return
    file.truncate(0)
    file.write(f'process {os.getpid()} on {platform.node()}, since {datetime.now().astimezone():%Y-%m-%d %H:%M:%S %z},')
    file.flush()
    _held[key] = file


def release(work_dir: str | Path) -> None:
    """Unlock a work_dir; does nothing if this process does not hold the lock."""
    file = _held.pop((os.getpid(), Path(work_dir).resolve() / NAME), None)
    if file is not None:
        file.close()
