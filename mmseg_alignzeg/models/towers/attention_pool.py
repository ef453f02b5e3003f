"""timm's ViT that ends in attention pooling: SigLIP and SigLIP 2."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from ..clip_source import CLIPSource
from .base import CLIPStream, is_timm
from .transformer import TransformerTower


class AttentionPoolTower(TransformerTower):
    """timm's ``VisionTransformer`` with ``AttentionPoolLatent``. The arguments are those of :class:`TransformerTower`.

    There is no class token whose copies could run through layers: the tail is the pooling alone (``tail_layers`` is 0).
    Its probe is copied N times, and the bias is inside its attention. Probes attend to the patches only.
    ``tail_inputs`` is one tensor, the (B, h·w, width) patches after the final norm.
    """

    num_prefix_tokens = 0

    def __init__(self, source: CLIPSource, visual: nn.Module, logit_scale: float, **settings: Any) -> None:
        tower: Any = visual
        trunk = tower.trunk
        self.patch_size = trunk.patch_embed.patch_size[0]
        self.width = trunk.embed_dim
        self.num_heads = trunk.attn_pool.num_heads
        if trunk.num_prefix_tokens or trunk.attn_pool.latent_len != 1:
            raise ValueError(f'{source.model_name} has class tokens or several probes, which is not supported.')
        super().__init__(source, visual, logit_scale, **settings)

    @staticmethod
    def fits(vision_cfg: dict[str, Any]) -> bool:
        """See :meth:`CLIPTower.fits`."""
        return is_timm(vision_cfg, 'vision_transformer', 'map')

    @property
    def layers(self) -> Any:
        """See :attr:`TransformerTower.layers`."""
        return self.visual.trunk.blocks

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """See :meth:`TransformerTower.embed`."""
        trunk = self.visual.trunk
        patches = trunk.patch_embed.proj(images)  # (B, width, h, w)
        grid = (patches.shape[2], patches.shape[3])
        tokens = trunk.patch_embed.norm(patches.flatten(2).transpose(1, 2))
        positions = resample_abs_pos_embed(trunk.pos_embed, grid, num_prefix_tokens=0)
        return trunk.norm_pre(tokens + positions.to(tokens.dtype)), grid

    def run_layer(self, layer: nn.Module, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """See :meth:`TransformerTower.run_layer`."""
        return layer(tokens)

    def tail_inputs(self, tokens: Tensor, grid: tuple[int, int]) -> list[Tensor]:
        """See :meth:`TransformerTower.tail_inputs`."""
        return [self.visual.trunk.norm(tokens)]

    def read(self, stream: CLIPStream, attn_bias: Tensor) -> Tensor:
        """See :meth:`CLIPTower.read`."""
        (tokens,) = stream.tail_inputs
        trunk = self.visual.trunk
        pool, heads = trunk.attn_pool, (self.num_heads, -1)
        probe = pool.q_norm(pool.q(pool.latent).unflatten(-1, heads).transpose(1, 2))  # (1, heads, 1, D)
        k, v = pool.kv(tokens).unflatten(-1, (2, *heads)).permute(2, 0, 3, 1, 4)  # (B, heads, L, D) each
        mask = (attn_bias / pool.head_dim**0.5).to(probe.dtype)
        copies = probe.expand(len(tokens), -1, attn_bias.shape[2], -1)  # (B, heads, N, D)
        read = F.scaled_dot_product_attention(copies, pool.k_norm(k), v, attn_mask=mask)
        feats = pool.proj(read.transpose(1, 2).flatten(2))  # (B, N, width)
        feats = feats + pool.mlp(pool.norm(feats))
        return self.visual.head(trunk.head(trunk.fc_norm(feats)))
