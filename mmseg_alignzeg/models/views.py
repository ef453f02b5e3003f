"""Views of an image: transformed copies whose masks can be mapped back to the original."""

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
    """A flipped and resized copy of an image; without arguments, the image itself.

    Attributes:
        flip: None, 'horizontal' or 'vertical'.
        scale: Size relative to the image, in 0.5..2.

    Raises:
        ValueError: If ``flip`` or ``scale`` is invalid.
    """

    flip: str | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.flip not in (None, *_FLIPPED_AXIS):
            raise ValueError(f'flip={self.flip!r} of a view must be one of {[None, *_FLIPPED_AXIS]}.')
        if not SCALES[0] <= self.scale <= SCALES[1]:
            raise ValueError(f'scale={self.scale} of a view is outside [{SCALES[0]}, {SCALES[1]}].')

    def apply(self, images: Tensor, stride: int) -> Tensor:
        """Transform images to this view.

        Args:
            images: (B, 3, H, W), normalised; H and W are multiples of ``stride``.
            stride: The sides of the view are multiples of this too, so no padding is needed and a grid over the view
                covers the same area as a grid over the image.

        Returns:
            (B, 3, H', W').
        """
        if self.scale != 1:
            size = [max(1, round(side * self.scale / stride)) * stride for side in images.shape[2:]]
            images = F.interpolate(images, size=size, mode='bilinear', antialias=True)
        return images if self.flip is None else images.flip(_FLIPPED_AXIS[self.flip])

    def restore(self, mask_logits: Tensor) -> Tensor:
        """Undo the flip of masks (…, h, w) of this view; their resolution does not change."""
        return mask_logits if self.flip is None else mask_logits.flip(_FLIPPED_AXIS[self.flip])

    def restored(self, proposals: Proposals) -> Proposals:
        """Return proposals with upright masks, see :meth:`restore`."""
        return replace(proposals, mask_logits=self.restore(proposals.mask_logits))


def make_views(configs: Sequence[Mapping[str, Any]]) -> tuple[View, ...]:
    """Create views from dicts of arguments, such as ``[dict(), dict(flip='horizontal')]``.

    Raises:
        ValueError: If the list is empty, or an argument is unknown or invalid.
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
