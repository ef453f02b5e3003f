"""Measure rows: memory in new processes, then durations of both models, one after the other, in this process.

Memory is the peak of a new process that imports, builds one model and runs its step: what a user must have. Within one
process, it would depend on what ran before, and torch's own counters do not see the libraries that torch calls. On a
GPU, it is the peak of torch's allocator, with the weights.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmseg_alignzeg.printable import printable

from .rows import MODELS, Row
from .table import Result

if TYPE_CHECKING:
    from .steps import Step

FIRST_ROUNDS = 3  # first predictions of AlignZeg; SAN's takes two minutes, and one must do
LONG = 10.0  # seconds of a pair of steps that needs no warm-up on a CPU


@dataclass(frozen=True)
class Probe:
    """What one step costs in a new process.

    Attributes:
        seconds: Duration, with everything that a first step does.
        memory_mb: Peak memory.
        failure: Why there are no figures; empty if there are.
    """

    seconds: float = 0.0
    memory_mb: float = 0.0
    failure: str = ''


# ---------------------------------------------------------------- one model in a new process


def probe(row: Row, name: str, device: str, limit_gb: float) -> Probe:
    """Run the step of a row once, or twice in training, where the first step creates the optimizer's state.

    Args:
        row: The row.
        name: The model.
        device: 'cpu' or 'cuda'.
        limit_gb: Memory of this process on a CPU, in GB; the limit stays in force.
    """
    from .steps import make_step

    if device == 'cpu':
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit_gb * 1e9), resource.RLIM_INFINITY))
    try:
        prepare(device)
        step = make_step(row, name, device)
        for _ in range(2 if row.kind == 'train' else 1):
            seconds, _ = clocked(step, device)
    except Exception as error:  # the other rows are worth measuring whatever happens here
        if isinstance(error, MemoryError) or 'alloc' in str(error):
            return Probe(failure=f'it needs more than {limit_gb:g} GB' if device == 'cpu' else 'the GPU is too small')
        return Probe(failure=described(error))
    return Probe(seconds, peak_memory_mb(device))


def described(error: Exception) -> str:
    """Return an error as one line."""
    return printable(f'{type(error).__name__}: {error}'.splitlines()[0])


def prepare(device: str) -> None:
    """Set what both models share: as many threads as the environment says, TF32 on a GPU, and silence."""
    import cv2
    import torch
    from mmengine.logging import MMLogger

    warnings.simplefilter('ignore')
    MMLogger.get_current_instance().setLevel('ERROR')
    cv2.setNumThreads(0)
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', 1)))
    if device == 'cuda':
        torch.set_float32_matmul_precision('high')


def peak_memory_mb(device: str) -> float:
    """Return the peak memory of this process in MB: resident, or allocated on the GPU."""
    import torch

    if device == 'cuda':
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path('/proc/self/status')
    if status.is_file():  # `ru_maxrss` begins with the peak of the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith('VmHWM'))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def probe_both(row: Row, device: str, limit_gb: float) -> dict[str, Probe]:
    """Run :func:`probe` for both models: at the same time on a CPU, one after the other on a GPU."""
    context = multiprocessing.get_context('spawn')
    pools = {name: ProcessPoolExecutor(1, context) for name in MODELS}
    found = {}
    try:
        running = {}
        for name, pool in pools.items():
            running[name] = pool.submit(probe, row, name, device, limit_gb)
            if device == 'cuda':
                running[name].exception()  # waits
        for name, future in running.items():
            try:
                found[name] = future.result()
            except BrokenProcessPool:
                found[name] = Probe(failure='the process was killed, probably because memory ran out')
    finally:
        for pool in pools.values():
            pool.shutdown()
    return found


# ---------------------------------------------------------------- both models, step by step


def rounds_within(row: Row, seconds: float, budget: float) -> int:
    """Return the number of pairs of steps that fit into ``budget`` seconds, from 1 to the row's maximum."""
    return max(1, min(row.rounds, int(budget / max(seconds, 1e-9))))


