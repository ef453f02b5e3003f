"""Trainings, tests and work folders for a folder of configs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..config_file import read_config_file
from .sweep import Sweep


@dataclass(frozen=True)
class Job:
    """One config with its overrides, to be trained or tested in one folder.

    Attributes:
        config: Path of the config, below ``configs``.
        options: Overrides as for ``--cfg-options``, as (key, value) pairs.
        work_dir: Work folder of the run.
    """

    config: Path
    options: tuple[tuple[str, Any], ...]
    work_dir: Path

    def load(self) -> Config:
        """Load the config with its overrides.

        Raises:
            ValueError: If an override does not fit the config.
        """
        cfg = read_config_file(self.config)
        try:
            cfg.merge_from_dict(dict(self.options))
        except (TypeError, KeyError, AssertionError) as error:
            raise ValueError(f'{self.config} cannot take the options {dict(self.options)}: {error}') from None
        return cfg

    def fingerprint(self) -> str:
        """Return a hash of the complete config."""
        return hashlib.sha256(self.load().pretty_text.encode()).hexdigest()


@dataclass(frozen=True)
class Trial:
    """One row of the table with one seed: a training, which several rows may share, and a test."""

    row: str
    config: Path
    seed: int
    train: Job
    test: Job


def plan(
    folder: Path, seeds: Iterable[int], root: Path, extra: Mapping[str, Any], sweep: Sweep | None = None
) -> list[Trial]:
    """List the trials of a folder of configs.

    Args:
        folder: Folder with configs, or one config.
        seeds: Random seeds of the trainings.
        root: Parent of all work folders.
        extra: Overrides for all configs.
        sweep: A setting to vary in each config; without one, each config is one row.

    Raises:
        FileNotFoundError: If no config is found, or the file in ``trained_by`` does not exist.
        ValueError: If a config is not below ``configs``, cannot take an override, or has no values in the sweep.
    """
    paths = [folder] if folder.is_file() else sorted(folder.glob('*.py'))
    if not paths:
        raise FileNotFoundError(f'{folder} is neither a config nor a folder with configs (*.py).')
    seeds = list(seeds)
    trials = [trial for path in paths for trial in _trials(_below_configs(path), seeds, root, extra, sweep)]
    for trial in {trial.row: trial for trial in trials}.values():  # seeds fit every config
        trial.train.load(), trial.test.load()  # reports invalid overrides before anything runs
    return trials


def _trials(
    config: Path, seeds: Iterable[int], root: Path, extra: Mapping[str, Any], sweep: Sweep | None
) -> Iterator[Trial]:
    """Yield the trials of one config with all seeds."""
    cfg = read_config_file(config)
    trained_by = Path(cfg.get('trained_by', config))
    if not trained_by.is_file():
        raise FileNotFoundError(f'{config}: `trained_by` names {trained_by}, which does not exist below this folder.')
    for label, overrides in (sweep.overrides(cfg) if sweep else {'': {}}).items():
        folder = Path(sweep.name, label) if sweep else Path()
        train_folder, train_overrides = (folder, overrides) if sweep and sweep.trains else (Path(), {})
        for seed in seeds:
            options = {**extra, 'randomness.seed': seed}
            train_dir = root / work_folder(trained_by) / train_folder / f'seed{seed}'
            test_dir = root / work_folder(config) / folder / f'seed{seed}' / 'test'
            yield Trial(
                f'{config.stem} {label}'.strip(),
                config,
                seed,
                Job(trained_by, tuple({**options, **train_overrides}.items()), train_dir),
                Job(config, tuple({**options, **overrides}.items()), test_dir),
            )


def _below_configs(path: Path) -> Path:
    """Return the path as ``configs/…``, relative to the current folder.

    Raises:
        ValueError: If the path is not below ``configs``.
    """
    try:
        return Path('configs') / path.resolve().relative_to(Path('configs').resolve())
    except ValueError:
        raise ValueError(
            f'{path} is not below {Path("configs").resolve()}: run this from the project folder.'
        ) from None


def work_folder(path: Path) -> Path:
    """Return the work folder of a config, or of a folder of configs, relative to the root of all work folders.

    Raises:
        ValueError: If the path is not below ``configs``.
    """
    inside = _below_configs(path).relative_to('configs')
    return inside.with_suffix('') if inside.suffix == '.py' else inside


def finished_checkpoint(job: Job) -> Path | None:
    """Return the last checkpoint of a training if it is finished; otherwise None."""
    pointer = job.work_dir / 'last_checkpoint'
    checkpoint = job.work_dir / f'iter_{job.load().train_cfg.max_iters}.pth'
    if pointer.is_file() and Path(pointer.read_text().strip()).name == checkpoint.name and checkpoint.is_file():
        return checkpoint
    return None


def read_result(job: Job) -> dict[str, float] | None:
    """Return the scores of a test that has already run; None if there is none."""
    path = job.work_dir / 'result.json'
    return json.loads(path.read_text())['scores'] if path.is_file() else None


def check_unchanged(trials: list[Trial]) -> None:
    """Refuse to mix results of different configs.

    Raises:
        ValueError: If the config of a run in a folder has changed since.
    """
    trains = {trial.train.work_dir: ('train', trial.train) for trial in trials}
    tests = {trial.test.work_dir: ('test', trial.test) for trial in trials}
    changed = []
    for command, job in [*trains.values(), *tests.values()]:
        path = job.work_dir / f'{command}.fingerprint'
        kept = [job.work_dir / name for name in ('last_checkpoint', 'result.json')]  # without these, nothing is mixed
        if any(file.is_file() for file in kept) and path.is_file() and path.read_text() != job.fingerprint():
            changed.append(job)
    if changed:
        raise ValueError(
            f'{", ".join(str(job.work_dir) for job in changed)}: created with another version of '
            f'{changed[0].config} or other --cfg-options: delete to run again, or choose another --work-dir.'
        )
