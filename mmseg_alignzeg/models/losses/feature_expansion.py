"""L_vir: virtual proposals between seen classes (Eq. 2–3, the feature expansion strategy)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.dist import broadcast, get_world_size
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...precision import full_precision
from ...transfer import to_device
from .ranks import gather_rows


def expand(values: Tensor, order: Tensor, beta: float | Tensor) -> Tensor:
    """Compute Eq. (2): β·X + (1 − β)·X[order], with unit rows.

    The mixture is scaled to unit norm like all features and prototypes (not given in the paper). Otherwise, a virtual
    feature would be as close to its two sources as to its own virtual prototype.

    Args:
        values: (n, D) unit rows, F_cls or T of matched proposals.
        order: (n,) a permutation, the same for features and prototypes.
        beta: β in [0, 1].

    Examples:
        >>> values, order = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 0])
        >>> expand(values, order, beta=0.75)  # [3, 1] / √10 and [1, 3] / √10
        tensor([[0.9487, 0.3162],
                [0.3162, 0.9487]])
    """
    return F.normalize(beta * values + (1 - beta) * values[order], dim=-1)


def derangement(size: int) -> Tensor:
    """Return a random order of ``size`` ≥ 2 items without fixed points: the successor on a random cycle.

    Eq. (2) uses a random permutation (``randperm``), which on average mixes one proposal with itself. Such a virtual
    proposal is a real one, for which L_vir only repeats L_ce. (Two proposals of the same class can still be mixed.)
    """
    cycle = torch.randperm(size)
    order = torch.empty_like(cycle)
    order[cycle] = cycle.roll(1)
    return order


def virtual_logits(virtual_feats: Tensor, virtual_embeds: Tensor, text_embeds: Tensor, scale: float) -> Tensor:
    """Compute Eq. (3): P_v[i] = τ·[F_v[i]·Tᵀ, F_v[i]·T_v[i]ᵀ].

    Args:
        virtual_feats: F_v, (n, D) unit rows.
        virtual_embeds: T_v, (n, D) unit rows.
        text_embeds: T, (C, D) unit rows of the seen classes.
        scale: τ, the scale of the other logits.

    Returns:
        (n, C + 1).

    Examples:
        >>> virtual_feats, virtual_embeds = torch.tensor([[0.6, 0.8]]), torch.tensor([[0.8, 0.6]])
        >>> virtual_logits(virtual_feats, virtual_embeds, torch.eye(2), scale=10)  # 10 · (0.48 + 0.48) is the last
        tensor([[6.0000, 8.0000, 9.6000]])
    """
    own = (virtual_feats * virtual_embeds).sum(dim=-1, keepdim=True)
    return scale * torch.cat([virtual_feats @ text_embeds.t(), own], dim=-1)


@MODELS.register_module()
class FeatureExpansionLoss(nn.Module):
    """L_vir = CE(P_v, C + 1) on one shuffle of the matched proposals of all ranks.

    Args:
        alpha: α of Beta(α, α), from which one β is drawn per step.
        loss_weight: λ3 of Eq. (8).

    Attributes:
        pairs: (2, n) int64, the classes mixed in the last step.

    Raises:
        ValueError: If α is not positive.
    """

    def __init__(self, alpha: float = 3.0, loss_weight: float = 1e-2) -> None:
        super().__init__()
        if alpha <= 0:
            raise ValueError(f'alpha={alpha} must be positive: it is the parameter of Beta(alpha, alpha).')
        self.beta = torch.distributions.Beta(float(alpha), float(alpha))
        self.loss_weight = loss_weight
        self.pairs = torch.zeros(2, 0, dtype=torch.long)

    def forward(
        self, cls_feats: Tensor, labels: Tensor, text_embeds: Tensor, scale: float, counts: Sequence[int] = ()
    ) -> Tensor:
        """Compute the weighted loss, a mean over the proposals of all ranks.

        Args:
            cls_feats: F_cls of the matched proposals of this rank's batch, (n, D) unit rows.
            labels: (n,) int64, their classes.
            text_embeds: T, (C, D) unit rows of the seen classes.
            scale: τ.
            counts: n of each rank; not needed with a single process.

        Returns:
            Scalar; zero with a gradient if all ranks together have fewer than two proposals.
        """
        rows = gather_rows(torch.cat([cls_feats.float(), labels[:, None].float()], dim=1), counts)
        feats, labels = rows[:, :-1], rows[:, -1].long()
        if len(feats) < 2:
            return 0 * feats.sum()
        beta, order = self._draw(len(feats), feats.device)
        self.pairs = torch.stack([labels, labels[order]])
        with full_precision(cls_feats.device):  # as for the scores of real proposals
            virtual_feats = expand(feats, order, beta)
            virtual_embeds = expand(text_embeds[labels], order, beta)
            logits = virtual_logits(virtual_feats, virtual_embeds, text_embeds, scale)
        own_class = logits.new_full((len(logits),), logits.shape[1] - 1, dtype=torch.long)
        loss = self.loss_weight * F.cross_entropy(logits, own_class)
        # Each of W ranks has the gradient of its own rows only, and distributed training takes the mean over ranks.
        world = get_world_size()
        return loss if world == 1 else world * loss - (world - 1) * loss.detach()

    def _draw(self, size: int, device: torch.device) -> tuple[float | Tensor, Tensor]:
        """Draw β and the order of a mixture, the same on all ranks: those of rank 0."""
        drawn, order = self.beta.sample(), derangement(size)
        if get_world_size() == 1:
            return float(drawn.numpy()), to_device(device, order)[0]
        (mixture,) = to_device(device, torch.cat([drawn[None].float(), order.float()]))  # exact up to 2**24
        broadcast(mixture)
        return mixture[0], mixture[1:].long()
