"""A map of proposal features, as in figure 8 of the paper."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from ..vocabulary import Vocabulary
from .canvas import Canvas
from .label_maps import marked_name, shorten

#: Ten colours that are distinguishable with colour vision deficiencies (Petroff, arXiv:2107.02270); repeated if needed.
COLOURS = (
    '#3f90da', '#ffa90e', '#bd1f01', '#94a4a2', '#832db6', '#a96b59', '#e76300', '#b9ac70', '#717581', '#92dadd',
)  # fmt: skip
SEEN, UNSEEN = 'o', '^'


def features_picture(points: np.ndarray, labels: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Draw points in the plane: one colour per class, discs for seen classes and triangles for unseen ones.

    Args:
        points: (n, 2) floats.
        labels: (n,) integers below the number of classes.
        vocabulary: Names of the labels.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    canvas = Canvas(1000, 700)
    axis = canvas.figure.add_axes((0.02, 0.03, 0.68, 0.92))
    axis.set(xticks=[], yticks=[], title='t-SNE of proposal features')
    unseen = [vocabulary.classes.index(name) for name in vocabulary.unseen_classes]
    shown = sorted(map(int, np.unique(labels)), key=lambda label: (label in unseen, label))
    handles = []
    for number, label in enumerate(shown):
        is_unseen = label in unseen
        style: dict[str, Any] = dict(
            color=COLOURS[number % len(COLOURS)],
            marker=UNSEEN if is_unseen else SEEN,
            markersize=7,
            markeredgecolor='black' if is_unseen else 'white',
            markeredgewidth=0.6,
        )
        axis.plot(*points[labels == label].T, linestyle='none', **style)
        count = int((labels == label).sum())
        handles.append(
            Line2D([], [], linestyle='none', label=f'{shorten(marked_name(label, vocabulary), 26)}, {count}', **style)
        )
    canvas.figure.legend(
        handles=handles,
        title='class, proposals',
        loc='center left',
        bbox_to_anchor=(0.71, 0.5),
        fontsize=10,
        frameon=False,
    )
    return canvas.to_array()
