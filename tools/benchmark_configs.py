"""Train and test a folder of configs over several seeds, and write one table: mean ± std, beside the paper's figures.

A config that says ``trained_by = 'configs/OTHER.py'`` is tested with the checkpoint of that config; the others train
their own. ``sweep = dict(key='model.bias_correction.gamma', values=[...])`` makes one row per value. What is done
already is read back, and a training that was cut off goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import queue
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from mmengine.config import Config, DictAction
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

ROOT = Path(__file__).resolve().parents[1]
PAPER = ROOT / 'configs/paper_results.yml'
KEYS = ('pAcc', 'mIoU', 'mIoU_seen', 'mIoU_unseen', 'hIoU')
ITERATION = re.compile(r'Iter\((?:train|test)\)\s*\[\s*(\d+)/(\d+)\]')


@dataclass(frozen=True)
class Job:
    """One config with its overrides, to be trained or tested in one folder.

    Attributes:
        config: Path of the config, relative to the project.
        options: Overrides as for ``--cfg-options``, as (key, value) pairs.
        work_dir: Where it runs.
    """

    config: Path
    options: tuple[tuple[str, Any], ...]
    work_dir: Path

    def load(self) -> Config:
        """The config with its overrides."""
        cfg = Config.fromfile(ROOT / self.config)
        cfg.merge_from_dict(dict(self.options))
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
        ValueError: If a ``sweep`` lacks its key or values.
    """
    paths = [folder] if folder.is_file() else sorted(folder.glob('*.py'))
    if not paths:
        raise FileNotFoundError(f'{folder} is neither a config nor a folder with configs (*.py).')
    trials = []
    for path in paths:
        config = path.resolve().relative_to(ROOT)
        cfg = Config.fromfile(path)
        trained_by = Path(cfg.get('trained_by', config))
        if not (ROOT / trained_by).is_file():
            raise FileNotFoundError(f'{config}: `trained_by` names {trained_by}, which is no file of the project.')
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
    return trials


def _sweep(config: Path, sweep: dict[str, Any] | None) -> list[tuple[str, dict[str, Any]]]:
    """Label and overrides of each value of a sweep; one row without either if there is none."""
    if sweep is None:
        return [('', {})]
    if set(sweep) != {'key', 'values'} or not sweep['values']:
        raise ValueError(f'{config}: `sweep` must be dict(key=..., values=[...]), got {dict(sweep)}.')
    name = sweep['key'].split('.')[-1]
    return [(f'{name}={value}', {sweep['key']: value}) for value in sweep['values']]


def _folder(config: Path, label: str) -> Path:
    return config.relative_to('configs').with_suffix('') / label


