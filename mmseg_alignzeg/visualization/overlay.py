"""Overlay of predicted labels on their image, with a legend of the predicted classes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import cv2
import numpy as np
from PIL import Image
from scipy.ndimage import find_objects

from ..vocabulary import Vocabulary, names_mask
from .canvas import MIN_PANEL
from .colours import named_colours
from .legend import Entry, draw_legend, legend_height

LARGEST = 4096  # maximum of the longer side in pixels; larger images are reduced
STRENGTH = 0.65  # weight of a colour relative to the image
_MIDDLE_GREY = 128


def overlay_picture(
    image: np.ndarray,
    labels: np.ndarray,
    vocabulary: Vocabulary,
    plain: Collection[str] = (),
    side_by_side: bool = False,
    legend_rows: int | None = None,
) -> np.ndarray:
    """Draw labels on an image, with a legend below: largest share first, unseen classes marked in text.

    Args:
        image: (H, W, 3) uint8 RGB. A narrow image is enlarged by a whole factor, one larger than 4,096 pixels is
            reduced.
        labels: (H, W) integers; labels outside the vocabulary are drawn as unlabelled and are not in the legend.
        vocabulary: Names of the labels; unseen ones are framed in black.
        plain: Names without a colour, such as the class "others".
        side_by_side: Show the image itself to the left of the overlay; both together are at most 4,096 pixels wide.
        legend_rows: Give the legend this many rows, whatever was found, so that frames of a video have the same size;
            classes that do not fit are left out.

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
    image, labels = _fit(image, labels, panels=1 + side_by_side)
    painted = paint_overlay(image, labels, vocabulary, plain, line_width(labels.shape))
    if side_by_side:
        gap = np.full((len(image), max(4, image.shape[1] // 60), 3), 255, np.uint8)
        painted = np.concatenate([image, gap, painted], axis=1)
    width = max(painted.shape[1], MIN_PANEL)
    painted = np.pad(painted, ((0, 0), (0, width - painted.shape[1]), (0, 0)), constant_values=255)
    size = text_size(width, len(image))
    legend = draw_legend(entries, width, size)
    if legend_rows is not None:
        height = legend_height(legend_rows, size)
        legend = np.pad(legend[:height], ((0, max(0, height - len(legend))), (0, 0), (0, 0)), constant_values=255)
    return np.concatenate([painted, legend])


def line_width(size: Sequence[int]) -> int:
    """Return the width in pixels, on each side, of the borders in an overlay of (H, W) pixels."""
    return max(1, round(min(size) / 180))


def text_size(width: int, height: int) -> int:
    """Return the height in pixels of the text below an overlay: larger for larger pictures, not only for wider ones."""
    return max(15, min(width // 26, max(height, width // 2) // 22))


def paint_overlay(
    image: np.ndarray, labels: np.ndarray, vocabulary: Vocabulary, plain: Collection[str] = (), line: int = 1
) -> np.ndarray:
    """Colour an image by its labels. The image itself is converted to grey, so that every hue belongs to a class.

    Regions have white borders; unseen ones have a black frame inside. A fragment that is too small for borders keeps
    its colour, and its border, black if it is unseen, is drawn around it.

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
    labels = np.where((labels >= 0) & (labels < len(names)), labels, len(names))
    labels = labels.astype(np.uint8 if len(names) < 256 else np.float32)  # types that OpenCV compares
    index = labels if labels.dtype == np.uint8 else labels.astype(np.int32)
    grey = Image.fromarray(image).convert('L').convert('RGB')
    coloured = np.append(~names_mask(names, plain), False)[index]  # (H, W) bool
    palette = np.concatenate([named_colours(names), np.zeros((1, 3), np.uint8)])
    painted = np.array(Image.blend(grey, Image.fromarray(palette[index]), STRENGTH))
    painted[~coloured] = np.asarray(grey)[~coloured]
    signed = labels.astype(np.int16 if labels.dtype == np.uint8 else np.float32)
    inner = widest(labels, line) == -widest(np.negative(signed), line)
    unseen = np.append(vocabulary.unseen_mask, False)[index]
    small = _fragments(index, inner, line) & coloured
    filled = painted[small]
    painted[~inner] = 255
    edge = np.ones_like(inner)
    edge[line:-line, line:-line] = False  # the edge of the image closes a frame
    painted[unseen & (~inner | edge)] = 0
    for fragments, colour in ((small & ~unseen, 255), (small & unseen, 0)):
        if fragments.any():
            painted[widest(fragments.astype(np.uint8), line).astype(bool)] = colour
    painted[small] = filled
    return painted


def widest(values: np.ndarray, line: int) -> np.ndarray:
    """Return the highest value (H, W) in the square around each pixel, whose side is ``2 * line + 1``."""
    return cv2.dilate(values, np.ones((2 * line + 1, 2 * line + 1), np.uint8))


def _fragments(labels: np.ndarray, inner: np.ndarray, line: int) -> np.ndarray:
    """Return the pixels (H, W) bool that are far from every inner pixel of their class, so that borders cover them."""
    small = np.zeros_like(inner)
    for value, box in enumerate(find_objects(labels.astype(np.int32) + 1)):
        if box is None:
            continue
        own = labels[box] == value
        near = widest((own & inner[box]).astype(np.uint8), 2 * line)
        small[box] |= own & ~near.astype(bool)
    return small


def shown_colours(vocabulary: Vocabulary, plain: Collection[str] = ()) -> np.ndarray:
    """Return the colours of the classes as they appear on middle grey, (C, 3) uint8 RGB."""
    is_plain = names_mask(vocabulary.classes, plain).numpy()[:, None]
    mixed = STRENGTH * named_colours(vocabulary.classes) + (1 - STRENGTH) * _MIDDLE_GREY
    return np.where(is_plain, _MIDDLE_GREY, mixed.round()).astype(np.uint8)


def _fit(image: np.ndarray, labels: np.ndarray, panels: int) -> tuple[np.ndarray, np.ndarray]:
    """Enlarge a narrow image, or reduce a large one, by a whole factor, so that ``panels`` of them fit side by side."""
    height, width = labels.shape
    factor = -(-max(height, panels * width) // LARGEST)
    if factor > 1:
        return np.asarray(Image.fromarray(image).reduce(factor)), labels[::factor, ::factor]
    # Without the second limit, a strip of a few pixels would become extremely long.
    zoom = max(1, min(-(-MIN_PANEL // width), LARGEST // height))
    return image.repeat(zoom, 0).repeat(zoom, 1), labels.repeat(zoom, 0).repeat(zoom, 1)
