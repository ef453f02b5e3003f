"""Pictures of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .vocabulary import Vocabulary

UNLABELLED = (235, 235, 235)


def contact_sheet(
    columns: Sequence[str],
    rows: Sequence[Sequence[np.ndarray]],
    vocabulary: Vocabulary,
    palette: Sequence[Sequence[int]],
    path: Path,
    title: str = '',
) -> None:
    """Draw images beside label maps; regions of unseen classes are framed, and so are their names in the legend.

    Args:
        columns: Heading of each column; the first is the image, the others are label maps.
        rows: Per row the (H, W, 3) uint8 RGB image, then (H, W) integer label maps. Labels outside the vocabulary
            are drawn as unlabelled.
        vocabulary: Names of the labels.
        palette: RGB colour of each class, 0..255.
        path: PNG to write.
        title: Line above the sheet.
    """
    figure = Figure(figsize=(2.1 * len(columns) + 2.4, 2.1 * len(rows) + 0.9), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    unseen = [vocabulary.classes.index(name) for name in vocabulary.unseen_classes]
    for row_axes, row in zip(axes, rows, strict=True):
        for axis, picture in zip(row_axes, row, strict=True):
            axis.set(xticks=[], yticks=[])
            if picture.ndim == 3:
                axis.imshow(picture)
                continue
            axis.imshow(_paint(picture, palette))
            for label in unseen:
                if (picture == label).any():
                    _frame(axis, picture == label)
    for axis, heading in zip(axes[0], columns, strict=True):
        axis.set_title(heading, fontsize=10)

    shown = sorted({int(label) for row in rows for labels in row[1:] for label in np.unique(labels)})
    handles = [
        Patch(
            facecolor='#{:02x}{:02x}{:02x}'.format(*palette[label]),
            edgecolor='black' if label in unseen else 'none',
            linewidth=1.8,
            label=vocabulary.classes[label] + (' (unseen)' if label in unseen else ''),
        )
        for label in shown
        if label < len(vocabulary.classes)
    ]
    figure.legend(handles=handles, loc='center right', fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout(rect=(0, 0, 1 - 1.9 / figure.get_figwidth(), 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _paint(labels: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """Colours (H, W, 3) uint8 of a label map."""
    colours = np.full((max(256, int(labels.max()) + 1), 3), UNLABELLED, dtype=np.uint8)
    colours[: len(palette)] = palette
    return colours[labels]


def _frame(axis: Axes, region: np.ndarray) -> None:
    """Outline a region, black on white so that it shows on every colour."""
    contour = axis.contour(
        np.pad(region, 1),
        levels=[0.5],
        colors='black',
        linewidths=1.6,
        extent=(-1.5, region.shape[1] + 0.5, -1.5, region.shape[0] + 0.5),
    )
    contour.set_path_effects([patheffects.withStroke(linewidth=3.4, foreground='white')])
