"""The proposal head of the ablation's baseline (table 4)."""

from __future__ import annotations

from collections.abc import Sequence

from mmseg.registry import MODELS
from timm.layers import Mlp
from torch import Tensor, nn

from .proposal_head import ProposalHead


@MODELS.register_module()
class PlainDecoderHead(ProposalHead):
    """The ablation's baseline: a transformer decoder like MaskFormer's; the visual features are not refined.

    Args:
        embed_dim: D.
        num_queries: N.
        bias_heads: See :class:`ProposalHead`.
        mask_scale: Factor of M, see :class:`ProposalHead`.
        num_layers: Decoder layers (not given in the paper; 6 in MaskFormer).
        num_heads: Attention heads (not given in the paper; 8 in MaskFormer).
        mlp_ratio: Hidden width of the MLPs relative to D (not given in the paper).
        init_cfg: MMEngine's initialisation config.
    """

    def __init__(
        self,
        embed_dim: int = 240,
        num_queries: int = 100,
        bias_heads: int = 12,
        mask_scale: float = 1.0,
        num_layers: int = 6,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(embed_dim, num_queries, bias_heads, mask_scale, init_cfg)
        layer = nn.TransformerDecoderLayer(
            embed_dim, num_heads, int(embed_dim * mlp_ratio), dropout=0.0, batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, num_layers, norm=nn.LayerNorm(embed_dim))
        self.mask_embed = Mlp(embed_dim, embed_dim)

    def refine(self, queries: Tensor, feats: Tensor, grid: Sequence[int]) -> tuple[Tensor, Tensor]:
        """See :meth:`ProposalHead.refine`."""
        return self.mask_embed(self.decoder(queries, feats)), feats
