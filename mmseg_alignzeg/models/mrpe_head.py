"""Mutually-Refined Proposal Extraction, Eq. (1) (section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from timm.layers import Mlp
from torch import Tensor, nn

from .proposal_head import ProposalHead


class CrossAttention(nn.Module):
    """Eq. (1): softmax(X·W_Q (Y·W_K)ᵀ / √D) Y·W_V.

    Args:
        dim: D.
        num_heads: 1 is the equation as written; with more, D is the dimension of a head.
    """

    def __init__(self, dim: int, num_heads: int = 1) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.w_q = nn.Linear(dim, dim, bias=False)
        self.w_k = nn.Linear(dim, dim, bias=False)
        self.w_v = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Attend from ``x`` (B, n, D) to ``context`` (B, m, D); returns (B, n, D)."""
        q, k, v = (
            projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, ·, D / heads)
            for projected in (self.w_q(x), self.w_k(context), self.w_v(context))
        )
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Refinement(nn.Module):
    """One step of the mutual refinement: X' = X + Eq. (1), then MLP(X'), with or without a second residual.

    Args:
        dim: D.
        num_heads: Heads of the cross-attention.
        mlp_ratio: Hidden width of the MLP relative to D (not given in the paper).
        mlp_residual: Compute X' + MLP(X'). The paper says "residual connections and an MLP layer", but writes MLP(X').
            With False, the visual features are replaced rather than refined (docs/study.md compares both).
    """

    def __init__(self, dim: int, num_heads: int = 1, mlp_ratio: float = 2.0, mlp_residual: bool = True) -> None:
        super().__init__()
        self.attention = CrossAttention(dim, num_heads)
        self.norm = nn.LayerNorm(dim)  # not given in the paper
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.mlp_residual = mlp_residual

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Refine ``x`` (B, n, D) with ``context`` (B, m, D)."""
        x = x + self.attention(x, context)
        refined = self.mlp(self.norm(x))
        return x + refined if self.mlp_residual else refined


@MODELS.register_module()
class MRPEHead(ProposalHead):
    """Mutually-Refined Proposal Extraction: queries and visual features refine each other (section 3.1, figure 2).

    Args:
        embed_dim: D.
        num_queries: N.
        bias_heads: See :class:`ProposalHead`.
        mask_scale: Factor of M, see :class:`ProposalHead`.
        num_heads: Heads of Eq. (1); 1 is the equation as written.
        mlp_ratio: Hidden width of the MLPs relative to D (not given in the paper).
        mlp_residual: See :class:`Refinement`.
        image_drop: Share of training images that use Z_f in place of Z_f' (stochastic depth, not in the paper), for
            splits with few seen classes. Queries represent only seen classes. Features that always attend to them
            learn to belong to a seen class or to no mask, and masks of unseen classes are lost (docs/study.md).
        init_cfg: MMEngine's initialisation config.

    Raises:
        ValueError: If ``image_drop`` is not in [0, 1): a step that is never trained must not run at test time.
    """

    def __init__(
        self,
        embed_dim: int = 240,
        num_queries: int = 100,
        bias_heads: int = 12,
        mask_scale: float = 1.0,
        num_heads: int = 1,
        mlp_ratio: float = 2.0,
        mlp_residual: bool = True,
        image_drop: float = 0.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(embed_dim, num_queries, bias_heads, mask_scale, init_cfg)
        if not 0 <= image_drop < 1:
            raise ValueError(f'image_drop={image_drop} must be in [0, 1): it is a share of the images.')
        self.query_refinement = Refinement(embed_dim, num_heads, mlp_ratio, mlp_residual)
        self.image_refinement = Refinement(embed_dim, num_heads, mlp_ratio, mlp_residual)
        self.final_decoding = Refinement(embed_dim, num_heads, mlp_ratio, mlp_residual)
        self.image_drop = image_drop

    def refine(self, queries: Tensor, feats: Tensor, grid: Sequence[int]) -> tuple[Tensor, Tensor]:
        """See :meth:`ProposalHead.refine`."""
        queries = self.query_refinement(queries, feats)  # Q_m'
        refined = self.image_refinement(feats, queries)  # Z_f'
        if self.training and self.image_drop:
            dropped = torch.rand(len(feats), 1, 1, device=feats.device) < self.image_drop
            refined = torch.where(dropped, feats, refined)
        return self.final_decoding(queries, refined), refined  # Q_m''