class Bench:
    """Runs trials, each device one at a time.

    Args:
        devices: For each job that runs at the same time, the ids of its GPUs; an empty list is the CPU.
        progress: Where to show one line per run.
    """

    def __init__(self, devices: list[list[str]], progress: Progress) -> None:
        self.devices: queue.Queue[list[str]] = queue.Queue()
        for device in devices:
            self.devices.put(device)
        self.count = len(devices)
        self.progress = progress
        self.failures: list[str] = []
        self.stopping = threading.Event()

    def run(self, trials: list[Trial]) -> None:
        """Train what is not trained, then test; a failure does not stop the rest."""
        groups: dict[Job, list[Trial]] = {}
        for trial in trials:
            groups.setdefault(trial.train, []).append(trial)
        total = self.progress.add_task(f'{len(trials)} results', total=len(trials))
        with ThreadPoolExecutor(self.count) as pool:
            futures = [pool.submit(self._group, job, group, total) for job, group in groups.items()]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                self.stopping.set()  # runs that go on see it and end; nothing they saved is lost
                pool.shutdown(cancel_futures=True)
                raise

    def _group(self, train: Job, trials: list[Trial], total: Any) -> None:
        device = self.devices.get()
        try:
            open_trials = [trial for trial in trials if read_result(trial.test) is None]
            self.progress.advance(total, len(trials) - len(open_trials))
            checkpoint = self._train(train, device) if open_trials else None
            for trial in open_trials:
                if checkpoint is not None:
                    self._test(trial, checkpoint, device)
                self.progress.advance(total)
        finally:
            self.devices.put(device)

    def _train(self, job: Job, device: list[str]) -> Path | None:
        begin = time.perf_counter()
        if finished_checkpoint(job) is None:
            resume = ['--resume'] if (job.work_dir / 'last_checkpoint').is_file() else []
            if not self._mim('train', job, resume, device):
                return None
            self._say(f'{job.work_dir}: trained in {time.perf_counter() - begin:.0f} s')
        return finished_checkpoint(job)

    def _test(self, trial: Trial, checkpoint: Path, device: list[str]) -> None:
        job = trial.test
        begin = time.perf_counter()
        if not self._mim('test', job, ['--checkpoint', str(checkpoint)], device):
            return
        newest = max(job.work_dir.glob('*/*.json'), key=lambda path: path.stat().st_mtime)
        scores = {key: value for key, value in json.loads(newest.read_text()).items() if key in KEYS}
        result = {'fingerprint': job.fingerprint(), 'checkpoint': str(checkpoint), 'scores': scores}
        write(job.work_dir / 'result.json', json.dumps(result, indent=2) + '\n')
        shown = '  '.join(f'{key} {value:.2f}' for key, value in scores.items())
        self._say(f'{trial.row} seed {trial.seed}: {shown}  (test {time.perf_counter() - begin:.0f} s)')

    def _say(self, line: str, style: str | None = None) -> None:
        self.progress.console.print(line, style=style, highlight=False, soft_wrap=True)

    def _mim(self, command: str, job: Job, arguments: list[str], device: list[str]) -> bool:
        """Run one mim command with its output in a file; True if it succeeded."""
        job.work_dir.mkdir(parents=True, exist_ok=True)
        write(job.work_dir / f'{command}.fingerprint', job.fingerprint())
        executable = shutil.which('mim') or str(Path(sys.executable).with_name('mim'))
        arguments = [executable, command, 'mmseg', str(job.config), '--work-dir', str(job.work_dir), *arguments]
        arguments += ['--gpus', str(len(device))] + (['--launcher', 'pytorch'] if len(device) > 1 else [])
        arguments += ['--cfg-options', *(f'{key}={value}' for key, value in job.options)]
        environment = {**os.environ, 'PYTHONWARNINGS': 'ignore'}
        if device:
            environment['CUDA_VISIBLE_DEVICES'] = ','.join(device)
        elif self.count > 1:  # threads of several runs on the same cores wait for each other
            environment['OMP_NUM_THREADS'] = str(max(1, (os.cpu_count() or 1) // self.count))
        log = job.work_dir / f'{command}.log'
        task = self.progress.add_task(f'{command} {job.work_dir}', total=None)
        with log.open('w', buffering=1) as file:
            process = subprocess.Popen(
                arguments, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            assert process.stdout is not None
            for line in process.stdout:
                file.write(line)
                if self.stopping.is_set():
                    process.terminate()
                if step := ITERATION.search(line):
                    self.progress.update(task, completed=int(step[1]), total=int(step[2]))
        self.progress.remove_task(task)
        if process.wait():
            self.failures.append(f'{command} of {job.work_dir} failed: {last_error(log)} (all of it: {log})')
            self._say(self.failures[-1], 'red')
        return process.returncode == 0


def last_error(log: Path) -> str:
    """The line of a log that says why a run failed: its last error, without mim's own about the process."""
    lines = [line for line in log.read_text().splitlines() if line.strip()] or ['no output']
    errors = [
        line for line in lines if re.match(r'[\w.]*(Error|Exception)\b', line) and 'CalledProcessError' not in line
    ]
    return (errors or lines)[-1]


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(path.name + '.tmp')
    temporary.write_text(text)
    os.replace(temporary, path)


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
    for job, command in {(trial.train, 'train') for trial in trials} | {(trial.test, 'test') for trial in trials}:
        path = job.work_dir / f'{command}.fingerprint'
        if path.is_file() and path.read_text() != job.fingerprint():
            raise ValueError(
                f'{job.work_dir} was made with another version of {job.config} or other --cfg-options: '
                'remove that folder to run it again, or choose another --work-dir.'
            )


def table_rows(trials: list[Trial], paper: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and sample standard deviation over seeds, row by row.

    Args:
        trials: In the order of the table.
        paper: The paper's figures by config path, as in ``configs/paper_results.yml``.

    Returns:
        One dict per row: ``row``, ``config``, ``seeds`` (how many), ``<key>_mean`` and ``<key>_std`` in percent (no
        std for one seed), ``paper`` (where the figures stand), and ``paper_<key>``. A row without result is left out.
    """
    rows: dict[str, list[tuple[Trial, dict[str, float]]]] = {}
    for trial in trials:
        if (scores := read_result(trial.test)) is not None:
            rows.setdefault(trial.row, []).append((trial, scores))
    table = []
    for name, results in rows.items():
        config = results[0][0].config
        line: dict[str, Any] = {'row': name, 'config': str(config), 'seeds': len(results)}
        for key in KEYS:
            values = [scores[key] for _, scores in results if key in scores]
            if values:
                line[f'{key}_mean'] = statistics.mean(values)
            if len(values) > 1:
                line[f'{key}_std'] = statistics.stdev(values)
        published = paper.get(str(config))
        if published and '=' not in name:  # a sweep's values are not what the paper's row was made with
            line['paper'] = published['where']
            line |= {f'paper_{key}': published[key] for key in KEYS if key in published}
        table.append(line)
    return table


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table; the paper's figures in columns of their own."""
    ours = [key for key in KEYS if any(f'{key}_mean' in row for row in rows)]
    theirs = [key for key in KEYS if any(f'paper_{key}' in row for row in rows)]
    header = ['config', 'seeds', *ours, *(f'paper: {key}' for key in theirs)] + (['paper: where'] if theirs else [])
    lines = [header, ['---'] * len(header)]
    for row in rows:
        cells = [f'`{row["row"]}`', str(row['seeds'])]
        for key in ours:
            std = f' ± {row[f"{key}_std"]:.1f}' if f'{key}_std' in row else ''
            cells.append(f'{row[f"{key}_mean"]:.1f}{std}' if f'{key}_mean' in row else '-')
        cells += [str(row.get(f'paper_{key}', '-')) for key in theirs]
        lines.append(cells + ([row.get('paper', '-')] if theirs else []))
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines) + '\n'


def write_tables(rows: list[dict[str, Any]], folder: Path) -> None:
    """Write ``table.md`` and ``table.csv``."""
    note = 'Percent, mean ± sample standard deviation over seeds. Columns "paper" are the paper\'s own figures.\n\n'
    write(folder / 'table.md', note + markdown(rows))
    spread = [f'{key}_{part}' for key in KEYS for part in ('mean', 'std')]
    fields = ['row', 'config', 'seeds', *spread, 'paper', *(f'paper_{key}' for key in KEYS)]
    with (folder / 'table.csv').open('w', newline='') as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(rows)


def device_groups(jobs: int | None, gpus_per_run: int) -> list[list[str]]:
    """Which GPUs each simultaneous job has; empty lists where there is no GPU.

    Raises:
        ValueError: If more is asked for than there is.
    """
    visible = os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',')
    count = torch.cuda.device_count()
    names = visible if visible != [''] else [str(i) for i in range(count)]
    groups = [names[i : i + gpus_per_run] for i in range(0, count - gpus_per_run + 1, gpus_per_run)]
    if count and (not groups or (jobs or 1) > len(groups)):
        raise ValueError(
            f'{jobs or 1} job(s) with {gpus_per_run} GPU(s) each were asked for, but torch sees {count} GPU(s): '
            'lower --jobs or --gpus-per-run.'
        )
    return groups[: jobs or len(groups)] if groups else [[] for _ in range(jobs or 1)]


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='folder of configs, or one config')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/benchmark'))
    parser.add_argument('--jobs', type=int, help='runs at the same time (default: as the GPUs allow, else 1)')
    parser.add_argument('--gpus-per-run', type=int, default=1)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, help='overrides for all runs')
    args = parser.parse_args()
    console = Console()
    try:
        root = args.work_dir.resolve()
        trials = plan(args.folder, dict.fromkeys(args.seeds), root, args.cfg_options)
        check_unchanged(trials)
        devices = device_groups(args.jobs, args.gpus_per_run)
    except (FileNotFoundError, ValueError) as error:
        console.print(f'{type(error).__name__}: {error}', style='red', highlight=False, soft_wrap=True)
        return 2
    columns = [TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn()]
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        bench = Bench(devices, progress)
        bench.run(trials)
    rows = table_rows(trials, yaml.safe_load(PAPER.read_text()))
    folder = root / (args.folder.resolve().relative_to(ROOT / 'configs').with_suffix(''))
    if rows:
        write_tables(rows, folder)
        console.print(markdown(rows), soft_wrap=True, highlight=False)
        console.print(f'{folder}/table.md, {folder}/table.csv', soft_wrap=True)
    return 1 if bench.failures else 0


if __name__ == '__main__':
    sys.exit(main())
