"""timm's ViT with a class token and rotary positions: EVA02-CLIP; without rotary positions, EVA-CLIP."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import RotaryEmbeddingCat, apply_rot_embed_cat, resample_abs_pos_embed
from timm.models.eva import EvaBlock, EvaBlockPostNorm
from torch import Tensor, nn

from ..clip_source import CLIPSource
from .base import is_timm
from .transformer import ClassTokenTower, copies_mask

#: Arguments of a rotary embedding that do not depend on the grid.
ROTARY = ('dim', 'temperature', 'in_pixels', 'ref_feat_shape', 'grid_offset', 'grid_indexing')


class RotaryTower(ClassTokenTower):
    """timm's ``Eva`` in open_clip. The arguments are those of :class:`TransformerTower`.

    Rotary positions are relative to the grid of the pretraining, so a larger image has finer, not farther positions.
    Copies of [CLS] and prompts are not rotated, as the original [CLS] is not.
    """

    def __init__(self, source: CLIPSource, visual: nn.Module, logit_scale: float, **settings: Any) -> None:
        tower: Any = visual
        trunk = tower.trunk
        self.patch_size = trunk.patch_embed.patch_size[0]
        self.width = trunk.embed_dim
        self.num_heads = trunk.blocks[0].attn.num_heads
        if trunk.rope is not None:  # timm's own holds the angles of one grid only
            trunk.rope = RotaryEmbeddingCat(**{name: getattr(trunk.rope, name) for name in ROTARY})
        super().__init__(source, visual, logit_scale, **settings)

    @staticmethod
    def fits(vision_cfg: dict[str, Any]) -> bool:
        """See :meth:`CLIPTower.fits`."""
        return is_timm(vision_cfg, 'eva', 'token')

    @property
    def layers(self) -> Any:
        """See :attr:`TransformerTower.layers`."""
        return self.visual.trunk.blocks

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """See :meth:`TransformerTower.embed`."""
        trunk = self.visual.trunk
        patches = trunk.patch_embed.proj(images)  # (B, width, h, w)
        grid = (patches.shape[2], patches.shape[3])
        cls_token = trunk.cls_token.to(patches.dtype).expand(len(images), -1, -1)
        tokens = torch.cat([cls_token, patches.flatten(2).transpose(1, 2)], dim=1)
        positions = resample_abs_pos_embed(trunk.pos_embed, grid, num_prefix_tokens=1)
        return trunk.norm_pre(tokens + positions.to(tokens.dtype)), grid

    def run_layer(self, layer: EvaBlock | EvaBlockPostNorm, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """See :meth:`TransformerTower.run_layer`."""
        own = normalised(layer, tokens)
        q, k, v = (project(layer.attn, own, i) for i in range(3))
        angles = self._angles(grid)
        return finish_block(layer, tokens, rotate(q, angles, 1), rotate(k, angles, 1), v)

    def attend(
        self,
        layer: EvaBlock | EvaBlockPostNorm,
        queries: Tensor,
        tokens: Tensor,
        attn_bias: Tensor,
        grid: tuple[int, int],
    ) -> Tensor:
        """See :meth:`ClassTokenTower.attend`."""
        own = normalised(layer, queries)
        sources = torch.cat([own, normalised(layer, tokens[:, 1:])], dim=1)  # (B, N + L, width)
        q, k, v = project(layer.attn, own, 0), project(layer.attn, sources, 1), project(layer.attn, sources, 2)
        k = rotate(k, self._angles(grid), queries.shape[1])
        return finish_block(layer, queries, q, k, v, copies_mask(attn_bias, q.shape[-1]))

    def project(self, tokens: Tensor) -> Tensor:
        """See :meth:`ClassTokenTower.project`."""
        trunk = self.visual.trunk
        return self.visual.head(trunk.head(trunk.fc_norm(trunk.norm(tokens))))

    def _angles(self, grid: tuple[int, int]) -> Tensor | None:
        """Return sines and cosines of the patches, (L, 2·D)."""
        rope = self.visual.trunk.rope
        return None if rope is None else rope.get_embed(list(grid))


def normalised(block: EvaBlock | EvaBlockPostNorm, tokens: Tensor) -> Tensor:
    """Return the input of a layer's attention; EVA02-E normalises after the attention, not before."""
    return tokens if isinstance(block, EvaBlockPostNorm) else block.norm1(tokens)


def project(attn: Any, tokens: Tensor, which: int) -> Tensor:
    """Return queries (0), keys (1) or values (2) of an ``EvaAttention`` for tokens (B, n, width): (B, heads, n, D)."""
    if attn.qkv is None:
        projected = (attn.q_proj, attn.k_proj, attn.v_proj)[which](tokens)
    else:
        bias = (attn.q_bias, attn.k_bias, attn.v_bias)[which]
        projected = F.linear(tokens, attn.qkv.weight.chunk(3)[which], bias)
    heads = projected.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)
    return (attn.q_norm, attn.k_norm, nn.Identity())[which](heads)


def rotate(x: Tensor, angles: Tensor | None, start: int) -> Tensor:
    """Rotate the tokens of the patches, which begin at ``start``, in (B, heads, n, D)."""
    if angles is None:
        return x
    before, patches, after = x.split([start, len(angles), x.shape[2] - start - len(angles)], dim=2)
    return torch.cat([before, apply_rot_embed_cat(patches, angles).to(x.dtype), after], dim=2)


def finish_block(
    block: EvaBlock | EvaBlockPostNorm, tokens: Tensor, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    """Attend, then apply the MLP; both with a residual.

    Args:
        block: A layer.
        tokens: (B, n, width), its input.
        q: (B, heads, n, D).
        k: (B, heads, m, D).
        v: (B, heads, m, D).
        attn_mask: (B, heads or 1, n, m), added to the attention logits after the division by √D.

    Returns:
        (B, n, width).
    """
    mask = None if attn_mask is None else attn_mask.to(q.dtype)
    read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
    read = block.attn.proj(block.attn.norm(read))
    if isinstance(block, EvaBlockPostNorm):
        tokens = tokens + block.norm1(read)
        return tokens + block.norm2(block.mlp(tokens))
    tokens = tokens + (read if block.gamma_1 is None else block.gamma_1 * read)
    hidden = block.mlp(block.norm2(tokens))
    return tokens + (hidden if block.gamma_2 is None else block.gamma_2 * hidden)
