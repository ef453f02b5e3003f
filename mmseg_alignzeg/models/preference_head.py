"""The preference score: how good the mask of a proposal is, compared with those of other views of the same thing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

NUM_STATISTICS = 3


def mask_statistics(mask_logits: Tensor) -> Tensor:
    """What a mask alone tells about itself.

    Args:
        mask_logits: (…, h, w).

    Returns:
        (…, 3) in 0..1: its area, the mean of σ(M) where σ(M) > 0.5 (0 if nowhere), and its stability, which is the
        IoU of the masks at the logits 1 and −1 (0 if both are empty).
    """
    logits = mask_logits.flatten(-2).float()
    probs, inside = logits.sigmoid(), (logits > 0).float()
    confidence = (probs * inside).sum(dim=-1) / inside.sum(dim=-1).clamp(min=1)
    stability = (logits > 1).sum(dim=-1) / (logits > -1).sum(dim=-1).clamp(min=1)
    return torch.stack([probs.mean(dim=-1), confidence, stability], dim=-1)


@MODELS.register_module()
class PreferenceHead(BaseModule):
    """The score r of a proposal, by two fully connected layers on its direction in CLIP's space and its mask.

    It knows no class names, and what it reads is detached: training it leaves the segmentor alone. Scores are trained
    on pairs that show the same object, so that only their differences between views of one place mean something.

    Args:
        embed_dim: Dimension of F.
        hidden_dim: Width between the layers.
        init_cfg: mmengine's initialisation config.
    """

    steps: Tensor

    def __init__(self, embed_dim: int = 512, hidden_dim: int = 128, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.layers = nn.Sequential(
            nn.Linear(embed_dim + NUM_STATISTICS, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, 1, bias=False)
        )
        #: Training steps so far. Kept in checkpoints: a curriculum goes on with it, and 0 tells an untrained head.
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))

    @property
    def trained(self) -> bool:
        """Whether these weights have been trained, here or in the checkpoint they came from."""
        return bool(self.steps > 0)

    def forward(self, feats: Tensor, mask_logits: Tensor) -> Tensor:
        """Scores r (…,) float32, logits without a zero of their own.

        Args:
            feats: F, (…, D).
            mask_logits: M, (…, h, w).
        """
        with torch.no_grad():
            evidence = torch.cat([F.normalize(feats.float(), dim=-1), mask_statistics(mask_logits)], dim=-1)
        return self.layers(evidence).squeeze(-1).float()