def interleave(row: Row, names: Sequence[str], device: str, seconds: float, budget: float) -> dict[str, list[float]]:
    """Measure the steps of models in turn, A B A B …, and return the row's figures by model.

    Args:
        row: The row.
        names: The models.
        device: 'cpu' or 'cuda'.
        seconds: Expected duration of a step of all models together, or 0 to measure it.
        budget: Seconds for the row; every model is measured once at least.
    """
    from .steps import make_step

    prepare(device)
    steps = {name: make_step(row, name, device) for name in names}
    if row.rounds > 1 and (device == 'cuda' or seconds < LONG):
        for _ in range(2 if device == 'cuda' else 1):  # on a GPU, the first step compiles
            seconds = sum(clocked(step, device)[0] for step in steps.values())
    values: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds_within(row, seconds, budget)):
        for name, step in steps.items():
            duration, figure = clocked(step, device)
            values[name].append((row.per_step / duration if row.per_step else duration) if figure is None else figure)
    return values


def clocked(step: Step, device: str) -> tuple[float, float | None]:
    """Return the seconds of a step and its result; the device has finished its work before and after."""
    from .steps import now

    begin = now(device)
    figure = step()
    return now(device) - begin, figure


# ---------------------------------------------------------------- the first prediction


def first_prediction(name: str, device: str, weights: Path, cache: Path) -> float:
    """Return the seconds from the start of a new process to its first prediction of 171 classes.

    Raises:
        RuntimeError: If the process fails, with the end of its output.
    """
    environment = {**os.environ, 'MMSEG_ALIGNZEG_CACHE': str(cache), 'PYTHONWARNINGS': 'ignore'}
    command = [sys.executable, '-m', f'{__package__}.first', name, device, str(weights)]
    begin = time.time()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)  # nosec B603 (a list, no shell)
    if done.returncode:
        raise RuntimeError(f'{" ".join(command)} failed: {done.stderr[-2000:]}')
    return float(done.stdout.splitlines()[-1]) - begin


# ---------------------------------------------------------------- rows


@dataclass(frozen=True)
class Settings:
    """How rows are measured.

    Attributes:
        device: 'cpu' or 'cuda'.
        budget: Seconds for the measured steps of a row; every model is measured once at least.
        limit_gb: Memory that a model may use on a CPU, in GB.
        setup: Description of the machine, for the table.
        folder: For CLIP weights and the text cache of first predictions.
    """

    device: str
    budget: float
    limit_gb: float
    setup: str
    folder: Path


def run(row: Row, settings: Settings) -> tuple[list[Result], list[str]]:
    """Measure a row; return its results, and a line for each model that has none."""
    if row.kind == 'first':
        return first_predictions(row, settings), []
    device, probes = settings.device, {}
    if row.memory:
        probes = probe_both(row, device, settings.limit_gb)
    failures = [f'{row.label}: {name}: {probes[name].failure}.' for name in probes if probes[name].failure]
    names = [name for name in MODELS if not (name in probes and probes[name].failure)]
    values: dict[str, list[float]] = {}
    try:
        seconds = sum(probes[name].seconds for name in names if name in probes)
        values = interleave(row, names, device, seconds, settings.budget)
    except Exception as error:  # as in `probe`
        failures.append(f'{row.label}: {described(error)}')
    memory = {name: found.memory_mb for name, found in probes.items() if not found.failure}
    return [Result(row.name, row.title, settings.setup, values, memory)], failures


def first_predictions(row: Row, settings: Settings) -> list[Result]:
    """Measure first predictions without and with text embeddings in AlignZeg's cache; SAN has no cache."""
    from .models import write_random_clip

    weights, cache = settings.folder / 'random_clip_vitb16.safetensors', settings.folder / 'text_cache'
    if not weights.is_file():
        write_random_clip(weights)
    shutil.rmtree(cache, ignore_errors=True)
    ours, san = MODELS
    cold = first_prediction(ours, settings.device, weights, cache)
    theirs = [first_prediction(san, settings.device, weights, cache)]
    warm = [first_prediction(ours, settings.device, weights, cache) for _ in range(FIRST_ROUNDS)]
    return [
        Result(f'{row.name}_{name}', f'{row.label}, {text}', settings.setup, {ours: found, san: theirs})
        for name, text, found in (('cold', 'no text bank yet (s)', [cold]), ('warm', 'warm text bank (s)', warm))
    ]
