"""The result for one image: scores and labels of its pixels, computed stripe by stripe from proposals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..precision import full_precision
from .inference import mask_stripes, stripe_elements
from .proposals import Window

ROUNDING = 1e-5  # relative error of a sum over proposals in float32, at most


@dataclass(frozen=True)
class ViewProposals:
    """Upright proposals of one view of an image.

    Attributes:
        mask_logits: M, (N, h, w) float32; the grids of different views may differ in resolution, but cover the same
            area.
        class_probs: (N, C) float32 probabilities.
    """

    mask_logits: Tensor
    class_probs: Tensor


def merge(sums: Sequence[Tensor]) -> Tensor:
    """Return the mean of the class scores S_v(c) = Σ_n σ(M_vn)·p_vnc of V views, tensors of the same shape."""
    merged = sums[0]
    for part in sums[1:]:
        merged = merged + part
    return merged if len(sums) == 1 else merged / len(sums)


@dataclass(frozen=True)
class Columns:
    """What is summed over proposals at each pixel: scores of some classes, and bounds on those of the others.

    Where one proposal dominates, its most probable class wins; so nearly every pixel is won by a class that is the most
    probable one of some proposal. For a class c that is not, Σ_n σ(M_n)·p_nc ≤ Σ_n σ(M_n)·q_n, with q_n the highest
    probability of such a class in proposal n. Pixels where this bound does not exclude the others are computed with
    every class. The labels are thus those of the plain argmax, and the time depends on the number of proposals.

    Attributes:
        classes: (K,) int64, the classes of the first K columns, ascending.
        views: Per view, (N, K + bounds) columns.
        bias: (K + bounds,), added to the sums, or None.
        bounds: Number of bounds after the K classes; 0 if these are all classes.
    """

    classes: Tensor
    views: list[Tensor]
    bias: Tensor | None
    bounds: int = 0


class Drawing(ABC):
    """Result for one image. Pixels are computed on demand.

    Attributes:
        window: Its ``size`` is that of the image.
    """

    window: Window

    @property
    @abstractmethod
    def like(self) -> Tensor:
        """A float32 tensor with C columns, on the device of the scores."""

    @abstractmethod
    def stripes(self, window: Window | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Yield the class scores of the image stripe by stripe.

        Args:
            window: Part of the image to show, and output size; by default :attr:`window`.

        Yields:
            Output rows, and their (rows, columns, C) scores.
        """

    def winners(self, window: Window | None = None) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield the class with the highest score at each pixel, stripe by stripe.

        Args:
            window: Part of the image to show, and output size; by default :attr:`window`.

        Yields:
            Output rows, their highest scores, (rows, columns) float32, and their labels, (rows, columns) int64.
        """
        for rows, scores in self.stripes(window):
            yield rows, *scores.max(dim=-1)

    def labels(self) -> Tensor:
        """Return the class with the highest score at each pixel, (1, H, W) int64."""
        labels = torch.empty(self.window.size, dtype=torch.long, device=self.like.device)
        for rows, _, found in self.winners():
            labels[rows] = found
        return labels[None]

    def scores(self) -> Tensor:
        """Return all scores, (C, H, W) float32; only for inspection."""
        scores = self.like.new_empty((self.like.shape[1], *self.window.size))
        for rows, part in self.stripes():
            scores[:, rows] = part.permute(2, 0, 1)
        return scores


@dataclass(frozen=True)
class Answer(Drawing):
    """Result for an image that was encoded as a whole.

    Attributes:
        views: V views of the image, merged by :func:`merge`.
        window: Position of the image in the grids; its ``size`` is that of the image.
        class_bias: (C,), added by calibration to the scores of every pixel, or None.
    """

    views: tuple[ViewProposals, ...]
    window: Window
    class_bias: Tensor | None = None

    @property
    def like(self) -> Tensor:
        """See :class:`Drawing`."""
        return self.views[0].class_probs

    @torch.no_grad()
    def stripes(self, window: Window | None = None) -> Iterator[tuple[slice, Tensor]]:
        """See :meth:`Drawing.stripes`."""
        every = self._every_class()
        for rows, masks in self._masks(window or self.window, every):
            yield rows, self._scores(masks, every).view(rows.stop - rows.start, -1, len(every.classes))

    @torch.no_grad()
    def winners(self, window: Window | None = None) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """See :meth:`Drawing.winners`. The time hardly depends on the number of classes, see :class:`Columns`."""
        every = self._every_class()
        columns = self._contenders(every)
        crowded = False  # masks overlap everywhere, such as those of random weights: bounds exclude nothing
        for rows, masks in self._masks(window or self.window, columns):
            if crowded:
                best, labels = self._plain_winners(masks, every)
            else:
                scores = self._scores(masks, columns)
                best, index = scores[:, : len(columns.classes)].max(dim=-1)
                labels = columns.classes[index]
                if columns.bounds:
                    left = (scores[:, len(columns.classes) :].amax(dim=-1) >= best).nonzero().squeeze(1)
                    best[left], labels[left] = self._plain_winners([part[left] for part in masks], every)
                    crowded = 2 * len(left) > len(best)
            shape = (rows.stop - rows.start, -1)
            yield rows, best.view(shape), labels.view(shape)

    def _plain_winners(self, masks: Sequence[Tensor], every: Columns) -> tuple[Tensor, Tensor]:
        """Return the highest scores of some pixels and their labels, (pixels,), computed with every class."""
        most = max(1, stripe_elements(self.like.device) // len(every.classes))
        parts = [
            self._scores(some, every).max(dim=-1) for some in zip(*(part.split(most) for part in masks), strict=True)
        ]
        return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])

    def _masks(self, window: Window, columns: Columns) -> Iterator[tuple[slice, list[Tensor]]]:
        """Yield output rows, and σ(M) there for each view, (pixels, N)."""
        widest = columns.views[0].shape[1]
        for parts in zip(*(mask_stripes(view.mask_logits, window, widest) for view in self.views), strict=True):
            yield parts[0][0], [masks.flatten(0, 1) for _, masks in parts]

    def _scores(self, masks: Sequence[Tensor], columns: Columns) -> Tensor:
        """Return the merged scores of some pixels, (pixels, classes and bounds)."""
        with full_precision(self.like.device):
            sums = [part @ view for part, view in zip(masks, columns.views, strict=True)]
        scores = merge(sums)
        return scores if columns.bias is None else scores.add_(columns.bias)

    def _every_class(self) -> Columns:
        classes = torch.arange(self.like.shape[1], device=self.like.device)
        return Columns(classes, [view.class_probs for view in self.views], self.class_bias)

    def _contenders(self, every: Columns) -> Columns:
        """Return the classes that are a proposal's most probable class, and bounds on the scores of all others."""
        probs = torch.cat([view.class_probs for view in self.views])  # (V · N, C)
        bias = probs.new_zeros(probs.shape[1]) if self.class_bias is None else self.class_bias
        groups = [bias == value for value in bias.unique()]  # a bound holds for classes with the same bias
        listed = torch.zeros_like(groups[0])
        for group in groups:
            listed[probs.masked_fill(~group, -1).argmax(dim=1)] = True
        classes = listed.nonzero().squeeze(1)
        rest = [group & ~listed for group in groups if (group & ~listed).any()]
        views = []
        for plain in every.views:
            bounds = [plain[:, group].amax(dim=1, keepdim=True) * (1 + ROUNDING) for group in rest]
            views.append(torch.cat([plain[:, classes], *bounds], dim=1))
        kept = torch.cat([bias[classes], *(bias[group][:1] for group in rest)])
        return Columns(classes, views, None if self.class_bias is None else kept, bounds=len(rest))
