"""L_ce: classification of all proposals into seen classes and background."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def classification_loss(scores: Tensor, labels: Tensor, background_weight: float = 0.1) -> Tensor:
    """Compute the weighted mean cross-entropy over all proposals of a batch.

    Args:
        scores: P, (B, N, C + 1) logits, background last.
        labels: (B, N) int64; C for proposals without a match.
        background_weight: Weight of the background class (not given in the paper; 0.1 in MaskFormer and SAN).

    Returns:
        Scalar; zero with a gradient if no proposal has a positive weight.

    Examples:
        >>> import torch
        >>> scores = torch.tensor([[[3.0, 1.0, 1.0], [1.0, 1.0, 2.0]]]).log()  # of the true class 3/5 and 2/4
        >>> labels = torch.tensor([[0, 2]])
        >>> round(classification_loss(scores, labels).item(), 4)  # -(log(3/5) + 0.1 · log(2/4)) / 1.1
        0.5274
    """
    if background_weight == 0 and (labels == scores.shape[-1] - 1).all():
        return scores.sum() * 0
    weights = scores.new_ones(scores.shape[-1])
    weights[-1] = background_weight
    return F.cross_entropy(scores.flatten(0, 1), labels.flatten(), weights)
