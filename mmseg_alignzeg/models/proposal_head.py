"""From queries and visual features Z_f to mask logits M and the attention bias B (section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn


class ProposalHead(BaseModule):
    """Base of the proposal heads: the queries Q_m, and M and B computed from refined queries and features.

    Args:
        embed_dim: D.
        num_queries: N, the number of mask proposals.
        bias_heads: Attention biases per proposal: 1 as written in the supplement, or one per CLIP head as in SAN.
        mask_scale: Factor of M; 1 is the paper's. With 1 / √D, masks start unsaturated. This improves the plain
            decoder, but MRPE then loses masks of unseen classes (docs/study.md).
        init_cfg: MMEngine's initialisation config.
    """

    def __init__(
        self,
        embed_dim: int = 240,
        num_queries: int = 100,
        bias_heads: int = 12,
        mask_scale: float = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.num_queries = num_queries
        self.bias_heads = bias_heads
        self.mask_scale = mask_scale
        self.queries = nn.Parameter(torch.randn(num_queries, embed_dim))
        self.bias_hidden = nn.Sequential(nn.Linear(embed_dim, embed_dim), nn.GELU())
        self.bias_out = nn.Linear(embed_dim, bias_heads * embed_dim)

    def refine(self, queries: Tensor, feats: Tensor, grid: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Refine Q_m (B, N, D) and Z_f (B, h·w, D) to Q_m'' and Z_f' of the same shapes; ``grid`` is (h, w)."""
        raise NotImplementedError

    def forward(self, feats: Tensor, clip_grid: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Compute mask logits and attention biases.

        Args:
            feats: Z_f, (B, D, h, w).
            clip_grid: Rows and columns of CLIP's patches, the resolution of B.

        Returns:
            Mask logits M = Q_m''·Z_f'ᵀ (B, N, h, w), times ``mask_scale``, and attention bias B = Q_m''·MLP(Z_f')ᵀ
            (B, bias_heads, N, rows·columns), added to CLIP's attention logits before the division by √D.
        """
        batch, _, *grid = feats.shape
        tokens = feats.flatten(2).transpose(1, 2)  # (B, h·w, D)
        queries, tokens = self.refine(self.queries.expand(batch, -1, -1), tokens, grid)
        mask_logits = (self.mask_scale * queries @ tokens.transpose(1, 2)).unflatten(2, grid)  # (B, N, h, w)
        # Resizing is linear, so it can be done before the MLP's last layer, which is cheaper.
        hidden = self.bias_hidden(tokens).transpose(1, 2).unflatten(2, grid)
        hidden = F.interpolate(hidden, size=clip_grid, mode='bilinear').flatten(2).transpose(1, 2)  # (B, l, D)
        keys = self.bias_out(hidden).unflatten(2, (self.bias_heads, -1))  # (B, l, bias_heads, D)
        return mask_logits, torch.einsum('bnd,blhd->bhnl', queries, keys)
