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
        preference: r, (N,) scores of :class:`PreferenceHead`, or None: all views have the same weight.
    """

    mask_logits: Tensor
    class_probs: Tensor
    preference: Tensor | None = None


def score_columns(class_probs: Tensor, preference: Tensor | None) -> Tensor:
    """Return what is summed over proposals at each pixel: p (…, N, C), followed by o·r and o if there are scores."""
    if preference is None:
        return class_probs
    objectness = class_probs.sum(dim=-1, keepdim=True)
    return torch.cat([class_probs, objectness * preference[..., None], objectness], dim=-1)


def merge(sums: Sequence[Tensor], scored: bool, temperature: float = 1.0, dim: int = -1) -> Tensor:
    """Return Σ_v a_v·S_v: the class scores S_v(c) = Σ_n σ(M_vn)·p_vnc of V views, merged at each pixel.

    o_vn = Σ_c p_vnc is the probability that a proposal is not background. The preference for a view at a pixel is the
    mean score of the proposals there, r̄_v = Σ_n σ(M_vn)·o_vn·r_vn / Σ_n σ(M_vn)·o_vn, and a = softmax_v(r̄_v /
    temperature). r is trained with the Bradley-Terry model, so a_v at temperature 1 estimates the probability that
    view v has the best mask of the object. Only scores of the same object are compared, as in training. Without
    scores, a_v = 1 / V. In both cases Σ_v a_v = 1, so merged scores have the scale of a single view.

    Inspired by the ensemble of Zhu et al., "POPEN: Preference-Based Optimization and Ensemble for LVLM-Based Reasoning
    Segmentation", with different formulas; the AlignZeg paper has no ensemble.

    Args:
        sums: V tensors, Σ_n σ(M_vn) times :func:`score_columns`, with C or C + 2 entries along ``dim``.
        scored: Whether the last two entries are present.
        temperature: Above 0; higher values give views more equal weights.
        dim: Axis of the classes.

    Returns:
        C entries along ``dim``.
    """
    if len(sums) == 1 and not scored:
        return sums[0]
    if not scored:
        attention = torch.full((len(sums),), 1 / len(sums)).to(sums[0]).unbind()
        scores = sums
    else:
        num_classes = sums[0].shape[dim] - 2
        tiny = torch.finfo(sums[0].dtype).tiny  # σ(M) of every proposal may underflow at a pixel
        preferred = [
            part.narrow(dim, num_classes, 1) / part.narrow(dim, num_classes + 1, 1).clamp(min=tiny) for part in sums
        ]
        attention = (torch.stack(preferred, dim=-1) / temperature).softmax(dim=-1).unbind(dim=-1)
        scores = [part.narrow(dim, 0, num_classes) for part in sums]
    merged = scores[0] * attention[0]
    for part, share in zip(scores[1:], attention[1:], strict=True):
        merged = torch.addcmul(merged, part, share)
    return merged


@dataclass(frozen=True)
class Columns:
    """What is summed over proposals at each pixel: scores of some classes, and bounds on those of the others.

    Where one proposal dominates, its most probable class wins; so nearly every pixel is won by a class that is the most
    probable one of some proposal. For a class c that is not, Σ_n σ(M_n)·p_nc ≤ Σ_n σ(M_n)·q_n, with q_n the highest
    probability of such a class in proposal n. Pixels where this bound does not exclude the others are computed with
    every class. The labels are thus those of the plain argmax, and the time depends on the number of proposals.

    Attributes:
        classes: (K,) int64, the classes of the first K columns, ascending.
        views: Per view, (N, K + bounds) columns, and two more if views are weighted, see :func:`score_columns`.
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
        views: V views, all with preference scores or all without.
        window: Position of the image in the grids; its ``size`` is that of the image.
        class_bias: (C,), added by calibration to the scores of every pixel, or None.
        temperature: See :func:`merge`.
    """

    views: tuple[ViewProposals, ...]
    window: Window
    class_bias: Tensor | None = None
    temperature: float = 1.0

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
        scores = merge(sums, self.views[0].preference is not None, self.temperature)
        return scores if columns.bias is None else scores.add_(columns.bias)

    def _every_class(self) -> Columns:
        classes = torch.arange(self.like.shape[1], device=self.like.device)
        return Columns(
            classes, [score_columns(view.class_probs, view.preference) for view in self.views], self.class_bias
        )

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
        for view, plain in zip(self.views, every.views, strict=True):
            bounds = [view.class_probs[:, group].amax(dim=1, keepdim=True) * (1 + ROUNDING) for group in rest]
            views.append(torch.cat([plain[:, classes], *bounds, plain[:, probs.shape[1] :]], dim=1))
        kept = torch.cat([bias[classes], *(bias[group][:1] for group in rest)])
        return Columns(classes, views, None if self.class_bias is None else kept, bounds=len(rest))
