"""Bipartite matching of proposals to ground-truth masks with Mask2Former's costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from mmseg.models.assigners import ClassificationCost, CrossEntropyLossCost, DiceCost
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ...precision import full_precision
from ...transfer import to_host
from .sampling import sample


@dataclass
class Match:
    """Assignment of an image's proposals to its ground-truth masks, on the host.

    Attributes:
        proposals: (m,) int64 indices of matched proposals.
        targets: (m,) int64 indices of their ground-truth masks.
        mask_cost: (N, G) float32, the mask part of the cost of each pair, without gradient.
    """

    proposals: Tensor
    targets: Tensor
    mask_cost: Tensor


class HungarianMatcher:
    """One-to-one assignment with minimum cost.

    Args:
        class_weight: Weight of the classification cost, the negative probability of the class.
        bce_weight: Weight of the binary cross-entropy between masks.
        dice_weight: Weight of the dice cost between masks.
        num_points: Random points at which masks are compared.
    """

    def __init__(
        self,
        class_weight: float = 2.0,
        bce_weight: float = 5.0,
        dice_weight: float = 5.0,
        num_points: int = 12544,
    ) -> None:
        self.class_cost = ClassificationCost(class_weight)
        self.mask_costs = (
            CrossEntropyLossCost(weight=bce_weight, use_sigmoid=True),
            DiceCost(weight=dice_weight, pred_act=True, eps=1.0),
        )
        self.num_points = num_points
        self._warned = False

    @torch.no_grad()
    def __call__(self, scores: Tensor, mask_logits: Tensor, targets: Sequence[InstanceData]) -> list[Match]:
        """Match the images of a batch. It waits for the device once.

        Args:
            scores: (B, N, C + 1) class logits.
            mask_logits: (B, N, h, w).
            targets: Per image, ``labels`` (G,) int64 and ``masks`` (G, H, W) in {0, 1}.

        Returns:
            Per image, min(N, G) pairs. If G > N, some ground-truth masks stay unmatched, with a warning the first time.
        """
        # In half precision, sums over thousands of points would overflow.
        with full_precision(mask_logits.device):
            images = zip(scores.float(), mask_logits.float(), targets, strict=True)
            costs = [cost for image in images for cost in self._costs(*image)]
        on_host = to_host(*costs)
        matches = []
        for mask_cost, cost in zip(on_host[::2], on_host[1::2], strict=True):
            # nan_to_num: scipy would raise an error for non-finite costs, but FiniteGuardHook handles the step.
            proposals, wanted = linear_sum_assignment(cost.nan_to_num())
            matches.append(Match(torch.from_numpy(proposals), torch.from_numpy(wanted), mask_cost))
        return matches

    def _costs(self, scores: Tensor, mask_logits: Tensor, target: InstanceData) -> tuple[Tensor, Tensor]:
        """Return the mask part and the whole of the cost of one image, (N, G) each."""
        points = torch.rand(1, self.num_points, 2, device=mask_logits.device)
        predicted = InstanceData(scores=scores, masks=sample(mask_logits[None], points)[0])
        wanted = InstanceData(labels=target.labels, masks=sample(target.masks[None].float(), points)[0])
        mask_cost = sum(cost(predicted, wanted) for cost in self.mask_costs)  # (N, G)
        num_proposals, num_targets = mask_cost.shape
        if num_targets > num_proposals and not self._warned:
            self._warned = True
            MMLogger.get_current_instance().warning(
                f'An image has {num_targets} ground-truth masks, but the model has only {num_proposals} proposals: '
                'some masks stay unmatched. Increase `num_queries` if this is common. (This warning is given once.)'
            )
        return mask_cost, mask_cost + self.class_cost(predicted, wanted)
