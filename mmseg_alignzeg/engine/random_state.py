"""Random state of a process: conversion to plain values for checkpoints, and temporary seeding."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_WORDS = 624  # size of the Mersenne Twister's state


def random_state() -> dict[str, Any]:
    """Return the state of all global random generators of this process.

    Returns:
        ``torch`` (uint8 tensor), ``cuda`` (one such tensor per visible device; empty if CUDA is not in use),
        ``numpy`` and ``python``: each a dict of ``words`` (624 int64), ``position``, and the normal number stored for
        the next call (``gauss``; for NumPy, ``has_gauss`` tells whether there is one).
    """
    _, words, position, has_gauss, gauss = np.random.get_state(legacy=True)
    _, (*python_words, python_position), python_gauss = random.getstate()
    return {
        'torch': torch.get_rng_state(),
        'cuda': torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        'numpy': {
            'words': torch.from_numpy(np.asarray(words).astype(np.int64)),
            'position': int(position),
            'has_gauss': int(has_gauss),
            'gauss': float(gauss),
        },
        'python': {'words': torch.tensor(python_words), 'position': python_position, 'gauss': python_gauss},
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore the result of :func:`random_state`, from any device.

    Args:
        state: The state, as loaded from a checkpoint.

    Raises:
        ValueError: If a value is missing or malformed, or the number of CUDA devices differs.
    """
    try:
        torch.set_rng_state(state['torch'].cpu())
        kept = state['numpy']
        np.random.set_state(('MT19937', _twister(kept), kept['position'], kept['has_gauss'], kept['gauss']))
        kept = state['python']
        random.setstate((3, (*_twister(kept).tolist(), kept['position']), kept['gauss']))
        cuda = [words.cpu() for words in state['cuda']]  # last, so that the CPU generators are restored in any case
        if cuda and len(cuda) != torch.cuda.device_count():
            raise ValueError(f"CUDA's is of {len(cuda)} device(s), but there are {torch.cuda.device_count()}")
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
    except (AttributeError, LookupError, TypeError, RuntimeError, ArithmeticError) as error:
        raise ValueError(f'{type(error).__name__}: {" ".join(str(error).split())}') from error


def _twister(kept: dict[str, Any]) -> np.ndarray:
    """Return the state of a Mersenne Twister after checks that NumPy does not make."""
    words = kept['words'].cpu().numpy()
    if not 0 <= kept['position'] <= _WORDS:  # NumPy would read beyond its table
        raise ValueError(f'position {kept["position"]} is not in 0 … {_WORDS}')
    if words.shape != (_WORDS,) or not (0 <= words).all() or not 0 < words[1:].max() < 2**32:  # all 0 would stay 0
        raise ValueError(f'it needs {_WORDS} 32-bit numbers, not all of them 0')
    return words.astype(np.uint32)


@contextmanager
def seeded(*seed: int) -> Iterator[None]:
    """Use the random numbers of a seed inside the block, and restore the previous state afterwards.

    Covers the global generators of Python, NumPy and torch's CPU generator, but not CUDA.

    Args:
        seed: Non-negative integers; each sequence gives different random numbers.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    words = np.random.SeedSequence(seed).generate_state(8)
    try:
        np.random.seed(words[:4])
        random.seed(words[4:6].tobytes())
        torch.default_generator.manual_seed(int(words[6]) << 32 | int(words[7]))  # torch.manual_seed would seed CUDA
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
