"""Class colours that can be distinguished with colour vision deficiencies, for any number of classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache

import cv2
import numpy as np
from matplotlib.colors import CSS4_COLORS, rgb_to_hsv, to_rgb

#: The seven colours of Okabe and Ito (without black): orange, sky, green, yellow, blue, vermilion, purple.
FIRST = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
)  # fmt: skip
DISTINCT = 256  # further classes repeat the colours, because more colours cannot be distinguished
_LIGHTNESS = (30.0, 92.0)  # range in CIELAB, 0..100: black and white lines must be visible on every colour
_CHROMA = 15.0  # minimum; unlabelled pixels are grey
SHADES = 16  # of one colour; further names repeat them
_HUE, _RANGE = 12.0, 28.0  # shades differ from their colour by at most this hue (degrees) and lightness
_PALE = 40  # maximum of max(RGB) - min(RGB) of colours without a hue: white, snow, black
_SHADES_APART, _APART = 8.0, 25.0  # minimum distance in CIELAB of two first shades; of a shade and any other colour
_GREYS = ('grey', 'silver', 'gainsboro')  # endings of names of colours that look like the grey picture

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


@lru_cache(maxsize=64)
def named_colours(names: tuple[str, ...]) -> np.ndarray:
    """Return the colours of classes; one whose name contains a colour ("yellow grid", "light blue car") is drawn in it.

    Names with the same colour get different shades of it, the first the colour itself. The other names get the colours
    of :func:`class_colours`, except those that resemble a shade; without a colour in any name, exactly these.

    Args:
        names: C class names in label order.

    Returns:
        (C, 3) uint8 RGB.
    """
    bases = [colour_in(name) for name in names]
    colours = class_colours(len(names)).copy()
    shades = _shades(bases)
    for i, shade in shades.items():
        colours[i] = shade
    free = [i for i in range(len(names)) if i not in shades]
    if not shades or not free:
        return colours
    choice = _sequence(min(DISTINCT, len(names) + len(set(shades.values()))))
    distance = np.linalg.norm(_seen_lab(choice)[0][:, None] - _seen_lab(np.array(list(shades.values())))[0], axis=-1)
    apart = choice[distance.min(axis=1) >= _APART]
    choice = apart if len(apart) else choice
    colours[free] = choice[np.arange(len(free)) % len(choice)]
    return colours


def colour_in(name: str) -> tuple[int, int, int] | None:
    """Return the first colour of CSS in a name, as in "Blue Checks" or "light-green leaf"; None without one.

    Greys do not count, because pictures below the colours are grey.
    """
    words = re.findall(r'[a-z]+', name.lower())
    for i, word in enumerate(words):
        for candidate in (word + ''.join(words[i + 1 : i + 2]), word):
            if candidate in CSS4_COLORS and not candidate.replace('gray', 'grey').endswith(_GREYS):
                red, green, blue = (round(255 * part) for part in to_rgb(candidate))
                return red, green, blue
    return None


def _shades(bases: Sequence[tuple[int, int, int] | None]) -> dict[int, tuple[int, int, int]]:
    """Return a shade for each position that has a base colour."""
    lab = _seen_lab(_grid())  # (3, candidates, 3)
    nearest = np.full(lab.shape[1], np.inf)  # distance to the shades chosen so far
    families: dict[tuple[int, int, int], list[tuple[int, int, int]]] = {}
    turns: Counter[tuple[int, int, int]] = Counter()
    found = {}
    for position, base in enumerate(bases):
        if base is None:
            continue
        family = families.setdefault(base, [])
        if len(family) < SHADES:
            members = _resembling(base)
            closest = np.linalg.norm(lab[0, members] - _seen_lab(np.array([base]))[0], axis=-1)
            closest[nearest[members] < _SHADES_APART] = np.inf
            first = not family and np.isfinite(closest).any()
            chosen = members[closest.argmin() if first else nearest[members].argmax()]
            nearest = np.minimum(nearest, np.linalg.norm(lab - lab[:, chosen, None], axis=-1).min(axis=0))
            red, green, blue = _grid()[chosen].tolist()
            family.append((red, green, blue))
        found[position] = family[turns[base] % SHADES]
        turns[base] += 1
    return found


def _resembling(base: tuple[int, int, int]) -> np.ndarray:
    """Return the positions in :func:`_grid` of the shades of a colour."""
    grid, own = _grid(), np.array([base])
    lightness, limits = _seen_lab(grid)[0, :, 0], _LIGHTNESS
    vivid, pale = np.ptp(grid, axis=1) / 255, np.ptp(own) < _PALE
    if pale:  # black or white
        limits = (18.0, 97.0)
    near = np.abs(lightness - np.clip(_seen_lab(own)[0, 0, 0], *limits)) <= (_RANGE / 2 if pale else _RANGE)
    near &= (lightness >= limits[0]) & (lightness <= limits[1])
    if pale:
        return np.flatnonzero(near & (vivid == 0))
    # The hue of HSV, because that of CIELAB puts blue and purple together.
    turned = rgb_to_hsv(grid / 255)[:, 0] - rgb_to_hsv(own / 255)[0, 0]
    return np.flatnonzero(near & (np.abs((turned + 0.5) % 1 - 0.5) <= _HUE / 360) & (vivid >= 0.6 * np.ptp(own) / 255))


@cache
def _grid() -> np.ndarray:
    axis = np.arange(0, 256, 17)
    return np.stack(np.meshgrid(axis, axis, axis, indexing='ij'), axis=-1).reshape(-1, 3)


@lru_cache(maxsize=16)
def _sequence(count: int) -> np.ndarray:
    """Return at most ``DISTINCT`` colours, (count, 3) uint8."""
    grid = _grid()
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
    return cv2.cvtColor(seen.astype(np.float32), cv2.COLOR_LRGB2Lab)
