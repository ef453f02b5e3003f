"""Class colours that can be distinguished with colour vision deficiencies, for any number of classes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

#: The seven colours of Okabe and Ito (without black): orange, sky, green, yellow, blue, vermilion, purple.
FIRST = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
)  # fmt: skip
DISTINCT = 256  # further classes repeat the colours, because more colours cannot be distinguished
_LIGHTNESS = (30.0, 92.0)  # range in CIELAB, 0..100: black and white lines must be visible on every colour
_CHROMA = 15.0  # minimum; unlabelled pixels are grey

_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
# Linear RGB as seen with normal vision, protanopia and deuteranopia (Machado, Oliveira and Fernandes 2009, severity 1).
_VISIONS = np.array(
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ]
)  # fmt: skip


def class_colours(count: int) -> np.ndarray:
    """Return the colours of the first ``count`` classes; the colour of a class depends only on its position.

    The first colours are Okabe and Ito's. Each further one is the colour of an RGB grid with the largest minimum
    distance in CIELAB from all previous ones, for normal vision, protanopia and deuteranopia. 20 classes have a minimum
    distance of 17, 40 classes of 11 (about 2 is visible side by side).

    Args:
        count: At least 0.

    Returns:
        (count, 3) uint8 RGB.
    """
    return _sequence(min(count, DISTINCT))[np.arange(count) % DISTINCT]


@lru_cache(maxsize=16)
def _sequence(count: int) -> np.ndarray:
    """Return at most ``DISTINCT`` colours, (count, 3) uint8."""
    axis = np.arange(0, 256, 17)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing='ij'), axis=-1).reshape(-1, 3)
    lab = _seen_lab(grid)[0]
    lightness, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    grid = grid[(lightness > _LIGHTNESS[0]) & (lightness < _LIGHTNESS[1]) & (chroma > _CHROMA)]
    seen = _seen_lab(grid)  # (3, candidates, 3)
    chosen = [np.array(colour) for colour in FIRST[:count]]
    nearest = np.full(len(grid), np.inf)
    for number in range(count):
        if number == len(chosen):
            chosen.append(grid[nearest.argmax()])
        distances = np.linalg.norm(seen - _seen_lab(chosen[number][None]), axis=-1)  # (3, candidates)
        nearest = np.minimum(nearest, distances.min(axis=0))
    return np.array(chosen, dtype=np.uint8).reshape(-1, 3)


def _seen_lab(colours: np.ndarray) -> np.ndarray:
    """Return CIELAB (3, n, 3) of colours (n, 3), 0..255, for each of ``_VISIONS``."""
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ _VISIONS.transpose(0, 2, 1), 0, 1)
    x, y, z = np.moveaxis(seen @ _XYZ.T / _XYZ.sum(axis=1), -1, 0)
    x, y, z = (np.where(v > 216 / 24389, np.cbrt(v), (24389 / 27 * v + 16) / 116) for v in (x, y, z))
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
