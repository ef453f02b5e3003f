"""The effect of predictive bias correction on each proposal, as in figure 3 of the paper's supplement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..vocabulary import Vocabulary
from .canvas import Canvas, font_size, line_width, zoom_of
from .label_maps import Palette, marked_name, outline, shorten, swatch

COLUMNS = 3


@dataclass(frozen=True)
class Correction:
    """A proposal whose best class PBC changes.

    Attributes:
        mask: (H, W) bool, the mask at the size of the image.
        indicator: I, the output of φ_bc.
        before: Label of its most probable class without PBC.
        after: Label of its most probable class with PBC.
        prob_before: Probability of ``before`` without PBC, among the classes and the background.
        prob_after: Probability of ``after`` with PBC.
    """

    mask: np.ndarray
    indicator: float
    before: int
    after: int
    prob_before: float
    prob_after: float


def corrections_picture(
    image: np.ndarray,
    corrections: Sequence[Correction],
    vocabulary: Vocabulary,
    palette: Palette,
    gamma: float | None = None,
) -> np.ndarray:
    """Draw proposals that PBC changes: the image, faded outside the mask, and both classes below it.

    Args:
        image: (H, W, 3) uint8 RGB; if it is narrower than 300 pixels, it is enlarged by a whole factor.
        corrections: At least one, in drawing order.
        vocabulary: Names of the labels.
        palette: RGB colour of each class, 0..255.
        gamma: γ to print, if known.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        ValueError: If there is no correction to draw.
    """
    if not corrections:
        raise ValueError('There is no correction to draw.')
    zoom = zoom_of(image)
    height, width = zoom * image.shape[0], zoom * image.shape[1]
    size = font_size(width)
    row = round(1.6 * size)
    columns = min(COLUMNS, len(corrections))
    cell = height + 3 * row + 2 * size
    canvas = Canvas(size + columns * (width + size), size + math.ceil(len(corrections) / columns) * cell)
    for number, correction in enumerate(corrections):
        left = size + number % columns * (width + size)
        top = size + number // columns * cell
        axis = canvas.panel(left, top, fade(image, correction.mask), zoom)
        outline(axis, correction.mask, line_width(size))
        top += height + size // 2
        canvas.text(
            left, top, f'I = {correction.indicator:.2f}' + ('' if gamma is None else f'  (γ = {gamma:g})'), size
        )
        for heading, label, prob in (
            ('before', correction.before, correction.prob_before),
            ('after', correction.after, correction.prob_after),
        ):
            top += row
            canvas.text(left, top, heading, size)
            canvas.square(
                left + 4 * size, top + 0.1 * size, size, **swatch(label, vocabulary, palette, line_width(size))
            )
            room = int((width - 5.5 * size) / (0.6 * size)) - len('  00.0%')
            name = shorten(marked_name(label, vocabulary), room)
            canvas.text(left + 5.5 * size, top, f'{name}  {prob:.1%}', size)
    return canvas.to_array()


def fade(image: np.ndarray, mask: np.ndarray, share: float = 0.75) -> np.ndarray:
    """Mix an image (H, W, 3) uint8 with white outside a mask (H, W) bool; the inside does not change."""
    pale = np.round(image * (1 - share) + 255 * share).astype(np.uint8)
    return np.where(mask[..., None], image, pale)
