"""The result for one image, and its computation from proposals."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image
from torch import Tensor

from mmseg_alignzeg.models.answer import Answer, Drawing
from mmseg_alignzeg.models.inference import binary_masks
from mmseg_alignzeg.models.proposals import Window
from mmseg_alignzeg.visualization import overlay_picture
from mmseg_alignzeg.visualization.legend import share_text
from mmseg_alignzeg.vocabulary import Vocabulary

from . import adapters, exports, writing
from .hints import all_hints

DRAWN_PIXELS = 2**22  # maximum number of pixels at which labels are computed; larger images use enlarged labels
MASK_BYTES = 2**30  # limit on all masks of an image's proposals together
OTHERS = 'others'


@dataclass(frozen=True)
class Proposal:
    """One proposal of an image.

    Attributes:
        mask: (H, W) bool, where σ(M) > 0.5; proposals may overlap.
        label: The most probable class.
        score: Probability of that class, 0..1, after bias correction.
        unseen_score: I of φ_bc, 0..1, the probability that it shows no trained class; None without φ_bc.
    """

    mask: np.ndarray
    label: str
    score: float
    unseen_score: float | None

    def __repr__(self) -> str:
        height, width = self.mask.shape
        return (
            f'Proposal({self.label!r}, score {self.score:.3f}, {int(self.mask.sum()):,} of {width} × {height} pixels)'
        )


@dataclass(frozen=True, repr=False)
class Prediction:
    """The labels of one image.

    Attributes:
        name: Path as given, or ``array 0``, ….
        image: (H, W, 3) uint8 RGB, upright.
        labels: (H, W) unsigned integers, positions in ``classes``.
        classes: Class names in label order; ``'others'`` is last if requested.
        unseen: Names that count as unseen.
        notes: Messages for the user, one line each.
        proposals: Sorted by decreasing score, if requested.
        best_score: Highest score of a proposal, 0..1; None if it was predicted in windows.
        far_words: Class names far from everything that the model was trained on, see :mod:`alignzeg.apis.hints`.
    """

    name: str
    image: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    unseen: tuple[str, ...]
    notes: tuple[str, ...] = ()
    proposals: tuple[Proposal, ...] | None = None
    best_score: float | None = None
    far_words: tuple[str, ...] = ()

    def __repr__(self) -> str:
        height, width = self.labels.shape
        shares = sorted(((share, name) for name, share in self.shares().items() if share > 0), reverse=True)
        told = ', '.join(f'{name} {share_text(share)}' for share, name in shares[:3])
        more = f', {len(shares) - 3} more' if len(shares) > 3 else ''
        return f'Prediction({self.name!r}, {width} × {height} pixels: {told}{more})'

    @property
    def hints(self) -> tuple[str, ...]:
        """Why the result may be poor, one line each; empty if nothing speaks against it."""
        return all_hints(self.best_score, self.far_words, len(self.classes) - len(self.plain))

    @property
    def plain(self) -> tuple[str, ...]:
        """The class ``others``, which is drawn without colour and is not exported, if there is one."""
        return tuple(name for name in self.classes[-1:] if name == OTHERS)

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes in label order, and which of them count as unseen."""
        return Vocabulary(self.classes, self.unseen)

    def overlay(self, side_by_side: bool = False) -> Image.Image:
        """Draw the labels on the image, with a legend below.

        Args:
            side_by_side: Show the image itself to the left.
        """
        return Image.fromarray(overlay_picture(self.image, self.labels, self.vocabulary, self.plain, side_by_side))

    def save(self, path: str | os.PathLike, format: str = 'overlay', overwrite: bool = False, **options: Any) -> None:
        """Write a file, atomically.

        Args:
            path: The file; its folder is created if necessary.
            format: ``'overlay'`` (PNG or, if the path ends so, JPEG), ``'png'`` (label map: positions in ``classes``,
                with 8 bits, or 16 for more than 255 classes), ``'coco'``, ``'labelme'``, ``'csv'`` (shares) or
                ``'proposals'`` (for ``numpy.load``).
            overwrite: Replace the file if it exists.
            **options: ``side_by_side`` of :meth:`overlay`.

        Raises:
            FileExistsError: If the file exists and ``overwrite`` is False.
            ValueError: If the format is unknown.
        """
        writing.save_prediction(self, path, format, overwrite, **options)

    def to_coco(self) -> dict[str, Any]:
        """Return a COCO dataset of this image, see :func:`alignzeg.apis.exports.to_coco`."""
        return exports.to_coco(self)

    def to_polygons(self) -> dict[str, Any]:
        """Return the contents of a labelme file, see :func:`alignzeg.apis.exports.to_polygons`."""
        return exports.to_polygons(self)

    def to_supervision(self) -> Any:
        """Return ``supervision.Detections``, see :func:`alignzeg.apis.adapters.to_supervision`."""
        return adapters.to_supervision(self)

    def to_fiftyone(self) -> Any:
        """Return ``fiftyone.Segmentation``, see :func:`alignzeg.apis.adapters.to_fiftyone`."""
        return adapters.to_fiftyone(self)

    def shares(self) -> dict[str, float]:
        """Return the share of pixels of each class, 0..1, in label order."""
        # Counted in parts, because counting needs 8 bytes per label.
        parts = np.array_split(self.labels, math.ceil(self.labels.size / DRAWN_PIXELS))
        counts = np.sum([np.bincount(part.ravel(), minlength=len(self.classes)) for part in parts], axis=0)
        return dict(zip(self.classes, (counts / self.labels.size).tolist(), strict=True))

    def to_datasample(self) -> SegDataSample:
        """Convert to mmseg's format: ``pred_sem_seg`` (1, H, W) int64, and all but the image as meta information."""
        names = dict(img_path=self.name, classes=self.classes, unseen_classes=self.unseen)
        rest = dict(ori_shape=self.labels.shape, notes=self.notes, proposals=self.proposals)
        sample = SegDataSample(metainfo={**names, **rest})
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(self.labels.astype(np.int64))[None])
        return sample


