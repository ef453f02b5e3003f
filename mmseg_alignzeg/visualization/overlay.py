"""Overlay of predicted labels on their image, with a legend of the predicted classes."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from ..vocabulary import Vocabulary
from .canvas import MIN_PANEL, font_size
from .colours import class_colours
from .legend import Entry, draw_legend

LARGEST = 4096  # maximum of the longer side in pixels; larger images are reduced
STRENGTH = 0.65  # weight of a colour relative to the image
_MIDDLE_GREY = 128


def overlay_picture(
    image: np.ndarray, labels: np.ndarray, vocabulary: Vocabulary, plain: Collection[str] = ()
) -> np.ndarray:
    """Draw labels on an image, with a legend below: largest share first, unseen classes marked in text.

    Args:
        image: (H, W, 3) uint8 RGB. A narrow image is enlarged by a whole factor, one larger than 4,096 pixels is
            reduced.
        labels: (H, W) integers; labels outside the vocabulary are drawn as unlabelled and are not in the legend.
        vocabulary: Names of the labels; unseen ones are framed in black.
        plain: Names without a colour, such as the class "others".

    Returns:
        (height, width, 3) uint8 RGB, at least 300 pixels wide.

    Raises:
        ValueError: If image and labels differ in size.
    """
    if labels.shape != image.shape[:2]:
        raise ValueError(f'The image has {image.shape[:2]} pixels, its labels {labels.shape}: expected the same size.')
    colours = shown_colours(vocabulary, plain)
    counts = {label: int((labels == label).sum()) for label in np.unique(labels).tolist()}
    entries = [
        Entry(
            vocabulary.classes[label],
            counts[label] / labels.size,
            tuple(colours[label].tolist()),
            vocabulary.classes[label] in vocabulary.unseen_classes,
        )
        for label in sorted(counts, key=lambda label: -counts[label])
        if 0 <= label < len(vocabulary.classes)
    ]
    image, labels = _fit(image, labels)
    width = max(image.shape[1], MIN_PANEL)
    size = font_size(width)
    painted = paint_overlay(image, labels, vocabulary, plain, line=max(1, round(size / 10)))
    painted = np.pad(painted, ((0, 0), (0, width - image.shape[1]), (0, 0)), constant_values=255)
    return np.concatenate([painted, draw_legend(entries, width, size)])


def paint_overlay(
    image: np.ndarray, labels: np.ndarray, vocabulary: Vocabulary, plain: Collection[str] = (), line: int = 1
) -> np.ndarray:
    """Colour an image by its labels. The image itself is converted to grey, so that every hue belongs to a class.

    Regions have white borders; unseen ones have a black frame inside.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) integers.
        vocabulary: Names of the labels.
        plain: Names without a colour.
        line: Width of the borders on each side, in pixels.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    names = vocabulary.classes
    labels = np.where((labels >= 0) & (labels < len(names)), labels, len(names)).astype(np.int32)
    grey = Image.fromarray(image).convert('L').convert('RGB')
    coloured = np.append([name not in plain for name in names], False)[labels]  # (H, W) bool
    palette = np.concatenate([class_colours(len(names)), np.zeros((1, 3), np.uint8)])
    painted = np.array(Image.blend(grey, Image.fromarray(palette[labels]), STRENGTH))
    painted[~coloured] = np.asarray(grey)[~coloured]
    around = 2 * line + 1
    painted[maximum_filter(labels, around, mode='nearest') != minimum_filter(labels, around, mode='nearest')] = 255
    unseen = np.append([name in vocabulary.unseen_classes for name in names], False)[labels]
    if unseen.any():  # the edge of the image closes a frame
        high, low = (scan(labels, around, mode='constant', cval=-1) for scan in (maximum_filter, minimum_filter))
        painted[unseen & (high != low)] = 0
    return painted


def shown_colours(vocabulary: Vocabulary, plain: Collection[str] = ()) -> np.ndarray:
    """Return the colours of the classes as they appear on middle grey, (C, 3) uint8 RGB."""
    is_plain = np.array([name in plain for name in vocabulary.classes])[:, None]
    mixed = STRENGTH * class_colours(len(vocabulary.classes)) + (1 - STRENGTH) * _MIDDLE_GREY
    return np.where(is_plain, _MIDDLE_GREY, mixed.round()).astype(np.uint8)


def _fit(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Enlarge a narrow image, or reduce a large one, by a whole factor."""
    height, width = labels.shape
    factor = -(-max(height, width) // LARGEST)
    if factor > 1:
        return np.asarray(Image.fromarray(image).reduce(factor)), labels[::factor, ::factor]
    # Without the second limit, a strip of a few pixels would become extremely long.
    zoom = max(1, min(-(-MIN_PANEL // width), LARGEST // height))
    return image.repeat(zoom, 0).repeat(zoom, 1), labels.repeat(zoom, 0).repeat(zoom, 1)
