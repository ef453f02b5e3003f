"""From proposals to labels. Which decoder is used is part of the config: ``decoder`` of :class:`AlignZeg`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from .inference import semantic_stripes
from .proposals import Window
from .views import View, make_views

WEIGHTINGS = ('uniform', 'preference')


@dataclass(frozen=True)
class ViewProposals:
    """What one view says about an image, upright.

    Attributes:
        mask_logits: M, (N, h, w) float32; views may have grids of different fineness over the same area.
        class_probs: (N, C) float32 probabilities.
        preference: r, (N,) scores of :class:`PreferenceHead`, or None: all views count alike.
    """

    mask_logits: Tensor
    class_probs: Tensor
    preference: Tensor | None = None


def score_columns(class_probs: Tensor, preference: Tensor | None) -> Tensor:
    """What is summed over proposals at every pixel: probabilities p (…, N, C), and with scores o·r and o too."""
    if preference is None:
        return class_probs
    objectness = class_probs.sum(dim=-1, keepdim=True)
    return torch.cat([class_probs, objectness * preference[..., None], objectness], dim=-1)


def merge(sums: Sequence[Tensor], scored: bool, temperature: float = 1.0, dim: int = -1) -> Tensor:
    """Σ_v a_v·S_v, the class scores S_v(c) = Σ_n σ(M_vn)·p_vnc of V views merged at every pixel.

    With o_vn = Σ_c p_vnc, what a proposal is not background, the preference for a view at a pixel is the mean score of
    the proposals there, r̄_v = Σ_n σ(M_vn)·o_vn·r_vn / Σ_n σ(M_vn)·o_vn, and a = softmax_v(r̄_v / temperature). Since
    r was trained by Bradley and Terry's model, a_v at temperature 1 estimates how probable it is that view v has the
    best mask of what is there. Scores of different objects, which training never compares, are never compared here.
    Without scores a_v = 1 / V. Either way Σ_v a_v = 1: the scores stay as large as those of one view.

    Inspired by the ensemble of Zhu et al., "POPEN: Preference-Based Optimization and Ensemble for LVLM-Based Reasoning
    Segmentation"; the formulas are our own, and the AlignZeg paper has no ensemble.

    Args:
        sums: V of them, Σ_n σ(M_vn) times :func:`score_columns`, with C or C + 2 entries along ``dim``.
        scored: Whether the last two entries are there.
        temperature: Above 0; the larger, the more alike views count.
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


class Drawing(ABC):
    """What a model says about one image. Pixels are computed when they are asked for.

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
            window: What to show, and at which size; by default :attr:`window`.

        Yields:
            Output rows, and their (rows, columns, C) scores, valid until the next stripe is asked for.
        """

    def labels(self) -> Tensor:
        """The best class of every pixel, (1, H, W) int64."""
        labels = torch.empty(self.window.size, dtype=torch.long, device=self.like.device)
        for rows, scores in self.stripes():
            torch.argmax(scores, dim=-1, out=labels[rows])
        return labels[None]

    def scores(self) -> Tensor:
        """All scores, (C, H, W) float32: for inspection only."""
        scores = self.like.new_empty((self.like.shape[1], *self.window.size))
        for rows, part in self.stripes():
            scores[:, rows] = part.permute(2, 0, 1)
        return scores


@dataclass(frozen=True)
class Answer(Drawing):
    """The answer for an image that the model has seen as a whole.

    Attributes:
        views: V of them, all with preference scores or all without.
        window: Where the grids show the image; its ``size`` is that of the image.
        class_bias: (C,), what calibration adds to the scores of every pixel, or None.
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
        scored = self.views[0].preference is not None
        stripes = [
            semantic_stripes(view.mask_logits, score_columns(view.class_probs, view.preference), window or self.window)
            for view in self.views
        ]
        for parts in zip(*stripes, strict=True):
            scores = merge([part for _, part in parts], scored, self.temperature)
            if self.class_bias is not None:
                scores += self.class_bias
            yield parts[0][0], scores


@MODELS.register_module()
class SemanticDecoder:
    """The image itself: argmax_c Σ_n p_nc·σ(M_n), the semantic inference of MaskFormer."""

    views: tuple[View, ...] = (View(),)
    weighting = 'uniform'
    temperature = 1.0
    needs_labels = False

    def __call__(
        self, views: Sequence[ViewProposals], window: Window, class_bias: Tensor | None, sample: SegDataSample
    ) -> Answer:
        """The answer for one image.

        Args:
            views: One for each of :attr:`views`.
            window: Where they show the image.
            class_bias: See :class:`Answer`.
            sample: The data sample of the image.
        """
        return Answer(tuple(views), window, class_bias, self.temperature)


@MODELS.register_module()
class EnsembleDecoder(SemanticDecoder):
    """Several views of the image, merged as in :func:`merge`. Not in the paper.

    Args:
        views: Arguments of :class:`View`, a dict for each; ``dict()`` is the image itself. The first should be that:
            proposals that are shown are its. A prediction takes as many forward passes.
        weighting: 'uniform' for plain test-time augmentation, or 'preference' for scores of :class:`PreferenceHead`.
        temperature: See :func:`merge`; above 0.

    Raises:
        ValueError: If views or numbers are invalid.
    """

    def __init__(
        self, views: Sequence[Mapping[str, Any]], weighting: str = 'uniform', temperature: float = 1.0
    ) -> None:
        self.views = make_views(views)
        if weighting not in WEIGHTINGS:
            raise ValueError(f'weighting={weighting!r} must be one of {list(WEIGHTINGS)}.')
        if not 0 < temperature < float('inf'):
            raise ValueError(f'temperature={temperature} must be a finite number above 0.')
        self.weighting = weighting
        self.temperature = temperature

    def __repr__(self) -> str:
        views = ', '.join(map(repr, self.views))
        return f'{type(self).__name__}([{views}], weighting={self.weighting!r}, temperature={self.temperature})'


@MODELS.register_module(name='AlignZegTTA')
def with_views(
    module: Mapping[str, Any], views: Sequence[Mapping[str, Any]], data_preprocessor: Mapping[str, Any] | None = None
) -> nn.Module:
    """The model of a config with an :class:`EnsembleDecoder`, for ``mim test --tta``.

    Args:
        module: Config of the model, which mmseg's tool puts here.
        views: See :class:`EnsembleDecoder`.
        data_preprocessor: What MMEngine gives to every model, for one that has none of its own.
    """
    return MODELS.build(
        {'data_preprocessor': data_preprocessor, **module, 'decoder': {'type': 'EnsembleDecoder', 'views': views}}
    )