@dataclass(frozen=True)
class Failure:
    """An image that could not be segmented, with the reason in one line."""

    name: str
    message: str


def drawn(window: Window) -> Window:
    """Return a window of the same ratio with at most ``DRAWN_PIXELS`` pixels; masks have a much lower resolution."""
    factor = math.sqrt(DRAWN_PIXELS / (window.size[0] * window.size[1]))
    if factor >= 1:
        return window
    return replace(window, size=(max(1, int(window.size[0] * factor)), max(1, int(window.size[1] * factor))))


def enlarge(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (h, w) to ``size`` with nearest-neighbour interpolation."""
    if pixels.shape == size:
        return pixels
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for old, new in zip(pixels.shape, size, strict=True)
    )
    return pixels[rows].take(columns, axis=1)


def label_map(answer: Drawing, canvas: Window, others_below: float | None) -> np.ndarray:
    """Compute the labels (H, W) of one image, in the smallest unsigned type that can hold them.

    Args:
        answer: Answer for C class names.
        canvas: The answer's window, or a smaller one of the same ratio, whose labels are enlarged.
        others_below: Pixels whose best score is lower get label C; None disables that class.
    """
    count = answer.like.shape[1]
    labels = np.empty(canvas.size, np.min_scalar_type(count))
    for stripe, best, winner in answer.winners(canvas):
        if others_below is not None:
            winner[best < others_below] = count
        labels[stripe] = winner.cpu().numpy()
    return enlarge(labels, answer.window.size)


def best_score(answer: Answer) -> float:
    """Return the highest class probability of the proposals of the first view that have a pixel, 0..1."""
    view = answer.views[0]
    shown = (view.mask_logits > 0).flatten(1).any(dim=1)
    return float(view.class_probs.amax(dim=1)[shown].max()) if shown.any() else 0.0


def find_proposals(
    answer: Answer, indicator: Tensor | None, classes: tuple[str, ...]
) -> tuple[tuple[Proposal, ...], int]:
    """Return the proposals of the first view with at least one pixel, by decreasing score.

    Args:
        answer: Answer for C class names.
        indicator: I, (N,) probabilities, or None.
        classes: C class names.

    Returns:
        The best proposals, as many as fit into ``MASK_BYTES``, and the number of the rest.
    """
    view, window = answer.views[0], answer.window
    masks = binary_masks(view.mask_logits, drawn(window)).numpy()
    scores, labels = view.class_probs.max(dim=1)
    order = [n for n in scores.argsort(descending=True).tolist() if masks[n].any()]
    room = max(1, MASK_BYTES // (window.size[0] * window.size[1]))
    found = tuple(
        Proposal(
            mask=enlarge(masks[n], window.size),
            label=classes[int(labels[n])],
            score=float(scores[n]),
            unseen_score=None if indicator is None else float(indicator[n]),
        )
        for n in order[:room]
    )
    return found, len(order) - len(found)
