"""The first prediction of a new process: ``python -m alignzeg.benchmark.speed.first MODEL DEVICE WEIGHTS``."""

from __future__ import annotations

import sys
import time


def main(name: str, device: str, weights: str) -> None:
    """Import, build, encode the class names if they are not in the cache, predict, and print the time of day."""
    from .rows import FIRST
    from .steps import predict_step, synchronize

    predict_step(FIRST, name, device, weights, text=True)()
    synchronize(device)
    print(time.time())


if __name__ == '__main__':
    main(*sys.argv[1:])
