"""Decoders: from proposals to labels. ``decoder`` of :class:`AlignZeg` selects one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from .answer import Answer, ViewProposals
from .proposals import Window
from .views import View, make_views

WEIGHTINGS = ('uniform', 'preference')


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
