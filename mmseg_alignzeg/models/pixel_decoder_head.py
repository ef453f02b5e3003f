"""MaskFormer's pixel decoder in place of MRPE: table 5 of the paper. Needs mmdet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from .plain_decoder_head import PlainDecoderHead


@MODELS.register_module()
class PixelDecoderHead(PlainDecoderHead):
    """Plain decoder with masks computed from the output of mmdet's MaskFormer pixel decoder.

    The image encoder is a plain ViT, so the pyramid for the pixel decoder consists of Z_f and average-pooled copies
    of it (levels and channels are not given in the paper).

    Args:
        embed_dim: D.
        num_queries: N.
        bias_heads: See :class:`ProposalHead`.
        steps: Strides of the pyramid relative to Z_f, from fine to coarse; the first is 1.
        num_groups: Groups of the pixel decoder's group norm; must divide ``embed_dim``.
        **kwargs: Further arguments of :class:`PlainDecoderHead`.

    Raises:
        ImportError: If mmdet is not installed.
    """

    def __init__(
        self,
        embed_dim: int = 240,
        num_queries: int = 100,
        bias_heads: int = 12,
        steps: Sequence[int] = (1, 2, 4),
        num_groups: int = 24,
        **kwargs: Any,
    ) -> None:
        super().__init__(embed_dim, num_queries, bias_heads, **kwargs)
        self.steps = steps
        self.pixel_decoder = build_pixel_decoder([embed_dim] * len(steps), embed_dim, num_groups)

    def refine(self, queries: Tensor, feats: Tensor, grid: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Refine queries and features, see :meth:`ProposalHead.refine`."""
        queries, _ = super().refine(
            queries, feats, grid
        )  # as in MaskFormer, queries attend to the encoder, not to the pixel decoder
        level = feats.transpose(1, 2).unflatten(2, tuple(grid))  # (B, D, h, w)
        pyramid = [F.avg_pool2d(level, step, ceil_mode=True) for step in self.steps]
        return queries, self.pixel_decoder(pyramid, [])[0].flatten(2).transpose(1, 2)


def build_pixel_decoder(in_channels: list[int], embed_dim: int, num_groups: int) -> nn.Module:
    """Return mmdet's ``PixelDecoder``.

    Raises:
        ImportError: If mmdet is not installed.
    """
    try:
        from mmdet.models.layers import PixelDecoder
    except ImportError as error:
        raise ImportError(
            f"`PixelDecoderHead` needs mmdet ({error}): run `pip install 'mmdet>=3.3,<3.4'`, or use `MRPEHead`."
        ) from None
    return PixelDecoder(in_channels, embed_dim, embed_dim, norm_cfg=dict(type='GN', num_groups=num_groups))
