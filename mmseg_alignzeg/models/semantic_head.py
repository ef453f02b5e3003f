"""Proposal classification: the tail of CLIP, φ_cls and the prototypes (section 3.2 and supplement 1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from timm.layers import Mlp
from torch import Tensor, nn

from ..precision import full_precision
from .towers import CLIPStream, CLIPTower


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

    def forward(self, clip: CLIPTower, stream: CLIPStream, attn_bias: Tensor) -> Tensor:
        """Compute one feature per proposal from CLIP's patches.

        Args:
            clip: The frozen vision tower that produced ``stream``.
            stream: Its patch stream.
            attn_bias: B, (B, heads or 1, N, L).

        Returns:
            F: (B, N, D), CLIP features of the proposals, not normalised.
        """
        return clip.read(stream, attn_bias)

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
