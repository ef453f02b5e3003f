"""The preference score: the quality of a proposal's mask relative to those of other views of the same object.

An experiment for the ensemble of ``answer.py``; not in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..transfer import to_device
from .losses.preference import mask_iou
from .proposals import Proposals, pad
from .views import View

if TYPE_CHECKING:
    from .alignzeg import AlignZeg

NUM_STATISTICS = 3


def mask_statistics(mask_logits: Tensor) -> Tensor:
    """Compute statistics of masks.

    Args:
        mask_logits: (…, h, w).

    Returns:
        (…, 3) in 0..1: area, mean of σ(M) where σ(M) > 0.5 (0 if nowhere), and stability, the IoU of the masks
        thresholded at logits 1 and −1 (0 if both are empty).
    """
    logits = mask_logits.flatten(-2).float()
    probs, inside = logits.sigmoid(), (logits > 0).float()
    confidence = (probs * inside).sum(dim=-1) / inside.sum(dim=-1).clamp(min=1)
    stability = (logits > 1).sum(dim=-1) / (logits > -1).sum(dim=-1).clamp(min=1)
    return torch.stack([probs.mean(dim=-1), confidence, stability], dim=-1)


@MODELS.register_module()
class PreferenceHead(BaseModule):
    """The score r of a proposal: two fully connected layers on the direction of F and on mask statistics.

    The score does not depend on class names. It is trained in addition to the terms of Eq. (8), on detached features
    of extra forward passes, so the segmentor gets no gradient from it and weights can be compared with and without an
    ensemble. (Its gradient does contribute to the norm that the optimizer clips.) Scores are trained on pairs that show
    the same object, so only differences between views of one place are meaningful.

    Args:
        embed_dim: Dimension of F.
        hidden_dim: Width between the layers.
        loss: Config of :class:`PreferenceLoss`, or None to keep the score fixed.
        init_cfg: MMEngine's initialisation config.
    """

    steps: Tensor

    def __init__(
        self,
        embed_dim: int = 512,
        hidden_dim: int = 128,
        loss: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.loss = MODELS.build(loss) if loss else None
        self.layers = nn.Sequential(
            nn.Linear(embed_dim + NUM_STATISTICS, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, 1, bias=False)
        )
        #: Number of training steps, stored in checkpoints for the curriculum; 0 means that the head is untrained.
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))

    def forward(self, feats: Tensor, mask_logits: Tensor) -> Tensor:
        """Return scores r (…,) float32, logits without a meaningful zero.

        Args:
            feats: F, (…, D).
            mask_logits: M, (…, h, w).
        """
        with torch.no_grad():
            evidence = torch.cat([F.normalize(feats.float(), dim=-1), mask_statistics(mask_logits)], dim=-1)
        return self.layers(evidence).squeeze(-1).float()

    def check_trained(self) -> None:
        """Refuse an untrained score.

        Raises:
            ValueError: If the score was trained neither here nor in the loaded checkpoint.
        """
        if not self.steps > 0:
            raise ValueError(
                'The score of `preference` was never trained, or the checkpoint holds none: train with '
                "`preference.loss`, or set weighting='uniform' in `decoder`."
            )

    def score(self, proposals: Proposals) -> Tensor:
        """Return scores r of proposals, (B, N) float32, after :meth:`check_trained`."""
        self.check_trained()
        return self(proposals.feats, proposals.mask_logits)

    def training_losses(self, model: AlignZeg, inputs: Tensor, targets: Sequence[InstanceData]) -> dict[str, Tensor]:
        """Return ``loss_preference``; empty without :attr:`loss`.

        Args:
            model: The segmentor, which computes proposals and matches them.
            inputs: (B, 3, H, W), normalised.
            targets: Per image, ``labels`` (G,) and ``masks`` (G, H, W).
        """
        if self.loss is None:
            return {}
        step = int(self.steps)
        self.steps += 1
        if step % self.loss.interval:  # distributed training expects a gradient, so return a zero that has one
            nothing = self(inputs.new_zeros(0, model.clip.embed_dim), inputs.new_zeros(0, 1, 1))
            return {'loss_preference': nothing.sum()}
        judged = [self.judge(model, self.loss.noisy(inputs), targets, view) for view in self.loss.views]
        scores, ious = zip(*judged, strict=True)
        return {'loss_preference': self.loss(torch.stack(scores), torch.stack(ious), step)}

    def judge(
        self, model: AlignZeg, images: Tensor, targets: Sequence[InstanceData], view: View
    ) -> tuple[Tensor, Tensor]:
        """Score the proposals matched to ground-truth masks, and compute their IoU.

        Args:
            model: See :meth:`training_losses`.
            images: (B, 3, H, W), normalised.
            targets: See :meth:`training_losses`.
            view: The view in which proposals are computed.

        Returns:
            r (ΣG,), with a gradient for the head, and IoU (ΣG,), NaN for a mask without a proposal.
        """
        model.decode_head.eval()  # versions of an image must differ only in their noise
        with torch.no_grad():
            proposals = model.extract_feat(view.apply(pad(images, model.stride), model.stride))
            mask_logits = view.restore(proposals.mask_logits)
            class_scores = model.classify(proposals, model.text_bank(model.vocabulary.seen_classes, images.device))
            feats, masks, ious = [], [], []
            matches = model.criterion.matcher(class_scores, mask_logits, targets)
            for i, (target, match) in enumerate(zip(targets, matches, strict=True)):
                matched, wanted = to_device(images.device, match.proposals, match.targets)
                proposal = matched.new_zeros(len(target.labels))
                proposal[wanted] = matched
                iou = mask_logits.new_full((len(proposal),), float('nan'), dtype=torch.float32)
                iou[wanted] = mask_iou(mask_logits[i, matched], target.masks[wanted])
                feats.append(proposals.feats[i, proposal])
                masks.append(mask_logits[i, proposal])
                ious.append(iou)
        model.decode_head.train(model.training)
        return self(torch.cat(feats), torch.cat(masks)), torch.cat(ious)
