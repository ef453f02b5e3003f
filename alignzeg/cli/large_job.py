"""Large jobs of ``alignzeg predict``: what is done already, several processes, and records that survive a kill.

The folder of results has ``settings.json``, with what decides the results (words, model, …), and ``results.jsonl``, a
record of each picture. A picture is done if it has a record, and all of its files, which are written whole, are at
least as new as ``settings.json``. While a job runs, each process appends to its own ``results.RANK.jsonl``.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

from .options import read_config
from .team import Team

SETTINGS = 'settings.json'
RECORDS = 'results.jsonl'
LOCK = 'results.lock'
CONFIG, WEIGHTS = 'config.json', 'model.safetensors'  # of an exported folder


def file_digest(path: str | os.PathLike | None) -> str | None:
    """Return the SHA-256 of a file; None if it does not exist."""
    file = Path(path or '').expanduser()
    if not file.is_file():
        return None
    with file.open('rb') as stream:
        return hashlib.file_digest(stream, 'sha256').hexdigest()


def model_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return what decides results beside the arguments of the inferencer: the model, and how pictures are drawn.

    Raises:
        ValueError: If the config cannot be read.
    """
    settings = dict(
        model=None,
        config=None,
        weights=file_digest(args.checkpoint),
        clip_weights=file_digest(args.clip_weights) or args.clip_weights,
        dtype=args.dtype,
        side_by_side=args.side_by_side,
    )
    if args.model is None:
        return settings
    path = Path(os.path.abspath(os.path.expanduser(args.model)))
    settings['model'] = str(path)
    if path.is_dir():
        return settings | dict(config=file_digest(path / CONFIG), weights=file_digest(path / WEIGHTS))
    text = repr(read_config(path, ()).to_dict())  # with the configs that it is based on
    return settings | dict(config=hashlib.sha256(text.encode()).hexdigest())


@dataclass
class Job:
    """A folder of results.

    Attributes:
        out: The folder.
        settings: What decides the results, in plain types.
        team: The processes.
        since: Time of ``settings.json`` in nanoseconds, if it has these settings; otherwise None.
        recorded: Pictures with a record of an earlier run with these settings.
    """

    out: Path
    settings: dict[str, Any]
    team: Team
    since: int | None = field(init=False, default=None)
    recorded: set[str] = field(init=False, default_factory=set, repr=False)
    _file: TextIO | None = field(init=False, default=None, repr=False)
    _lock: FileLock | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        self.settings = json.loads(json.dumps(self.settings))
        if self._found() == self.settings:
            self.since = os.stat(self.out / SETTINGS).st_mtime_ns
            # In this order: another process may be merging the parts.
            self.recorded = {name for path in (*self._parts(), self.out / RECORDS) for name in _read(path)}

    def check(self, existing: Sequence[Path], overwrite: bool, skip_done: bool) -> None:
        """Refuse a folder whose results this job must not mix with its own, or replace.

        Args:
            existing: Files of this job that exist already.
            overwrite: Whether they may be replaced.
            skip_done: Whether they may be there.

        Raises:
            ValueError: If there are such results.
        """
        if overwrite:
            return
        found = self._found()
        if found is not None and found != self.settings:
            name = next(name for name in {**found, **self.settings} if found.get(name) != self.settings.get(name))
            there, here = (_short(settings.get(name)) for settings in (found, self.settings))
            raise ValueError(
                f'{self.out} has results of other settings: {name} was {there}, and is {here}: pass another --out, or '
                '--overwrite.'
            )
        if not existing:
            return
        told = f'{existing[0]} exists already{f" (and {len(existing) - 1:,} more)" if len(existing) > 1 else ""}'
        if not skip_done:
            raise ValueError(f'{told}: pass --overwrite, --skip-done or another --out.')
        if found is None:
            raise ValueError(f'{told}, but no {SETTINGS} says how it was made: pass --overwrite or another --out.')

    def is_done(self, picture: str, files: Iterable[Path]) -> bool:
        """Whether a picture has a record, and all of its files exist and were made with these settings."""
        if self.since is None or picture not in self.recorded:
            return False
        try:
            return all(os.stat(file).st_mtime_ns >= self.since for file in files)
        except OSError:  # also a name that is too long
            return False

    def begin(self, pictures: int) -> int:
        """Prepare the folder, wait for the other processes, and return the number of pictures of all of them.

        Args:
            pictures: Number of pictures that this process is going to do.

        Raises:
            ValueError: If another job is writing into the folder.
        """
        from mmseg_alignzeg.files import write_text

        if self.team.rank == 0:
            self.out.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.out / LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise ValueError(
                    f'another job is writing into {self.out}: wait until it ends, or pass another --out.'
                ) from None
            self._lock = lock
            if self.since is None:
                for old in (self.out / RECORDS, *self._parts()):
                    old.unlink(missing_ok=True)
                write_text(self.out / SETTINGS, json.dumps(self.settings, indent=2, ensure_ascii=False) + '\n')
            self._merge()
        self.team.add('pictures', pictures)
        self.team.meet('begin')
        self._file = (self.out / f'results.{self.team.rank}.jsonl').open('a', encoding='utf-8')
        return self.team.add('pictures', 0)

    def note(self, record: Mapping[str, Any]) -> None:
        """Append the record of a picture; it is on its way to the disk when this returns."""
        assert self._file is not None
        self._file.write(json.dumps(record) + '\n')
        self._file.flush()

    def finish(self, counts: Mapping[str, int], order: Sequence[str], watch: Callable[[], None]) -> dict[str, int]:
        """Wait for the other processes, collect all records, and return the sums of all counts.

        Args:
            counts: Counts of this process.
            order: All pictures, in the order of their records; those of earlier jobs come first.
            watch: Called while waiting.
        """
        assert self._file is not None
        self._file.close()
        sums = self.team.together(counts, watch)
        if self.team.rank == 0:
            self._merge(order)
            self._unlock()
        return sums

    def stop(self, order: Sequence[str]) -> None:
        """Collect the records of a job that was interrupted; with several processes, the next job does it."""
        if self._file is not None:
            self._file.close()
        if self.team.alone:
            self._merge(order)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            # Removed while it is held, so that no other job can have locked this file.
            (self.out / LOCK).unlink(missing_ok=True)
            self._lock.release()

    def _merge(self, order: Sequence[str] = ()) -> None:
        from mmseg_alignzeg.files import whole_file

        parts = self._parts()
        if not parts:
            return
        lines: dict[str, str] = {}
        for path in (self.out / RECORDS, *parts):
            lines |= _read(path)
        last = {name: lines.pop(name) for name in order if name in lines}
        with whole_file(self.out / RECORDS) as whole, whole.open('w', encoding='utf-8') as file:
            file.writelines([*lines.values(), *last.values()])
        for part in parts:
            part.unlink()

    def _found(self) -> dict[str, Any] | None:
        try:
            found = json.loads((self.out / SETTINGS).read_text(encoding='utf-8'))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError):
            found = None
        return found if isinstance(found, dict) else {}

    def _parts(self) -> list[Path]:
        return sorted(path for path in self.out.glob('results.*.jsonl') if path.suffixes[0][1:].isdecimal())


