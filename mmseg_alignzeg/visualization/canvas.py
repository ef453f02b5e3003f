"""A figure with pixel coordinates, so that images in it keep every pixel and its colour."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

DPI = 100
MIN_PANEL = 300  # narrower images are enlarged by a whole factor; otherwise no text would fit below them


def zoom_of(image: np.ndarray) -> int:
    """Return the factor by which an image (H, W, 3) is enlarged: 1, or more for a narrow image."""
    return math.ceil(MIN_PANEL / image.shape[1])


def font_size(width: int) -> int:
    """Return the text height and margin in pixels for a panel of this width."""
    return max(width // 28, 13)


def line_width(size: int) -> float:
    """Return the line width in points for text of this height."""
    return 0.12 * size


class Canvas:
    """A white picture with pixel coordinates that start at its top left corner.

    Args:
        width: Width in pixels.
        height: Height in pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        FigureCanvasAgg(self.figure)

    def panel(self, left: int, top: int, image: np.ndarray, zoom: int = 1) -> Axes:
        """Place an image (H, W, 3) uint8, enlarged by ``zoom``; the axes use the image's pixel coordinates."""
        height, width = zoom * image.shape[0], zoom * image.shape[1]
        axis = self.figure.add_axes(
            (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        )
        axis.axis('off')
        axis.imshow(image, interpolation='nearest', aspect='auto')
        return axis

    def text(self, left: float, top: float, text: str, size: int, **style: Any) -> None:
        """Write a line of text with its upper edge at ``top``, ``size`` pixels high."""
        style = {'verticalalignment': 'top', 'fontsize': size * 72 / DPI, **style}
        self.figure.text(left / self.width, 1 - top / self.height, text, **style)

    def square(self, left: float, top: float, side: float, **style: Any) -> None:
        """Draw a square with its top left corner at ``left``, ``top``."""
        corner = (left / self.width, 1 - (top + side) / self.height)
        self.figure.add_artist(Rectangle(corner, side / self.width, side / self.height, **style))

    def to_array(self) -> np.ndarray:
        """Return the picture, (height, width, 3) uint8 RGB."""
        canvas = self.figure.canvas
        assert isinstance(canvas, FigureCanvasAgg)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()
