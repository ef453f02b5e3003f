"""Proposals of images, and where an image lies in their masks: the only place that knows padding and flips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from mmseg.structures import SegDataSample
from torch import Tensor


@dataclass
class Proposals:
    """N class-agnostic proposals per image.

    Attributes:
        mask_logits: M, (B, N, h, w) on the grid of the padded input.
        feats: F, (B, N, D), CLIP's features of the proposals.
        cls_feats: F_cls = φ_cls(F), (B, N, D) unit rows.
    """

    mask_logits: Tensor
    feats: Tensor
    cls_feats: Tensor


def common_stride(patch: int, clip_patch: int, clip_scale: float) -> int:
    """Pixels of which an input has whole multiples, so that it has whole patches in both encoders.

    Args:
        patch: Patch of the image encoder, in pixels.
        clip_patch: Patch of CLIP, in pixels of CLIP's input.
        clip_scale: Size of CLIP's input relative to the image.

    Raises:
        ValueError: If a patch of CLIP covers no whole number of pixels of the image.
    """
    covered = clip_patch / clip_scale
    if covered != int(covered):
        raise ValueError(
            f'A CLIP patch of {clip_patch} pixels at scale_factor={clip_scale} covers {covered:.2f} pixels of the '
            'image; choose a scale that makes it a whole number, e.g. 0.5.'
        )
    return math.lcm(patch, int(covered))


def padded_size(shape: Sequence[int], stride: int) -> tuple[int, int]:
    """Rows and columns rounded up to multiples of ``stride``."""
    height, width = shape
    return height + -height % stride, width + -width % stride


def pad(images: Tensor, stride: int) -> Tensor:
    """Pad images (B, 3, H, W) with zeros at the right and bottom, to multiples of ``stride``."""
    height, width = padded_size(images.shape[2:], stride)
    return F.pad(images, (0, width - images.shape[3], 0, height - images.shape[2]))


@dataclass(frozen=True)
class Window:
    """The part of a mask grid that shows the image, and the size of that image.

    Attributes:
        top: Padding above the image, as a share of the padded height; likewise the others.
        left: See ``top``.
        height: Height of the image as a share of the padded height.
        width: See ``height``.
        size: Rows and columns of the output, in pixels.
    """

    top: float
    left: float
    height: float
    width: float
    size: tuple[int, int]

    @classmethod
    def of_image(cls, metainfo: Mapping[str, Any], shape: Sequence[int], stride: int) -> Window:
        """The window that shows an image without its padding, at its original size.

        Args:
            metainfo: ``img_padding_size`` or ``padding_size`` as (left, right, top, bottom) pixels, ``ori_shape``,
                ``flip`` and ``flip_direction``, as far as there are any.
            shape: Rows and columns of the input, padding included.
            stride: The model pads the input further, at the right and bottom, to a multiple of this.
        """
        height, width = shape
        full = padded_size(shape, stride)
        left, right, top, bottom = metainfo.get('img_padding_size', metainfo.get('padding_size', (0, 0, 0, 0)))
        visible = (height - top - bottom, width - left - right)
        if metainfo.get('flip'):  # the flipped grid has its padding at the other side
            if metainfo['flip_direction'] == 'horizontal':
                left = full[1] - left - visible[1]
            else:
                top = full[0] - top - visible[0]
        return cls(
            top=top / full[0],
            left=left / full[1],
            height=visible[0] / full[0],
            width=visible[1] / full[1],
            size=tuple(metainfo.get('ori_shape', visible)),
        )

    def place(self, labels: Tensor, shape: tuple[int, int], fill: int) -> Tensor:
        """Lay the labels of the image over the padded input, at the place where its masks show it.

        Args:
            labels: (H, W) integers, :attr:`size`.
            shape: Rows and columns of the padded input.
            fill: Label of the padding.

        Returns:
            ``shape``, int64.
        """
        height, width = round(self.height * shape[0]), round(self.width * shape[1])
        top, left = round(self.top * shape[0]), round(self.left * shape[1])
        resized = F.interpolate(labels[None, None].float(), size=(height, width), mode='nearest-exact')[0, 0].long()
        return F.pad(resized, (left, shape[1] - left - width, top, shape[0] - top - height), value=fill)


def unflip(mask_logits: Tensor, metainfo: Mapping[str, Any]) -> Tensor:
    """Turn masks (N, h, w) of a flipped image back."""
    if not metainfo.get('flip'):
        return mask_logits
    if metainfo['flip_direction'] not in ('horizontal', 'vertical'):
        raise ValueError(f"flip_direction={metainfo['flip_direction']!r} must be 'horizontal' or 'vertical'.")
    return mask_logits.flip(2 if metainfo['flip_direction'] == 'horizontal' else 1)


def upright(mask_logits: Tensor, samples: Sequence[SegDataSample]) -> list[Tensor]:
    """The masks of each image, (N, h, w) float32, with flips undone.

    Args:
        mask_logits: M, (B, N, h, w).
        samples: B data samples with their meta information.
    """
    return [unflip(masks.float(), sample.metainfo) for masks, sample in zip(mask_logits, samples, strict=True)]
