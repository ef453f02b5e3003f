"""Proposals of images, and the image region of their masks: all handling of padding and flips is in this module."""

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
        feats: F, (B, N, D), CLIP features of the proposals.
        cls_feats: F_cls = φ_cls(F), (B, N, D) unit rows.
    """

    mask_logits: Tensor
    feats: Tensor
    cls_feats: Tensor


def common_stride(patch: int, clip_patch: int, clip_scale: float) -> int:
    """Return the stride in pixels whose multiples give whole patches in both encoders.

    Args:
        patch: Patch side of the image encoder, in pixels.
        clip_patch: Patch side of CLIP, in pixels of CLIP's input.
        clip_scale: Size of CLIP's input relative to the image.

    Raises:
        ValueError: If a CLIP patch does not cover a whole number of pixels of the image.

    Examples:
        >>> common_stride(16, 16, 0.5), common_stride(16, 14, 0.56)  # 32 and 25 pixels
        (32, 400)
    """
    covered = round(clip_patch / clip_scale)
    if not math.isclose(covered * clip_scale, clip_patch):
        raise ValueError(
            f'A CLIP patch of {clip_patch} pixels at scale_factor={clip_scale} covers {clip_patch / clip_scale:.2f} '
            'pixels of the image; choose a scale that gives a whole number, e.g. 0.5.'
        )
    return math.lcm(patch, covered)


def padded_size(shape: Sequence[int], stride: int) -> tuple[int, int]:
    """Round rows and columns up to multiples of ``stride``."""
    height, width = shape
    return height + -height % stride, width + -width % stride


def pad(images: Tensor, stride: int) -> Tensor:
    """Pad images (B, 3, H, W) with zeros at the right and bottom, to multiples of ``stride``."""
    height, width = padded_size(images.shape[2:], stride)
    return F.pad(images, (0, width - images.shape[3], 0, height - images.shape[2]))


@dataclass(frozen=True)
class Window:
    """The part of a mask grid that contains the image, and the size of the output.

    Attributes:
        top: Padding above the image, relative to the padded height.
        left: Padding to the left of the image, relative to the padded width.
        height: Height of the image relative to the padded height.
        width: Width of the image relative to the padded width.
        size: Rows and columns of the output, in pixels.
    """

    top: float
    left: float
    height: float
    width: float
    size: tuple[int, int]

    @classmethod
    def of_image(cls, metainfo: Mapping[str, Any], shape: Sequence[int], stride: int) -> Window:
        """Return the window that shows an image without its padding, at its original size.

        Args:
            metainfo: May contain ``img_padding_size`` or ``padding_size`` as (left, right, top, bottom) pixels,
                ``ori_shape``, ``flip`` and ``flip_direction``.
            shape: Rows and columns of the input, padding included.
            stride: The model pads the input further, at the right and bottom, to a multiple of this.
        """
        height, width = shape
        full = padded_size(shape, stride)
        left, right, top, bottom = metainfo.get('img_padding_size', metainfo.get('padding_size', (0, 0, 0, 0)))
        visible = (height - top - bottom, width - left - right)
        if metainfo.get('flip'):  # the flipped grid has its padding on the other side
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
        """Place the labels of the image in the padded input, where its masks show it.

        Args:
            labels: (H, W) integers, :attr:`size`.
            shape: Rows and columns of the padded input.
            fill: Label of the padding.

        Returns:
            Labels of size ``shape``, int64.
        """
        height, width = round(self.height * shape[0]), round(self.width * shape[1])
        top, left = round(self.top * shape[0]), round(self.left * shape[1])
        resized = F.interpolate(labels[None, None].float(), size=(height, width), mode='nearest-exact')[0, 0].long()
        return F.pad(resized, (left, shape[1] - left - width, top, shape[0] - top - height), value=fill)


def unflip(mask_logits: Tensor, metainfo: Mapping[str, Any]) -> Tensor:
    """Undo the flip of masks (N, h, w)."""
    if not metainfo.get('flip'):
        return mask_logits
    if metainfo['flip_direction'] not in ('horizontal', 'vertical'):
        raise ValueError(f"flip_direction={metainfo['flip_direction']!r} must be 'horizontal' or 'vertical'.")
    return mask_logits.flip(2 if metainfo['flip_direction'] == 'horizontal' else 1)


def upright(mask_logits: Tensor, samples: Sequence[SegDataSample]) -> list[Tensor]:
    """Return the masks of each image, (N, h, w) float32, with flips undone.

    Args:
        mask_logits: M, (B, N, h, w).
        samples: B data samples with meta information.
    """
    return [unflip(masks.float(), sample.metainfo) for masks, sample in zip(mask_logits, samples, strict=True)]
