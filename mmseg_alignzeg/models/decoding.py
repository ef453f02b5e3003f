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


@MODELS.register_module()
class SemanticDecoder:
    """Decoder without an ensemble: argmax_c Σ_n p_nc·σ(M_n), the semantic inference of MaskFormer."""

    views: tuple[View, ...] = (View(),)
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
        return Answer(tuple(views), window, class_bias)


@MODELS.register_module()
class EnsembleDecoder(SemanticDecoder):
    """Ensemble of several views of the image, whose class scores are averaged at each pixel. Not in the paper.

    Args:
        views: A dict of arguments of :class:`View` per view; ``dict()`` is the unchanged image and should come first,
            because its proposals are the ones displayed. A prediction needs one forward pass per view.

    Raises:
        ValueError: If a view is invalid.
    """

    def __init__(self, views: Sequence[Mapping[str, Any]]) -> None:
        self.views = make_views(views)

    def __repr__(self) -> str:
        return f'{type(self).__name__}([{", ".join(map(repr, self.views))}])'


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
