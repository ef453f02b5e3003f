"""What a folder of configs asks for: which trainings, which tests, in which folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config


@dataclass(frozen=True)
class Job:
    """One config with its overrides, to be trained or tested in one folder.

    Attributes:
        config: Path of the config, below ``configs``.
        options: Overrides as for ``--cfg-options``, as (key, value) pairs.
        work_dir: Where it runs.
    """

    config: Path
    options: tuple[tuple[str, Any], ...]
    work_dir: Path

    def load(self) -> Config:
        """The config with its overrides.

        Raises:
            ValueError: If an override does not fit the config.
        """
        cfg = Config.fromfile(self.config)
        try:
            cfg.merge_from_dict(dict(self.options))
        except (TypeError, KeyError, AssertionError) as error:
            raise ValueError(f'{self.config} cannot take the options {dict(self.options)}: {error}') from None
        return cfg

    def fingerprint(self) -> str:
        """A hash of everything the config says."""
        return hashlib.sha256(self.load().pretty_text.encode()).hexdigest()


@dataclass(frozen=True)
class Trial:
    """One row of the table with one seed: a training, which several rows may use, and a test."""

    row: str
    config: Path
    seed: int
    train: Job
    test: Job


def plan(folder: Path, seeds: Iterable[int], root: Path, extra: dict[str, Any]) -> list[Trial]:
    """List what a folder of configs asks for.

    Args:
        folder: Folder with configs, or one config.
        seeds: Random seeds of the trainings.
        root: Parent of all work directories.
        extra: Overrides for all of them.

    Raises:
        FileNotFoundError: If there is no config, or ``trained_by`` names none.
        ValueError: If a ``sweep`` lacks its key or values, or a config is not below ``configs`` or cannot take an
            override.
    """
    paths = [folder] if folder.is_file() else sorted(folder.glob('*.py'))
    if not paths:
        raise FileNotFoundError(f'{folder} is neither a config nor a folder with configs (*.py).')
    trials = []
    for path in paths:
        config = _below_configs(path)
        cfg = Config.fromfile(path)
        trained_by = Path(cfg.get('trained_by', config))
        if not trained_by.is_file():
            raise FileNotFoundError(f'{config}: `trained_by` names {trained_by}, which is no file below this folder.')
        for label, values in _sweep(config, cfg.get('sweep')):
            for seed in seeds:
                options = {**extra, 'randomness.seed': seed}
                own = options | values
                trained = own if trained_by == config else options
                train_dir = root / _folder(trained_by, label if trained_by == config else '') / f'seed{seed}'
                test_dir = root / _folder(config, label) / f'seed{seed}' / 'test'
                train = Job(trained_by, tuple(trained.items()), train_dir)
                trials.append(
                    Trial(
                        ' '.join(filter(None, [config.stem, label])),
                        config,
                        seed,
                        train,
                        Job(config, tuple(own.items()), test_dir),
                    )
                )
    for trial in {trial.row: trial for trial in trials}.values():  # seeds fit every config
        trial.train.load(), trial.test.load()  # says what does not fit before anything runs
    return trials


def _sweep(config: Path, sweep: dict[str, Any] | None) -> list[tuple[str, dict[str, Any]]]:
    """Label and overrides of each value of a sweep; one row without either if there is none."""
    if sweep is None:
        return [('', {})]
    if set(sweep) != {'key', 'values'} or not sweep['values']:
        raise ValueError(f'{config}: `sweep` must be dict(key=..., values=[...]), got {dict(sweep)}.')
    name = sweep['key'].split('.')[-1]
    return [(f'{name}={value}', {sweep['key']: value}) for value in sweep['values']]


def _below_configs(path: Path) -> Path:
    """``configs/…``, relative to the current folder.

    Raises:
        ValueError: If the path is not below it.
    """
    try:
        return Path('configs') / path.resolve().relative_to(Path('configs').resolve())
    except ValueError:
        raise ValueError(
            f'{path} is not below {Path("configs").resolve()}: run this from the project folder.'
        ) from None


def _folder(config: Path, label: str) -> Path:
    return config.relative_to('configs').with_suffix('') / label


def finished_checkpoint(job: Job) -> Path | None:
    """The last checkpoint of a training, if it has come to its end."""
    pointer = job.work_dir / 'last_checkpoint'
    checkpoint = job.work_dir / f'iter_{job.load().train_cfg.max_iters}.pth'
    if pointer.is_file() and Path(pointer.read_text().strip()).name == checkpoint.name and checkpoint.is_file():
        return checkpoint
    return None


def read_result(job: Job) -> dict[str, float] | None:
    """Scores of a test that was run before, if any."""
    path = job.work_dir / 'result.json'
    return json.loads(path.read_text())['scores'] if path.is_file() else None


def check_unchanged(trials: list[Trial]) -> None:
    """Refuse to mix results of different configs.

    Raises:
        ValueError: If a folder holds a run of a config that has changed since.
    """
    trains = {trial.train.work_dir: ('train', trial.train) for trial in trials}
    tests = {trial.test.work_dir: ('test', trial.test) for trial in trials}
    changed = []
    for command, job in [*trains.values(), *tests.values()]:
        path = job.work_dir / f'{command}.fingerprint'
        kept = [job.work_dir / name for name in ('last_checkpoint', 'result.json')]  # else there is nothing to mix
        if any(file.is_file() for file in kept) and path.is_file() and path.read_text() != job.fingerprint():
            changed.append(job)
    if changed:
        raise ValueError(
            f'{", ".join(str(job.work_dir) for job in changed)}: made with another version of '
            f'{changed[0].config} or other --cfg-options: remove to run again, or choose another --work-dir.'
        )
