"""Convert many files in parallel: restartable, without partial files, and with a report of each failure."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from ...files import whole_file, write_text
from ...printable import printable
from ...workers import start_worker

Job = tuple[Path, Path]
FORMATS = {'.png': 'PNG', '.tif': 'TIFF', '.jpg': 'JPEG'}


def unique_jobs(jobs: Sequence[Job]) -> list[Job]:
    """Return each job once, in order.

    Raises:
        ValueError: If two sources have the same target.
    """
    source_of: dict[Path, Path] = {}
    for source, target in jobs:
        if source_of.setdefault(target, source) != source:
            raise ValueError(f'{source_of[target]} and {source} would both become {target}: keep one of them.')
    return [(source, target) for target, source in source_of.items()]


@dataclass(frozen=True)
class Plan:
    """The conversion of one dataset.

    Args:
        jobs: Pairs of a source and the target to create from it (``.png``, ``.tif`` or ``.jpg``); repeats count once.
        read: Pure function of a source. It returns the pixels of the target, (H, W) or (H, W, 3), or the path of a
            file that becomes the target unchanged.
        lists: Name lists by path; each is written once all targets exist.

    Raises:
        ValueError: If two sources have the same target.
    """

    jobs: Sequence[Job]
    read: Callable[[Path], np.ndarray | Path]
    lists: Mapping[Path, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, 'jobs', unique_jobs(self.jobs))


def link_or_copy(source: Path, target: Path) -> None:
    """Create ``target`` as a hard link to ``source``, or as a copy if the file system cannot link."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def convert_file(job: Job, read: Callable[[Path], np.ndarray | Path]) -> str:
    """Convert one file; return the error as one line, or an empty string."""
    source, target = job
    try:
        with whole_file(target, flush=False) as part:
            content = read(source)
            if isinstance(content, Path):
                link_or_copy(content, part)
            else:
                Image.fromarray(content).save(part, FORMATS[target.suffix])
    except Exception as error:  # PIL and SciPy may raise anything on a broken file, which must not stop the others
        reason = getattr(error, 'strerror', None) or str(error) or repr(error)
        return ' '.join(reason.split())
    return ''


def write_list(path: Path, names: Sequence[str], complete: bool) -> str:
    """Write a name list unless it exists or its files are incomplete; return one line that says what was done."""
    if path.exists():
        count = len(path.read_text(encoding='utf-8').split())
        more = (
            ''
            if count == len(names)
            else f', but the originals list {len(names):,}: delete the file to create it again'
        )
        return f'{path}: kept with its {count:,} names{more}'
    if not complete:
        return f'{path}: not written, because files that it lists are missing'
    write_text(path, ''.join(f'{name}\n' for name in names))
    return f'{path}: {len(names):,} names'


def run(plan: Plan, workers: int, stream: IO[str] | None = None) -> int:
    """Carry out a plan with a progress bar, and print a summary.

    Existing targets are skipped, so an interrupted run can be continued.

    Args:
        plan: What to convert.
        workers: Number of processes.
        stream: Where to print; stdout by default.

    Returns:
        Exit code: 0 if every target exists now, 1 if a source failed or a worker died, 130 after Ctrl-C.
    """
    console = Console(file=stream, soft_wrap=True, highlight=False, markup=False)
    todo = [job for job in plan.jobs if not job[1].exists()]
    workers = max(1, min(workers, len(todo)))
    pool = ProcessPoolExecutor(workers, initializer=start_worker)
    try:
        # The processes fork here, before the progress bar starts its thread.
        results = pool.map(partial(convert_file, read=plan.read), todo, chunksize=8)
        reasons = list(track(results, 'Converting', total=len(todo), console=console, disable=not todo))
    except BrokenProcessPool:
        console.print(
            'A worker was killed, perhaps out of memory: run the same command again with fewer --workers to continue.'
        )
        return 1
    except KeyboardInterrupt:
        console.print('Stopped: run the same command again to continue.')
        return 130
    finally:
        pool.shutdown(cancel_futures=True)
    failed = [f'FAILED {source}: {reason}' for (source, _), reason in zip(todo, reasons, strict=True) if reason]
    for line in failed:
        console.print(printable(line))
    if todo and hasattr(os, 'sync'):
        os.sync()  # flush all files before the lists that name them are written
    for path, names in plan.lists.items():
        console.print(write_list(path, names, complete=not failed))
    done, skipped = len(todo) - len(failed), len(plan.jobs) - len(todo)
    console.print(f'{done:,} done, {skipped:,} skipped, {len(failed):,} failed')
    return 1 if failed else 0
