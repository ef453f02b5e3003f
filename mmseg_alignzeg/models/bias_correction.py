"""Predictive bias correction (section 3.3): φ_bc, its loss, and the correction at test time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..transfer import to_device
from .losses.matching import Match


def select_negatives(mask_cost: Tensor, matched: Tensor, top_k: int) -> Tensor:
    """Select the background proposals that differ from every seen class of the image (figure 4).

    Args:
        mask_cost: (N, G) mask loss of each proposal for each ground-truth mask.
        matched: (m,) int64, proposals matched to a seen class.
        top_k: K; a proposal is selected if it has one of the K largest losses for each of the G classes.

    Returns:
        (N,) bool. All False for G = 0, because an image without labels gives no evidence of background.
    """
    negative = torch.zeros(mask_cost.shape, dtype=torch.bool, device=mask_cost.device)
    if mask_cost.shape[1] == 0:
        return negative.any(dim=1)
    largest = mask_cost.topk(min(top_k, len(mask_cost)), dim=0).indices  # (K, G)
    selected = negative.scatter(0, largest, True).all(dim=1)
    selected[matched] = False
    return selected


def bias_correction_loss(
    logits: Tensor,
    targets: Tensor,
    balanced: bool = False,
    counts: tuple[float | Tensor, float | Tensor] | None = None,
) -> Tensor:
    """Eq. (6): mean binary cross-entropy of the class indicator over the selected proposals.

    Negatives outnumber positives about ten to one, which shifts I towards 1 for all proposals and changes the effect
    of γ.

    Args:
        logits: (n,) indicator logits; the paper's I is their sigmoid.
        targets: (n,) on the CPU, 0 for seen-class proposals ("positive"), 1 for background proposals ("negative").
        balanced: Take the mean over positives and over negatives separately, then their mean (not in the paper).
        counts: Numbers of positives and negatives to average over, see :func:`mean_count`; by default those given.

    Returns:
        Scalar; zero with a gradient if nothing was selected.
    """
    negative = targets.numpy() != 0
    parts = [torch.from_numpy(np.flatnonzero(part)) for part in (~negative, negative)]
    num_positives, num_negatives = map(len, parts) if counts is None else counts
    wanted, *parts = to_device(logits.device, targets.long(), *parts)
    losses = F.binary_cross_entropy_with_logits(logits, wanted.to(logits.dtype), reduction='none')
    if not balanced:
        return losses.sum() / _not_zero(num_positives + num_negatives)
    positives, negatives = (losses[part] for part in parts)
    return positives.sum() / _not_zero(2 * num_positives) + negatives.sum() / _not_zero(2 * num_negatives)


def _not_zero(count: float | Tensor) -> float | Tensor:
    """Return a divisor of a sum over ``count`` items: the count, or for an empty sum any other number."""
    return count.clamp(min=1e-6) if isinstance(count, Tensor) else count or 1


@MODELS.register_module()
class ClassIndicator(BaseModule):
    """φ_bc, Eq. (5): two fully connected layers that predict whether a proposal contains no seen class.

    Args:
        embed_dim: Dimension of F.
        hidden_dim: Width between the layers (not given in the paper).
        top_k: K of the negative selection.
        loss_weight: Weight of L_bc in Eq. (8).
        balanced: See :func:`bias_correction_loss`; False is Eq. (6) as written.
        init_cfg: MMEngine's initialisation config.
    """

    def __init__(
        self,
        embed_dim: int = 512,
        hidden_dim: int = 256,
        top_k: int = 50,
        loss_weight: float = 1.0,
        balanced: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.balanced = balanced
        self.top_k = top_k
        self.loss_weight = loss_weight
        self.layers = nn.Sequential(nn.Linear(embed_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, 1))

    def forward(self, feats: Tensor) -> Tensor:
        """Return indicator logits (…,) of proposal features F (…, D).

        F is detached, as in figure 2, and normalised, so that only its direction matters.
        """
        return self.layers(F.normalize(feats.detach(), dim=-1)).squeeze(-1)

    def negatives(self, matches: Sequence[Match]) -> list[Tensor]:
        """Per image, the (n,) indices of the proposals that :func:`select_negatives` selects, on the CPU."""
        selected = [select_negatives(match.mask_cost, match.proposals, self.top_k) for match in matches]
        return [torch.from_numpy(np.flatnonzero(image.numpy())) for image in selected]

    def loss(
        self,
        feats: Tensor,
        positives: Sequence[Tensor],
        negatives: Sequence[Tensor],
        counts: tuple[float | Tensor, float | Tensor] | None = None,
    ) -> Tensor:
        """Return L_bc over a batch.

        Args:
            feats: F, (B, N, D).
            positives: Per image, (m,) indices of the proposals matched to a seen class, on the CPU.
            negatives: Per image, see :meth:`negatives`.
            counts: See :func:`bias_correction_loss`.
        """
        kinds = [part for pair in zip(positives, negatives, strict=True) for part in pair]  # image by image
        images = torch.cat([torch.full_like(part, i // 2) for i, part in enumerate(kinds)])
        targets = torch.cat([torch.full_like(part, i % 2) for i, part in enumerate(kinds)])
        images, selected = to_device(feats.device, images, torch.cat(kinds))
        logits = self(feats).float()[images, selected]  # (n,)
        return self.loss_weight * bias_correction_loss(logits, targets, self.balanced, counts)


@MODELS.register_module()
class PredictiveBiasCorrection:
    """Eq. (7): lower the seen-class scores of proposals that φ_bc considers unseen. Test time only, no parameters.

    Args:
        gamma: γ in [0, 1]; a proposal is corrected if its indicator exceeds γ.

    Raises:
        ValueError: If γ is outside [0, 1].

    Examples:
        >>> scores = torch.tensor([[[2.0, 1.0, 0.0], [3.0, -1.0, 0.0]]])  # a seen class, an unseen one, background
        >>> indicator, seen = torch.tensor([[0.9, 0.1]]), torch.tensor([True, False])
        >>> PredictiveBiasCorrection(gamma=0.3)(scores, indicator, seen)  # v_min is -1
        tensor([[[-1.,  1.,  0.],
                 [ 3., -1.,  0.]]])
    """

    def __init__(self, gamma: float = 0.3) -> None:
        if not 0 <= gamma <= 1:
            raise ValueError(f'gamma={gamma} is outside [0, 1]: it is a threshold on a probability.')
        self.gamma = gamma

    def __call__(self, scores: Tensor, indicator: Tensor, seen: Tensor) -> Tensor:
        """Correct the scores of a batch.

        Args:
            scores: P, (B, N, C + 1) logits, background last.
            indicator: I, (B, N) probabilities.
            seen: (C,) bool, which test classes are in S.

        Returns:
            P_bc, (B, N, C + 1); v_min is the minimum of P within its image.
        """
        lowest = scores.amin(dim=(1, 2), keepdim=True)
        columns = F.pad(seen, (0, 1), value=False)  # the background is not in S
        suppressed = (indicator > self.gamma)[..., None] & columns
        return torch.where(suppressed, lowest, scores)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(gamma={self.gamma})'
