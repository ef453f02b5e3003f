"""Decoders: from proposals to labels. ``decoder`` of :class:`AlignZeg` selects one."""

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
            Output rows, and their (rows, columns, C) scores, valid until the next stripe is requested.
        """

    def labels(self) -> Tensor:
        """Return the class with the highest score at each pixel, (1, H, W) int64."""
        labels = torch.empty(self.window.size, dtype=torch.long, device=self.like.device)
        for rows, scores in self.stripes():
            torch.argmax(scores, dim=-1, out=labels[rows])
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
    """Decoder without an ensemble: argmax_c Σ_n p_nc·σ(M_n), the semantic inference of MaskFormer."""

    views: tuple[View, ...] = (View(),)
    weighting = 'uniform'
    temperature = 1.0
    needs_labels = False

    def __call__(
        self, views: Sequence[ViewProposals], window: Window, class_bias: Tensor | None, sample: SegDataSample
    ) -> Answer:
        """Return the answer for one image.

        Args:
            views: One for each of :attr:`views`.
            window: Position of the image in the grids.
            class_bias: See :class:`Answer`.
            sample: The data sample of the image.
        """
        return Answer(tuple(views), window, class_bias, self.temperature)


@MODELS.register_module()
class EnsembleDecoder(SemanticDecoder):
    """Ensemble of several views of the image, merged as in :func:`merge`. Not in the paper.

    Args:
        views: A dict of arguments of :class:`View` per view; ``dict()`` is the unchanged image and should come first,
            because its proposals are the ones displayed. A prediction needs one forward pass per view.
        weighting: 'uniform' for plain test-time augmentation, or 'preference' for scores of :class:`PreferenceHead`.
        temperature: See :func:`merge`; above 0.

    Raises:
        ValueError: If a view, the weighting or the temperature is invalid.
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
