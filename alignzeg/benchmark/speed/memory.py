"""Measure the memory of a step, in a new process: the peak of all that a user's process does.

Such a process imports, builds one model and runs its step. Within one process, memory would depend on what ran before,
and torch's own counters miss what the libraries below torch allocate. On a GPU, it is the peak of torch's allocator,
with the weights.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import resource
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from mmseg_alignzeg.printable import printable
from mmseg_alignzeg.workers import end_with_parent

from .rows import Row

if TYPE_CHECKING:
    from .steps import Step


@dataclass(frozen=True)
class Probe:
    """What one step costs in a new process.

    Attributes:
        seconds: Duration, with everything that a first step does.
        memory_mb: Peak memory.
        failure: Why nothing could be measured; empty if it was.
    """

    seconds: float = 0.0
    memory_mb: float = 0.0
    failure: str = ''


def probe(row: Row, name: str, device: str, limit_gb: float, turn: str) -> Probe:
    """Run the step of a row once, or twice in training, where the first step creates the optimizer's state.

    Args:
        row: The row.
        name: The model.
        device: 'cpu' or 'cuda'.
        limit_gb: Memory of this process on a CPU, in GB; the limit stays in force.
        turn: A file that is locked during the steps, so that those of other processes wait.
    """
    from .steps import make_step

    if device == 'cpu':
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit_gb * 1e9), resource.RLIM_INFINITY))
    try:
        prepare(device)
        step = make_step(row, name, device)
        with open(turn) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed, also by the end of a killed process
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


def probe_all(row: Row, device: str, limit_gb: float) -> dict[str, Probe]:
    """Run :func:`probe` of the row's models in new processes: at once, but for the steps, unless they share a GPU."""

    def in_new_process(name: str) -> Probe:
        with ProcessPoolExecutor(1, multiprocessing.get_context('spawn'), initializer=end_with_parent) as pool:
            try:
                return pool.submit(probe, row, name, device, limit_gb, turn.name).result()
            except BrokenProcessPool:
                return Probe(failure='the process was killed, probably because memory ran out')

    with NamedTemporaryFile() as turn, ThreadPoolExecutor(1 if device == 'cuda' else len(row.models)) as threads:
        return dict(zip(row.models, threads.map(in_new_process, row.models), strict=True))


def clocked(step: Step, device: str) -> tuple[float, float | None]:
    """Return the seconds of a step and its result; the device has finished its work before and after."""
    from .steps import now

    begin = now(device)
    figure = step()
    return now(device) - begin, figure
