"""L_vir: virtual proposals between seen classes (Eq. 2–3, the feature expansion strategy)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn


def expand(values: Tensor, order: Tensor, beta: float) -> Tensor:
    """Eq. (2): β·X + (1 − β)·X[order], with unit rows.

    The mixture is scaled to unit norm like every other feature and prototype (not given in the paper): otherwise
    a virtual feature would be as close to its two sources as to its own virtual prototype.

    Args:
        values: (n, D) unit rows, F_cls or T of matched proposals.
        order: (n,) a permutation, the same for features and prototypes.
        beta: β in [0, 1].
    """
    return F.normalize(beta * values + (1 - beta) * values[order], dim=-1)


def virtual_logits(virtual_feats: Tensor, virtual_embeds: Tensor, text_embeds: Tensor, scale: float) -> Tensor:
    """Eq. (3): P_v[i] = τ·[F_v[i]·Tᵀ, F_v[i]·T_v[i]ᵀ].

    Args:
        virtual_feats: F_v, (n, D) unit rows.
        virtual_embeds: T_v, (n, D) unit rows.
        text_embeds: T, (C, D) unit rows of the seen classes.
        scale: τ, the scale of the other logits.

    Returns:
        (n, C + 1).
    """
    own = (virtual_feats * virtual_embeds).sum(dim=-1, keepdim=True)
    return scale * torch.cat([virtual_feats @ text_embeds.t(), own], dim=-1)


@MODELS.register_module()
class FeatureExpansionLoss(nn.Module):
    """L_vir = CE(P_v, C + 1) on one shuffle of the batch's matched proposals.

    Args:
        alpha: α of Beta(α, α), from which one β is drawn per step.
        loss_weight: λ3 of Eq. (8).

    Attributes:
        self_mixed: Share of the last shuffle's proposals that were mixed with themselves, a scalar tensor in [0, 1].

    Raises:
        ValueError: If α is not positive.
    """

    def __init__(self, alpha: float = 3.0, loss_weight: float = 1e-2) -> None:
        super().__init__()
        if alpha <= 0:
            raise ValueError(f'alpha={alpha} must be positive: it shapes the distribution Beta(alpha, alpha).')
        self.beta = torch.distributions.Beta(float(alpha), float(alpha))
        self.loss_weight = loss_weight
        self.self_mixed = torch.zeros(())

    def forward(self, cls_feats: Tensor, labels: Tensor, text_embeds: Tensor, scale: float) -> Tensor:
        """Compute the weighted loss.

        Args:
            cls_feats: F_cls of the matched proposals of the batch, (n, D) unit rows.
            labels: (n,) int64, their seen classes.
            text_embeds: T, (C, D) unit rows of the seen classes.
            scale: τ.

        Returns:
            Scalar; zero, with a gradient, for n = 0.
        """
        if len(cls_feats) == 0:
            return cls_feats.sum()
        beta = self.beta.sample().item()
        order = torch.randperm(len(cls_feats), device=cls_feats.device)
        self.self_mixed = (order == torch.arange(len(order), device=order.device)).float().mean()
        with torch.autocast(cls_feats.device.type, enabled=False):  # as for the scores of real proposals
            virtual_feats = expand(cls_feats.float(), order, beta)
            virtual_embeds = expand(text_embeds[labels], order, beta)
            logits = virtual_logits(virtual_feats, virtual_embeds, text_embeds, scale)
        own_class = logits.new_full((len(logits),), logits.shape[1] - 1, dtype=torch.long)
        return self.loss_weight * F.cross_entropy(logits, own_class)
