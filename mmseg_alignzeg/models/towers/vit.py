"""open_clip's plain ViT with a class token: OpenAI, LAION, DataComp, DFN, MetaCLIP."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.model import CLIPVisionCfg
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from ..clip_source import CLIPSource
from .transformer import ClassTokenTower, copies_mask

#: Options of open_clip's ViT that may differ from their defaults; others (pooling, kinds of layers) are not supported.
FREE = frozenset(
    'image_size layers width head_width mlp_ratio patch_size ls_init_value patch_dropout pos_embed_type no_ln_pre '
    'norm_kwargs act_kwargs'.split()
)


class ViTTower(ClassTokenTower):
    """open_clip's ``VisionTransformer``. The arguments are those of :class:`TransformerTower`."""

    def __init__(self, source: CLIPSource, visual: nn.Module, logit_scale: float, **settings: Any) -> None:
        use_lean_gelu(visual)
        tower: Any = visual
        self.patch_size = tower.patch_size[0]
        self.width = tower.conv1.out_channels
        self.num_heads = tower.transformer.resblocks[0].attn.num_heads
        super().__init__(source, visual, logit_scale, **settings)

    @staticmethod
    def fits(vision_cfg: dict[str, Any]) -> bool:
        """See :meth:`CLIPTower.fits`."""
        if not isinstance(vision_cfg.get('layers', CLIPVisionCfg.layers), int):  # a ResNet has a list
            return False
        return all(getattr(CLIPVisionCfg, key) == value for key, value in vision_cfg.items() if key not in FREE)

    @property
    def layers(self) -> Any:
        """See :attr:`TransformerTower.layers`."""
        return self.visual.transformer.resblocks

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """See :meth:`TransformerTower.embed`."""
        patches = self.visual.conv1(images)  # (B, width, h, w)
        grid = (patches.shape[2], patches.shape[3])
        cls_token = self.visual.class_embedding.to(patches.dtype).expand(len(images), 1, -1)
        tokens = torch.cat([cls_token, patches.flatten(2).transpose(1, 2)], dim=1)
        positions = resample_abs_pos_embed(self.visual.positional_embedding[None], grid, num_prefix_tokens=1)
        return self.visual.ln_pre(tokens + positions.to(tokens.dtype)), grid

    def run_layer(self, layer: ResidualAttentionBlock, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """See :meth:`TransformerTower.run_layer`."""
        return run_block(layer, tokens)

    def attend(
        self,
        layer: ResidualAttentionBlock,
        queries: Tensor,
        tokens: Tensor,
        attn_bias: Tensor,
        grid: tuple[int, int],
    ) -> Tensor:
        """See :meth:`ClassTokenTower.attend`."""
        return attend_to_patches(layer, queries, tokens, attn_bias)

    def project(self, tokens: Tensor) -> Tensor:
        """See :meth:`ClassTokenTower.project`."""
        return self.visual.ln_post(tokens) @ self.visual.proj


class LeanQuickGELU(nn.Module):
    """x·σ(1.702·x) as a scaled SiLU, which keeps one tensor for the backward pass; open_clip's keeps two."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it element by element; any shape."""
        return F.silu(1.702 * x) / 1.702


def use_lean_gelu(visual: nn.Module) -> None:
    """Replace every ``QuickGELU`` of open_clip in a tower."""
    for module in visual.modules():
        for name, child in module.named_children():
            if isinstance(child, QuickGELU):
                setattr(module, name, LeanQuickGELU())


def attend_to_patches(block: ResidualAttentionBlock, queries: Tensor, tokens: Tensor, attn_bias: Tensor) -> Tensor:
    """See :meth:`ClassTokenTower.attend`."""
    return run_block(block, queries, tokens[:, 1:], copies_mask(attn_bias, block.attn.head_dim))


def run_block(
    block: ResidualAttentionBlock, tokens: Tensor, context: Tensor | None = None, attn_mask: Tensor | None = None
) -> Tensor:
    """Let tokens attend to themselves and to ``context``, then apply the MLP; both with a residual.

    The result equals ``block(tokens)``, but ``nn.MultiheadAttention`` is avoided: if a gradient flows through a frozen
    layer (deep prompts), that module computes its input projection as hundreds of small products.

    Args:
        block: A ``ResidualAttentionBlock`` of open_clip.
        tokens: (B, n, width), input tokens of the layer.
        context: (B, m, width), additional keys and values, normalised like ``tokens``; or None.
        attn_mask: (B, heads or 1, n, n + m), added to the attention logits after the division by √D.

    Returns:
        (B, n, width).
    """
    attn = block.attn
    own = block.ln_1(tokens)
    weight, bias, heads = attn.in_proj_weight, attn.in_proj_bias, (-1, attn.head_dim)
    if context is None:
        q, k, v = F.linear(own, weight, bias).unflatten(-1, (3, *heads)).permute(2, 0, 3, 1, 4)  # (B, heads, n, D) each
    else:
        sources = torch.cat([own, block.ln_1(context)], dim=1)  # (B, n + m, width)
        split = [attn.embed_dim, 2 * attn.embed_dim]
        (w_q, w_kv), (b_q, b_kv) = weight.split(split), bias.split(split)
        q = F.linear(own, w_q, b_q).unflatten(-1, heads).transpose(1, 2)  # (B, heads, n, D)
        k, v = F.linear(sources, w_kv, b_kv).unflatten(-1, (2, *heads)).permute(2, 0, 3, 1, 4)
    mask = None if attn_mask is None else attn_mask.to(q.dtype)
    read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
    tokens = tokens + block.ls_1(attn.out_proj(read))
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
