"""An ensemble over views of an image, in which at every pixel the views with the preferred masks count more.

Inspired by Zhu et al., "POPEN: Preference-Based Optimization and Ensemble for LVLM-Based Reasoning Segmentation", which
attends to several outputs of a language model by preference scores; the formulas are our own and nothing of it is in
the AlignZeg paper.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor

from .inference import semantic_stripes
from .proposals import Window
from .views import make_views

WEIGHTINGS = ('preference', 'uniform')


@dataclass
class ViewProposals:
    """What one view says about an image, upright.

    Attributes:
        mask_logits: M, (N, h, w); views may have grids of different fineness over the same area.
        class_probs: (N, C) probabilities.
        preference: r, (N,) scores, or None: all views count alike.
    """

    mask_logits: Tensor
    class_probs: Tensor
    preference: Tensor | None = None


@torch.no_grad()
def merged_stripes(
    views: Sequence[ViewProposals], window: Window, *, class_bias: Tensor | None = None, temperature: float = 1.0
) -> Iterator[tuple[slice, Tensor]]:
    """Yield Σ_v a_v·S_v of one image stripe by stripe, S_v(c) = Σ_n σ(M_vn)·p_vnc being the scores of one view.

    With o_vn = Σ_c p_vnc, what a proposal is not background, the preference for a view at a pixel is the mean score of
    the proposals there, r̄_v = Σ_n σ(M_vn)·o_vn·r_vn / Σ_n σ(M_vn)·o_vn, and a = softmax_v(r̄_v / temperature). Since
    r was trained by Bradley and Terry's model, a_v at temperature 1 estimates how probable it is that view v has the
    best mask of what is there. Scores of different objects, which training never compares, are never compared here.
    Without scores a_v = 1 / V. Either way Σ_v a_v = 1: the scores stay as large as those of one view.

    Args:
        views: V of them, all with scores or all without, and with as many proposals.
        window: What to show of the grids, and at which size.
        class_bias: (C,), added to the merged scores of every pixel.
        temperature: Above 0; the larger, the more alike views count.

    Yields:
        Output rows, and their (rows, columns, C) scores, valid until the next stripe is asked for.
    """
    num_classes = views[0].class_probs.shape[1]
    stripes = [semantic_stripes(view.mask_logits, _columns(view), window) for view in views]
    for parts in zip(*stripes, strict=True):
        sums = [part for _, part in parts]
        if views[0].preference is None:
            attention = sums[0].new_full((1, 1, len(views)), 1 / len(views))
        else:
            tiny = torch.finfo(sums[0].dtype).tiny  # σ(M) of every proposal may underflow at a pixel
            preferred = torch.stack([part[..., -2] / part[..., -1].clamp(min=tiny) for part in sums], dim=-1)
            attention = (preferred / temperature).softmax(dim=-1)  # (rows, columns, V)
        merged = sums[0][..., :num_classes] * attention[..., :1]
        for v in range(1, len(views)):
            merged.addcmul_(sums[v][..., :num_classes], attention[..., v : v + 1])
        if class_bias is not None:
            merged += class_bias
        yield parts[0][0], merged


def _columns(view: ViewProposals) -> Tensor:
    """What is summed over proposals at every pixel: (N, C) probabilities p, and with scores o·r and o too."""
    if view.preference is None:
        return view.class_probs
    objectness = view.class_probs.sum(dim=1, keepdim=True)
    return torch.cat([view.class_probs, objectness * view.preference[:, None], objectness], dim=1)


@MODELS.register_module()
class PreferenceEnsemble:
    """Which views are looked at at test, and how they are merged, see :func:`merged_stripes`.

    Args:
        views: Arguments of :class:`View`, a dict for each; ``dict()`` is the image itself. A prediction takes as many
            forward passes.
        weighting: 'preference', or 'uniform' for plain test-time augmentation, which needs no score.
        temperature: See :func:`merged_stripes`; above 0.

    Raises:
        ValueError: If views or numbers make no sense.
    """

    def __init__(
        self, views: Sequence[Mapping[str, Any]], weighting: str = 'preference', temperature: float = 1.0
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
