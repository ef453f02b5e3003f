"""Proposal classification: the last CLIP layers, φ_cls and the prototypes (section 3.2 and supplement 1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from open_clip.transformer import ResidualAttentionBlock
from timm.layers import Mlp
from torch import Tensor, nn

from ..precision import full_precision
from .clip_block import run_block
from .clip_vision import CLIPStream, CLIPVision


def attend_to_patches(block: ResidualAttentionBlock, queries: Tensor, tokens: Tensor, attn_bias: Tensor) -> Tensor:
    """Apply one CLIP layer to N copies of [CLS]: softmax((Q·Kᵀ + B) / √D)·V, then the MLP (supplement 1).

    As in SAN, a copy attends to itself and to the patches, but not to other copies or to the image's own [CLS].

    Args:
        block: A ``ResidualAttentionBlock`` of open_clip.
        queries: (B, N, width), the copies of [CLS] before the layer.
        tokens: (B, 1 + L, width), [CLS] and the patches before the layer.
        attn_bias: B, (B, heads or 1, N, L), added before the division by √D.

    Returns:
        (B, N, width).
    """
    num_copies, head_dim = queries.shape[1], block.attn.head_dim
    strangers = ~torch.eye(num_copies, dtype=torch.bool, device=queries.device)
    among_copies = torch.zeros(num_copies, num_copies, dtype=attn_bias.dtype, device=queries.device)
    among_copies = among_copies.masked_fill(strangers, float('-inf')).expand(*attn_bias.shape[:2], -1, -1)
    mask = torch.cat([among_copies, attn_bias / head_dim**0.5], dim=-1)  # (B, heads, N, N + L)
    return run_block(block, queries, tokens[:, 1:], mask)


def background_score(feats: Tensor, backgrounds: Tensor, scale: float) -> Tensor:
    """Return the logit p_g = sum(softmax(p_mg) ⊙ p_mg) over M background prototypes (section 3.2).

    Args:
        feats: (…, D) unit proposal features.
        backgrounds: G, (M, D) unit prototypes.
        scale: τ, the factor from cosines to the logits p_mg.

    Returns:
        (…, 1).
    """
    logits = scale * feats @ backgrounds.t()  # p_mg (…, M)
    return (logits.softmax(dim=-1) * logits).sum(dim=-1, keepdim=True)


@MODELS.register_module()
class CLIPSemanticHead(BaseModule):
    """CLIP's last layers as semantic decoder, φ_cls, and scores for text and background prototypes.

    Args:
        embed_dim: CLIP's joint dimension.
        num_backgrounds: M; 1 is the single background token of methods without the diversity strategy.
        mlp_ratio: Hidden width of φ_cls relative to ``embed_dim`` (not given in the paper).
        init_cfg: MMEngine's initialisation config.
    """

    def __init__(
        self, embed_dim: int = 512, num_backgrounds: int = 10, mlp_ratio: float = 1.0, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.phi_cls = Mlp(embed_dim, int(embed_dim * mlp_ratio))
        # The residual MLP starts as the identity, so that training starts from CLIP's features.
        for parameter in self.phi_cls.fc2.parameters():
            nn.init.zeros_(parameter)
        # Rows have norm 1 on average: AdamW changes each number by about the learning rate; longer rows hardly rotate.
        self.background_prototypes = nn.Parameter(torch.randn(num_backgrounds, embed_dim) * embed_dim**-0.5)

    @property
    def backgrounds(self) -> Tensor:
        """G: (M, D) unit rows."""
        return F.normalize(self.background_prototypes, dim=-1)

    def forward(self, clip: CLIPVision, stream: CLIPStream, attn_bias: Tensor) -> Tensor:
        """Compute one feature per proposal from CLIP's patches.

        Args:
            clip: The frozen vision tower that produced ``stream``.
            stream: Its patch stream.
            attn_bias: B, (B, heads or 1, N, L).

        Returns:
            F: (B, N, D), CLIP features of the proposals, not normalised.
        """
        queries = stream.tail_inputs[0][:, :1].expand(-1, attn_bias.shape[2], -1)  # N copies of [CLS]
        for block, tokens in zip(clip.tail, stream.tail_inputs, strict=True):
            queries = attend_to_patches(block, queries, tokens, attn_bias)
        return clip.project(queries)

    def classify(self, feats: Tensor) -> Tensor:
        """Return F_cls = φ_cls(F): (…, D) → (…, D) unit rows."""
        feats = F.normalize(feats, dim=-1)
        return F.normalize(feats + self.phi_cls(feats), dim=-1)

    def scores(self, cls_feats: Tensor, text_embeds: Tensor, scale: float) -> Tensor:
        """Return P = [τ·F_cls·Tᵀ, p_g], always in float32: in bfloat16 or TF32, similar classes would get equal logits.

        Args:
            cls_feats: F_cls, (…, D) unit rows.
            text_embeds: T, (C, S, D) unit vectors; the score of a class is its highest over S prototypes.
            scale: τ, CLIP's logit scale.

        Returns:
            (…, C + 1) logits, float32; the last column is the background.
        """
        with full_precision(cls_feats.device):
            cls_feats = cls_feats.float()
            background = background_score(cls_feats, self.backgrounds, scale)
            logits = scale * cls_feats @ text_embeds.flatten(0, 1).t()  # (…, C · S)
        if text_embeds.shape[1] > 1:
            logits = logits.unflatten(-1, text_embeds.shape[:2]).amax(dim=-1)
        return torch.cat([logits, background], dim=-1)
