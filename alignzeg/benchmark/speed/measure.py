"""Measure rows: the memory of each model in new processes, then the steps of both models in turn in this process."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass

from .first import first_predictions
from .memory import clocked, described, prepare, probe_all
from .rows import Row
from .table import Result


def rounds_within(row: Row, seconds: float, budget: float) -> int:
    """Return the number of pairs of steps that fit into ``budget`` seconds, from 1 to the row's maximum."""
    return max(1, min(row.rounds, int(budget / max(seconds, 1e-9))))


def interleave(row: Row, names: Sequence[str], device: str, budget: float) -> dict[str, list[float]]:
    """Measure the steps of models in turn, A B A B …, and return the row's figures by model.

    Args:
        row: The row.
        names: The models.
        device: 'cpu' or 'cuda'.
        budget: Seconds for the row; every model is measured once at least.
    """
    from .steps import make_step

    prepare(device)
    steps = {name: make_step(row, name, device) for name in names}
    seconds = 0.0
    for _ in range(min(row.rounds - 1, 2 if device == 'cuda' else 1)):  # on a GPU, the first step compiles
        seconds = sum(clocked(step, device)[0] for step in steps.values())
    values: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds_within(row, seconds, budget)):
        for name, step in steps.items():
            duration, figure = clocked(step, device)
            values[name].append((row.per_step / duration if row.per_step else duration) if figure is None else figure)
    return values


def release(device: str) -> None:
    """Free what the models of a row held, and forget compiled code: torch compiles a function a few times at most."""
    import torch

    gc.collect()
    if device == 'cuda':
        torch.compiler.reset()
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class Settings:
    """How rows are measured.

    Attributes:
        device: 'cpu' or 'cuda'.
        budget: Seconds for the measured steps of a row; every model is measured once at least.
        limit_gb: Memory that a model may use on a CPU, in GB.
        setup: Description of the machine, for the table.
    """

    device: str
    budget: float
    limit_gb: float
    setup: str


def run(row: Row, settings: Settings) -> tuple[list[Result], list[str]]:
    """Measure a row; return its results, and a line for each model that has none."""
    device, setup = settings.device, settings.setup
    if row.kind == 'first':
        try:
            found = first_predictions(device)
        except RuntimeError as error:
            return [], [f'{row.label}: {described(error)}']
        return [Result(f'first, {text}', f'{row.label}, {text} (s)', setup, found[text]) for text in found], []
    probes = probe_all(row, device, settings.limit_gb) if row.memory else {}
    failures = [f'{row.label}: {name}: {probes[name].failure}.' for name in probes if probes[name].failure]
    names = [name for name in row.models if not (name in probes and probes[name].failure)]
    values: dict[str, list[float]] = {}
    try:
        if row.timed_with_memory:
            values = {name: [probes[name].seconds] for name in names}
        else:
            values = interleave(row, names, device, settings.budget)
    except Exception as error:  # as in `probe`
        failures.append(f'{row.label}: {described(error)}')
    release(device)
    memory = {name: found.memory_mb for name, found in probes.items() if not found.failure}
    return [Result(row.name, row.title, setup, values, memory)], failures
