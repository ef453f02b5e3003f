"""L_reg: keep background prototypes apart (Eq. 4, the background diversity strategy)."""

from __future__ import annotations

from mmseg.registry import MODELS
from torch import Tensor, nn

from ...precision import full_precision


def background_diversity(backgrounds: Tensor) -> Tensor:
    """Compute Eq. (4): 2 / (M·(M − 1)) · Σ_{i<j} g_i·g_jᵀ, the mean similarity of all pairs.

    Args:
        backgrounds: G, (M, D) prototypes with unit rows.

    Returns:
        Scalar in [−1, 1].

    Raises:
        ValueError: If there are fewer than two prototypes.
    """
    num = len(backgrounds)
    if num < 2:
        raise ValueError(f'Eq. (4) needs at least two background prototypes, got {num}: raise `num_backgrounds`.')
    with full_precision(backgrounds.device):
        prototypes = backgrounds.float()
        similarity = prototypes @ prototypes.t()
    return similarity.triu(diagonal=1).sum() * 2 / (num * (num - 1))


@MODELS.register_module()
class BackgroundDiversityLoss(nn.Module):
    """λ4·L_reg.

    Args:
        loss_weight: λ4 of Eq. (8).

    Examples:
        >>> import torch
        >>> backgrounds = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        >>> round(background_diversity(backgrounds).item(), 4)  # (0 + 0.6 + 0.8) / 3
        0.4667
        >>> round(BackgroundDiversityLoss(loss_weight=0.5)(backgrounds).item(), 4)
        0.2333
    """

    def __init__(self, loss_weight: float = 1e-4) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, backgrounds: Tensor) -> Tensor:
        """Return the weighted loss of the (M, D) unit prototypes G."""
        return self.loss_weight * background_diversity(backgrounds)
