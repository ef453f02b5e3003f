"""Run trials with mim: one progress line each, finished work is not repeated, a failure does not stop other trials."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from mmseg_alignzeg.files import write_text

from .mim import MIM, newest_scores
from .plan import Job, Trial, finished_checkpoint, read_result
from .table import KEYS

ITERATION = re.compile(r'Iter\((?:train|test)\)\s*\[\s*(\d+)/(\d+)\]')


class Bench:
    """Runs trials, one at a time on each device.

    Args:
        devices: For each concurrent job, the ids of its GPUs; an empty list means the CPU.
        progress: Display for one line per run.
    """

    def __init__(self, devices: list[list[str]], progress: Progress) -> None:
        self.devices: queue.Queue[list[str]] = queue.Queue()
        for device in devices:
            self.devices.put(device)
        self.count = len(devices)
        self.progress = progress
        self.failures: list[str] = []
        self.stopping = threading.Event()
        self.processes: set[subprocess.Popen] = set()

    def run(self, trials: list[Trial]) -> None:
        """Run missing trainings, then tests; a failure does not stop other trials, Ctrl-C stops all of them."""
        groups: dict[Path, list[Trial]] = {}  # by the folder of their training
        for trial in trials:
            groups.setdefault(trial.train.work_dir, []).append(trial)
        total = self.progress.add_task(f'{len(trials)} results', total=len(trials))
        with ThreadPoolExecutor(self.count) as pool:
            futures = [pool.submit(self._group, group, total) for group in groups.values()]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                self.stopping.set()
                for process in list(self.processes):  # including mim's children; what they have saved is kept
                    os.killpg(process.pid, signal.SIGTERM)
                pool.shutdown(cancel_futures=True)
                raise

    def _group(self, trials: list[Trial], total: Any) -> None:
        device = self.devices.get()
        try:
            open_trials = [trial for trial in trials if read_result(trial.test) is None]
            self.progress.advance(total, len(trials) - len(open_trials))
            checkpoint = self._train(trials[0].train, device) if open_trials else None
            for trial in open_trials:
                if checkpoint is not None and not self.stopping.is_set():
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
            if finished_checkpoint(job) is None:
                last = job.load().train_cfg.max_iters
                self._fail(
                    f'{job.work_dir} has no iter_{last}.pth: `default_hooks.checkpoint` must save the last checkpoint'
                )
        return finished_checkpoint(job)

    def _test(self, trial: Trial, checkpoint: Path, device: list[str]) -> None:
        job = trial.test
        begin = time.perf_counter()
        if not self._mim('test', job, ['--checkpoint', str(checkpoint)], device):
            return
        written = newest_scores(job.work_dir)
        if written is None:
            self._fail(f'The test in {job.work_dir} wrote no scores (its output: {job.work_dir / "test.log"})')
            return
        scores = {key: value for key, value in written.items() if key in KEYS}
        if not scores:
            self._fail(f'The test in {job.work_dir} has no result, only {", ".join(written)}: the table leaves it out')
            return
        result = {'checkpoint': str(checkpoint), 'scores': scores}
        write_text(job.work_dir / 'result.json', json.dumps(result, indent=2) + '\n')
        shown = '  '.join(f'{key} {value:.2f}' for key, value in scores.items())
        self._say(f'{trial.row} seed {trial.seed}: {shown}  (test {time.perf_counter() - begin:.0f} s)')

    def _say(self, line: str, style: str | None = None) -> None:
        self.progress.console.print(line, style=style, highlight=False, soft_wrap=True)

    def _fail(self, line: str) -> None:
        self.failures.append(line)
        self._say(line, 'red')

    def _mim(self, command: str, job: Job, arguments: list[str], device: list[str]) -> bool:
        """Run a mim command with its output in a file; return whether it succeeded."""
        if self.stopping.is_set():
            return False
        job.work_dir.mkdir(parents=True, exist_ok=True)
        write_text(job.work_dir / f'{command}.fingerprint', job.fingerprint())
        arguments = [*MIM, command, 'mmseg', str(job.config), '--work-dir', str(job.work_dir), *arguments]
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
            process = subprocess.Popen(  # nosec B603 (a list, no shell; of the user's own config)
                arguments,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # Ctrl-C reaches only this program, which then ends the group
            )
            self.processes.add(process)
            if self.stopping.is_set():  # since the first line
                os.killpg(process.pid, signal.SIGTERM)
            assert process.stdout is not None
            for line in process.stdout:
                file.write(line)
                if step := ITERATION.search(line):
                    self.progress.update(task, completed=int(step[1]), total=int(step[2]))
        self.progress.remove_task(task)
        code = process.wait()
        self.processes.discard(process)
        if code and not self.stopping.is_set():
            self._fail(f'{command} of {job.work_dir} failed: {last_error(log)} (complete output: {log})')
        return code == 0


def last_error(log: Path) -> str:
    """Return the line of a log that shows why a run failed: its last error, except mim's error about the process."""
    lines = [line for line in log.read_text().splitlines() if line.strip()] or ['no output']
    errors = [
        line for line in lines if re.match(r'[\w.]*(Error|Exception)\b', line) and 'CalledProcessError' not in line
    ]
    return (errors or lines)[-1]


def device_groups(jobs: int | None, gpus_per_run: int) -> list[list[str]]:
    """Return the GPUs of each concurrent job; empty lists if there is no GPU.

    Raises:
        ValueError: If more GPUs are requested than available.
    """
    visible = os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',')
    count = torch.cuda.device_count()
    names = visible if visible != [''] else [str(i) for i in range(count)]
    groups = [names[i : i + gpus_per_run] for i in range(0, count - gpus_per_run + 1, gpus_per_run)]
    if count and (not groups or (jobs or 1) > len(groups)):
        raise ValueError(
            f'{jobs or 1} job(s) with {gpus_per_run} GPU(s) each were requested, but torch sees {count} GPU(s): '
            'lower --jobs or --gpus-per-run.'
        )
    return groups[: jobs or len(groups)] if groups else [[] for _ in range(jobs or 1)]
