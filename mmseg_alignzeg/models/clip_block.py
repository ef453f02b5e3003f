"""One layer of CLIP's vision tower, used in the patch stream and in the semantic decoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn


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
