"""ConvNeXt CLIP: masked pooling of the last feature map, as in FC-CLIP (Yu et al., NeurIPS 2023)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..clip_source import CLIPSource
from .base import CLIPStream, CLIPTower, is_timm


class ConvNeXtTower(CLIPTower):
    """timm's ``ConvNeXt`` in open_clip.

    It has no attention. A proposal is the mean of the last map, weighted by σ(B), and then passes the tower's own norm
    and projection. FC-CLIP weights by binary masks; soft weights pass a gradient to B. ``tail_inputs`` is one tensor,
    the last map, (B, C, h, w).

    Args:
        source: See :class:`CLIPTower`, as the next two.
        visual: The vision tower.
        logit_scale: τ.
        tap_layer: Z_clip is the output of this stage, 1 to 4; by default 3, whose cells are half as large as those of
            the last map.
        tail_layers: 0 or None: the tail is the pooling.
        num_prompts: 0: a convolution has no prompts.
        with_cp: No effect.
        **base: See :class:`CLIPTower`.
    """

    num_heads = 1

    def __init__(
        self,
        source: CLIPSource,
        visual: nn.Module,
        logit_scale: float,
        tap_layer: int | None = None,
        tail_layers: int | None = None,
        num_prompts: int = 0,
        with_cp: bool = False,
        **base: Any,
    ) -> None:
        super().__init__(source, visual, logit_scale, **base)
        stages = self.visual.trunk.feature_info
        self.tap_layer = len(stages) - 1 if tap_layer is None else tap_layer
        if not 0 < self.tap_layer <= len(stages) or tail_layers or num_prompts:
            raise ValueError(
                f'{source.model_name} is a ConvNeXt: tap_layer={tap_layer} must be a stage, 1 to {len(stages)}, and '
                f'tail_layers={tail_layers} and num_prompts={num_prompts} must be 0.'
            )
        self.width = stages[self.tap_layer - 1]['num_chs']
        self.patch_size = stages[-1]['reduction']

    @staticmethod
    def fits(vision_cfg: dict[str, Any]) -> bool:
        """See :meth:`CLIPTower.fits`."""
        return is_timm(vision_cfg, 'convnext', '', 'avg')

    def stream(self, images: Tensor) -> CLIPStream:
        """See :meth:`CLIPTower.stream`."""
        trunk = self.visual.trunk
        features = tap = trunk.stem(images)
        for depth, stage in enumerate(trunk.stages):
            features = stage(features)
            if depth + 1 == self.tap_layer:
                tap = features
        return CLIPStream(tap, [trunk.norm_pre(features)], (features.shape[2], features.shape[3]))

    def read(self, stream: CLIPStream, attn_bias: Tensor) -> Tensor:
        """See :meth:`CLIPTower.read`; the bias is (B, 1, N, L)."""
        (features,) = stream.tail_inputs
        weights = F.logsigmoid(attn_bias[:, 0].float()).softmax(dim=-1).to(features.dtype)  # σ(B) / Σ σ(B), (B, N, L)
        pooled = weights @ features.flatten(2).transpose(1, 2)  # (B, N, C)
        feats = self.visual.head(self.visual.trunk.head(pooled.flatten(0, 1)[..., None, None]))
        return feats.unflatten(0, pooled.shape[:2])
