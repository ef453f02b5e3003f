"""Images with label maps; unseen classes are framed in the maps and in the legend."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..files import whole_file
from ..vocabulary import Vocabulary
from .canvas import DPI, Canvas, font_size, line_width, zoom_of

UNLABELLED = (235, 235, 235)
LINE_WIDTH = 1.8  # points
LONGEST_NAME = 32  # characters in a legend
Palette = Sequence[Sequence[int]]


def contact_sheet(
    columns: Sequence[str],
    rows: Sequence[Sequence[np.ndarray]],
    vocabulary: Vocabulary,
    palette: Palette,
    path: Path,
    title: str = '',
) -> None:
    """Draw images with label maps; regions of unseen classes are framed, and so are their names in the legend.

    Args:
        columns: Heading of each column; the first is the image, all others are label maps.
        rows: Per row, the (H, W, 3) uint8 RGB image, then (H, W) integer label maps. Labels outside the vocabulary
            are drawn as unlabelled.
        vocabulary: Names of the labels.
        palette: RGB colour of each class, 0..255.
        path: PNG file to write.
        title: Title of the sheet.
    """
    figure = Figure(figsize=(2.1 * len(columns) + 2.4, 2.1 * len(rows) + 0.9), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for row_axes, row in zip(axes, rows, strict=True):
        for axis, picture in zip(row_axes, row, strict=True):
            axis.set(xticks=[], yticks=[])
            axis.imshow(picture if picture.ndim == 3 else _paint(picture, palette))
            if picture.ndim == 2:
                _frame_unseen(axis, picture, vocabulary)
    for axis, heading in zip(axes[0], columns, strict=True):
        axis.set_title(heading, fontsize=10)

    handles = _legend_handles([labels for row in rows for labels in row[1:]], vocabulary, palette)
    figure.legend(handles=handles, loc='center right', fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout(rect=(0, 0, 1 - 1.9 / figure.get_figwidth(), 1))
    with whole_file(path, flush=False) as part:
        figure.savefig(part, format='png')


def predictions_picture(
    image: np.ndarray, label_maps: Sequence[tuple[str, np.ndarray]], vocabulary: Vocabulary, palette: Palette
) -> np.ndarray:
    """Draw one image and its label maps side by side, pixel by pixel, above a legend.

    Args:
        image: (H, W, 3) uint8 RGB; if it is narrower than 300 pixels, it is enlarged by a whole factor.
        label_maps: Heading and (H, W) integer labels of each; labels outside the vocabulary are drawn as unlabelled.
        vocabulary: Names of the labels; unseen ones are framed.
        palette: RGB colour of each class, 0..255.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        ValueError: If the sizes of a label map and the image differ.
    """
    for heading, labels in label_maps:
        if labels.shape != image.shape[:2]:
            raise ValueError(f'The image has {image.shape[:2]} pixels, the labels of {heading!r} {labels.shape}.')
    zoom = zoom_of(image)
    height, width = zoom * image.shape[0], zoom * image.shape[1]
    size = font_size(width)
    line = line_width(size)
    handles = _legend_handles([labels for _, labels in label_maps], vocabulary, palette, line)
    total = size + (width + size) * (1 + len(label_maps))
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    per_row = max(1, int(total // (size * (0.6 * longest + 3.2))))
    legend_top = 3 * size + height + size
    canvas = Canvas(total, legend_top + round(math.ceil(len(handles) / per_row) * 1.75 * size) + size)
    for number, (heading, picture) in enumerate([('image', image), *label_maps]):
        left = size + number * (width + size)
        canvas.text(left + width / 2, size, heading, round(1.15 * size), horizontalalignment='center')
        axis = canvas.panel(left, 3 * size, picture if picture.ndim == 3 else _paint(picture, palette), zoom)
        if picture.ndim == 2:
            _frame_unseen(axis, picture, vocabulary, line)
    canvas.figure.legend(
        handles=handles,
        ncols=per_row,
        fontsize=size * 72 / DPI,
        frameon=False,
        loc='upper left',
        bbox_to_anchor=(size / canvas.width, 1 - legend_top / canvas.height),
        borderpad=0,
        borderaxespad=0,
    )
    return canvas.to_array()


def hex_colour(colour: Sequence[int]) -> str:
    """Convert an RGB colour, 0..255, to matplotlib's hexadecimal notation."""
    return '#{:02x}{:02x}{:02x}'.format(*colour)


def marked_name(label: int, vocabulary: Vocabulary) -> str:
    """Return the name of a class, marked if it is unseen."""
    name = vocabulary.classes[label]
    return name + (' (unseen)' if name in vocabulary.unseen_classes else '')


def shorten(text: str, length: int) -> str:
    """Shorten a long text with an ellipsis in the middle, because its end may contain the mark of an unseen class."""
    if len(text) <= length:
        return text
    end = max(length // 2 - 1, 0)
    return text[: max(length - 1 - end, 0)] + '…' + text[len(text) - end :]


def swatch(label: int, vocabulary: Vocabulary, palette: Palette, line: float = LINE_WIDTH) -> dict[str, Any]:
    """Return the drawing style of a class: its colour, with a frame if it is unseen."""
    unseen = vocabulary.classes[label] in vocabulary.unseen_classes
    return dict(facecolor=hex_colour(palette[label]), edgecolor='black' if unseen else 'none', linewidth=line)


def _legend_handles(
    label_maps: Collection[np.ndarray], vocabulary: Vocabulary, palette: Palette, line: float = LINE_WIDTH
) -> list[Patch]:
    """Return one patch for each class in any of the label maps, in label order."""
    shown = sorted({int(label) for labels in label_maps for label in np.unique(labels)})
    return [
        Patch(label=shorten(marked_name(label, vocabulary), LONGEST_NAME), **swatch(label, vocabulary, palette, line))
        for label in shown
        if label < len(vocabulary.classes)
    ]


def _paint(labels: np.ndarray, palette: Palette) -> np.ndarray:
    """Return the colours (H, W, 3) uint8 of a label map."""
    colours = np.full((max(256, len(palette), int(labels.max()) + 1), 3), UNLABELLED, dtype=np.uint8)
    colours[: len(palette)] = palette
    return colours[labels]


def _frame_unseen(axis: Axes, labels: np.ndarray, vocabulary: Vocabulary, line: float = LINE_WIDTH) -> None:
    """Outline the regions of unseen classes."""
    for name in vocabulary.unseen_classes:
        region = labels == vocabulary.classes.index(name)
        if region.any():
            outline(axis, region, line)


def outline(axis: Axes, region: np.ndarray, line: float) -> None:
    """Outline a region (H, W) bool in black on white, visible on every colour; ``line`` is in points."""
    axis.autoscale(False)  # the contour extends one pixel beyond the image
    contour = axis.contour(
        np.pad(region, 1),
        levels=[0.5],
        colors='black',
        linewidths=line,
        extent=(-1.5, region.shape[1] + 0.5, -1.5, region.shape[0] + 0.5),
    )
    contour.set_path_effects([patheffects.withStroke(linewidth=2 * line, foreground='white')])
