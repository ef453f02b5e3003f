"""Views of an image: perturbed copies whose masks can be laid over the original again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from .proposals import Proposals

_FLIPPED_AXIS = {'horizontal': -1, 'vertical': -2}
SCALES = (0.5, 2.0)


@dataclass(frozen=True)
class View:
    """One way to look at an image; without arguments, the image itself.

    Attributes:
        flip: None, 'horizontal' or 'vertical'.
        scale: Size relative to the image, in 0.5..2.

    Raises:
        ValueError: If a value is none of these.
    """

    flip: str | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.flip not in (None, *_FLIPPED_AXIS):
            raise ValueError(f'flip={self.flip!r} of a view must be one of {[None, *_FLIPPED_AXIS]}.')
        if not SCALES[0] <= self.scale <= SCALES[1]:
            raise ValueError(f'scale={self.scale} of a view is outside [{SCALES[0]}, {SCALES[1]}].')

    def apply(self, images: Tensor, stride: int) -> Tensor:
        """Show images in this view.

        Args:
            images: (B, 3, H, W), normalised; H and W are multiples of ``stride``.
            stride: What the sides of the view are a multiple of too, so that nothing is padded and a grid over the
                view shows the same part of the image as a grid over the image.

        Returns:
            (B, 3, H', W').
        """
        if self.scale != 1:
            size = [max(1, round(side * self.scale / stride)) * stride for side in images.shape[2:]]
            images = F.interpolate(images, size=size, mode='bilinear', antialias=True)
        return images if self.flip is None else images.flip(_FLIPPED_AXIS[self.flip])

    def restore(self, mask_logits: Tensor) -> Tensor:
        """Turn masks (…, h, w) of the view upright; their grid stays as fine as the view made it."""
        return mask_logits if self.flip is None else mask_logits.flip(_FLIPPED_AXIS[self.flip])

    def restored(self, proposals: Proposals) -> Proposals:
        """Proposals with upright masks, see :meth:`restore`."""
        return replace(proposals, mask_logits=self.restore(proposals.mask_logits))


def make_views(configs: Sequence[Mapping[str, Any]]) -> tuple[View, ...]:
    """Views from their arguments, as configs write them: ``[dict(), dict(flip='horizontal')]``.

    Raises:
        ValueError: If there is none, or one has an unknown or a wrong argument.
    """
    known = [field.name for field in fields(View)]
    if isinstance(configs, str) or not all(isinstance(config, Mapping) for config in configs):
        raise ValueError(f'views={configs!r} must be a list of dicts with any of {known}; dict() is the image itself.')
    if not configs:
        raise ValueError('`views` is empty: give at least the image itself, views=[dict()].')
    for config in configs:
        if unknown := sorted(config.keys() - set(known)):
            raise ValueError(f'A view has the unknown argument(s) {unknown}: these are known: {known}.')
    return tuple(View(**config) for config in configs)