def _read(path: Path) -> dict[str, str]:
    """Return the lines of a file by picture. A line that a killed process left unfinished is skipped."""
    lines = {}
    with contextlib.suppress(FileNotFoundError), path.open(encoding='utf-8', errors='replace') as file:
        for line in file:
            try:
                lines[json.loads(line)['image']] = line
            except (ValueError, KeyError, TypeError):
                continue
    return lines


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f'{text[:59]}…'


def plan(
    args: argparse.Namespace, pictures: Sequence[str], videos: Sequence[str], job: Job
) -> tuple[dict[str, dict[str, Path]], dict[str, Path]]:
    """Return what this process has to do: the files to write by picture and kind, and the film to write by video.

    Raises:
        ValueError: If a file exists without ``--overwrite`` or ``--skip-done``, or the folder has results of other
            settings.
    """
    from .result_files import CLASSES, FILM, SUFFIXES, output_names

    names = output_names([*pictures, *videos])
    targets = {
        picture: {kind: args.out / f'{name}{SUFFIXES[kind]}' for kind in args.save}
        for picture, name in job.team.share(list(zip(pictures, names, strict=False)))
    }
    films = {
        video: args.out / f'{name}{FILM}'
        for video, name in job.team.share(list(zip(videos, names[len(pictures) :], strict=True)))
    }
    files = [file for group in targets.values() for file in group.values()] + list(films.values())
    if 'png' in args.save and job.team.alone:  # otherwise another process may just have written it
        files.append(args.out / CLASSES)
    # Unlike `Path.exists`, `os.path.exists` never raises for a long name.
    job.check([file for file in files if os.path.exists(file)], args.overwrite, args.skip_done)
    if args.skip_done:
        targets = {picture: group for picture, group in targets.items() if not job.is_done(picture, group.values())}
        films = {video: file for video, file in films.items() if not job.is_done(video, [file])}
    return targets, films
