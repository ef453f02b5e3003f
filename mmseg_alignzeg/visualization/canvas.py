"""A figure laid out in pixels, so that an image in it keeps every pixel and its colour."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

DPI = 100
MIN_PANEL = 300  # narrower images are drawn with several pixels for one, or no text would fit below them


def zoom_of(image: np.ndarray) -> int:
    """How many pixels wide a pixel of an image (H, W, 3) is drawn: 1, or more for a narrow image."""
    return math.ceil(MIN_PANEL / image.shape[1])


def font_size(width: int) -> int:
    """Height of text and width of margins, in pixels, that suit a panel of this width however small it is shown."""
    return max(width // 28, 13)


def line_width(size: int) -> float:
    """Width of lines, in points, that suits text of this height."""
    return 0.12 * size


class Canvas:
    """A white picture with places counted in pixels from its top left corner.

    Args:
        width: Pixels.
        height: Pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        FigureCanvasAgg(self.figure)

    def panel(self, left: int, top: int, image: np.ndarray, zoom: int = 1) -> Axes:
        """Place an image (H, W, 3) uint8, each pixel as ``zoom`` × ``zoom``; the axes count its pixels."""
        height, width = zoom * image.shape[0], zoom * image.shape[1]
        axis = self.figure.add_axes(
            (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        )
        axis.axis('off')
        axis.imshow(image, interpolation='nearest', aspect='auto')
        return axis

    def text(self, left: float, top: float, text: str, size: int, **style: Any) -> None:
        """Write a line whose upper end is at ``top``, ``size`` pixels high."""
        style = {'verticalalignment': 'top', 'fontsize': size * 72 / DPI, **style}
        self.figure.text(left / self.width, 1 - top / self.height, text, **style)

    def square(self, left: float, top: float, side: float, **style: Any) -> None:
        """Draw a square."""
        corner = (left / self.width, 1 - (top + side) / self.height)
        self.figure.add_artist(Rectangle(corner, side / self.width, side / self.height, **style))

    def to_array(self) -> np.ndarray:
        """The picture, (height, width, 3) uint8 RGB."""
        canvas = self.figure.canvas
        assert isinstance(canvas, FigureCanvasAgg)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()
