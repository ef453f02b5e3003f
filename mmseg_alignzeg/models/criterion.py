"""Eq. (8): matching, and every loss term with its weight."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import seg_data_to_instance_data
from torch import Tensor, nn

from ..transfer import to_device
from .bias_correction import ClassIndicator
from .losses import OVERLAP_LOSSES, HungarianMatcher, Targets, classification_loss, mask_loss, mean_count
from .proposals import Proposals


@MODELS.register_module()
class AlignZegCriterion(nn.Module):
    """Match proposals to ground-truth masks and compute the terms of Eq. (8). It has no parameters.

    Args:
        class_weight: λ1, for L_ce.
        mask_weight: λ2, for both parts of L_mask.
        background_weight: Weight of the background class in L_ce (not given in the paper).
        num_points: Number of points at which masks are matched and compared.
        mask_overlap: Overlap term of L_mask, in addition to cross-entropy: 'dice' as in the paper, or 'jaccard' (JML).
        feature_expansion: Config of :class:`FeatureExpansionLoss`, or None.
        background_diversity: Config of :class:`BackgroundDiversityLoss`, or None.
        ignore_index: Label of pixels without a class.

    Raises:
        ValueError: If ``mask_overlap`` is unknown.
    """

    def __init__(
        self,
        class_weight: float = 2.0,
        mask_weight: float = 5.0,
        background_weight: float = 0.1,
        num_points: int = 12544,
        mask_overlap: str = 'dice',
        feature_expansion: dict[str, Any] | None = None,
        background_diversity: dict[str, Any] | None = None,
        ignore_index: int = 255,
    ) -> None:
        super().__init__()
        if mask_overlap not in OVERLAP_LOSSES:
            raise ValueError(f'mask_overlap={mask_overlap!r} must be one of {list(OVERLAP_LOSSES)}.')
        self.matcher = HungarianMatcher(class_weight, mask_weight, mask_weight, num_points)
        self.class_weight = class_weight
        self.mask_weight = mask_weight
        self.background_weight = background_weight
        self.num_points = num_points
        self.mask_overlap = mask_overlap
        self.ignore_index = ignore_index
        self.feature_expansion = MODELS.build(feature_expansion) if feature_expansion else None
        self.background_diversity = MODELS.build(background_diversity) if background_diversity else None

    def match(self, masks: Tensor, scores: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
        """Match the proposals of one image as in training, to analyse a trained model.

        Args:
            masks: M, (N, h, w) logits. They are compared at random points: seed torch for reproducible results.
            scores: P, (N, C + 1) logits.
            labels: (H', W') int64, covering the same area as the masks.
            ignore_index: Label without a mask.

        Returns:
            (m, 2) int64: matched proposals, and the labels of their ground-truth masks.
        """
        sample = SegDataSample(gt_sem_seg=PixelData(data=labels[None]))
        target = seg_data_to_instance_data(ignore_index, [sample])[0]
        (match,) = self.matcher(scores[None], masks[None], [target])
        proposals, targets = to_device(labels.device, match.proposals, match.targets)
        return torch.stack([proposals, target.labels[targets]], dim=1)

    def forward(
        self,
        proposals: Proposals,
        scores: Tensor,
        targets: Targets,
        text_embeds: Tensor,
        logit_scale: float,
        backgrounds: Tensor,
        class_indicator: ClassIndicator | None,
    ) -> dict[str, Tensor]:
        """Compute the weighted loss terms. It waits for the device once, for the costs of the matching.

        Args:
            proposals: Proposals of B images.
            scores: P, (B, N, C + 1) logits over the seen classes and the background.
            targets: Their ground truth.
            text_embeds: T, (C, D) unit rows of the seen classes.
            logit_scale: τ.
            backgrounds: G, (M, D) unit prototypes.
            class_indicator: φ_bc, or None.

        Returns:
            Scalars by name. Means are over the proposals of all ranks: W processes train like one with a W-fold batch.
        """
        device = scores.device
        matches = self.matcher(scores, proposals.mask_logits, targets.images)
        # Matched proposals of the whole batch, concatenated: image index, proposal index, mask, label.
        images = torch.cat([torch.full_like(match.proposals, i) for i, match in enumerate(matches)])
        matched = torch.cat([match.proposals for match in matches])
        images, matched, wanted = to_device(device, images, matched, torch.cat([match.targets for match in matches]))
        pairs = list(zip(targets.images, wanted.split([len(match.targets) for match in matches]), strict=True))
        masks = torch.cat([target.masks[own] for target, own in pairs])
        labels = torch.cat([target.labels[own] for target, own in pairs])
        all_labels = torch.full(scores.shape[:2], len(text_embeds), device=device)
        all_labels[images, matched] = labels

        weights = [count + (num * scores.shape[1] - count) * self.background_weight for num, count in targets.ranks]
        mean_weight = sum(weights) / len(weights)
        mean_matched = sum(count for _, count in targets.ranks) / len(targets.ranks)
        weight = len(matched) + (all_labels.numel() - len(matched)) * self.background_weight
        # The mean over this rank times its share is its part of the global mean; with a single process the share is 1.
        share_of_weight = weight / (mean_weight or 1)

        loss_bce, loss_overlap = mask_loss(
            proposals.mask_logits[images, matched], masks, mean_matched or 1, self.num_points, self.mask_overlap
        )
        loss_ce = classification_loss(scores, all_labels, self.background_weight)
        losses = {
            'loss_ce': self.class_weight * share_of_weight * loss_ce,
            'loss_bce': self.mask_weight * loss_bce,
            f'loss_{self.mask_overlap}': self.mask_weight * loss_overlap,
        }
        if self.feature_expansion is not None:
            matched_feats = proposals.cls_feats[images, matched]
            counts = [count for _, count in targets.ranks]
            losses['loss_vir'] = self.feature_expansion(matched_feats, labels, text_embeds, logit_scale, counts)
        if self.background_diversity is not None:
            losses['loss_reg'] = self.background_diversity(backgrounds)
        if class_indicator is not None:
            positives, negatives = [match.proposals for match in matches], class_indicator.negatives(matches)
            averaged = (mean_matched, mean_count(sum(map(len, negatives)), device))
            losses['loss_bc'] = class_indicator.loss(proposals.feats, positives, negatives, averaged)
        return losses
