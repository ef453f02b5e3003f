"""The first prediction of a new process: ``python -m alignzeg.benchmark.speed.first MODEL DEVICE WEIGHTS``."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from .rows import FIRST, MODELS

ROUNDS = 3  # of AlignZeg; SAN takes two minutes for 171 names, and runs once


def main(name: str, device: str, weights: str) -> None:
    """Import, build, encode the class names if they are not in the cache, predict, and print the time of day."""
    from .steps import now, predict_step

    predict_step(FIRST, name, device, weights, text=True)()
    now(device)
    print(time.time())


def first_prediction(name: str, device: str, weights: Path, cache: Path) -> float:
    """Return the seconds from the start of a new process to its first prediction of 171 classes.

    Raises:
        RuntimeError: If the process fails, with the last line of its output.
    """
    environment = {**os.environ, 'MMSEG_ALIGNZEG_CACHE': str(cache), 'PYTHONWARNINGS': 'ignore'}
    command = [sys.executable, '-m', f'{__package__}.first', name, device, str(weights)]
    begin = time.time()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)  # nosec B603 (a list, no shell)
    if done.returncode:
        raise RuntimeError(f'{" ".join(command)} failed: {done.stderr.strip().rpartition(chr(10))[2]}')
    return float(done.stdout.splitlines()[-1]) - begin


def first_predictions(device: str) -> dict[str, dict[str, list[float]]]:
    """Measure first predictions of both models, in seconds; they run at once.

    Args:
        device: 'cpu' or 'cuda'.

    Returns:
        By 'no text bank yet' and 'warm text bank', the seconds by model. SAN has no cache, so its figure is the same.
    """
    from .models import write_random_clip

    ours, san = MODELS
    with TemporaryDirectory() as folder, ThreadPoolExecutor(1) as other:
        weights, cache = Path(folder, 'random_clip_vitb16.safetensors'), Path(folder, 'text_cache')
        write_random_clip(weights)
        theirs = other.submit(first_prediction, san, device, weights, cache)
        cold, *warm = (first_prediction(ours, device, weights, cache) for _ in range(1 + ROUNDS))
        once = [theirs.result()]
    return {'no text bank yet': {ours: [cold], san: once}, 'warm text bank': {ours: warm, san: once}}


if __name__ == '__main__':
    main(*sys.argv[1:])
