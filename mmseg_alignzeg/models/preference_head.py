"""The preference score: how good the mask of a proposal is, compared with those of other views of the same thing.

An experiment beside the paper, for the ensemble of ``decoding.py``.
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

from .losses.preference import mask_iou
from .proposals import Proposals, pad
from .views import View

if TYPE_CHECKING:
    from .alignzeg import AlignZeg

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

    It knows no class names. It is trained beside the terms of Eq. (8) on detached features of extra forward passes
    without gradient, so that nothing of it flows into the segmentor: weights can be compared with and without
    ensemble. (Its gradient does count in the norm that the optimizer clips.) Scores are trained on pairs that show the
    same object, so that only their differences between views of one place mean something.

    Args:
        embed_dim: Dimension of F.
        hidden_dim: Width between the layers.
        loss: Config of :class:`PreferenceLoss`, or None to leave the score as it is.
        init_cfg: mmengine's initialisation config.
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
        #: Training steps so far. Kept in checkpoints: a curriculum goes on with it, and 0 tells an untrained head.
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))

    def forward(self, feats: Tensor, mask_logits: Tensor) -> Tensor:
        """Scores r (…,) float32, logits without a zero of their own.

        Args:
            feats: F, (…, D).
            mask_logits: M, (…, h, w).
        """
        with torch.no_grad():
            evidence = torch.cat([F.normalize(feats.float(), dim=-1), mask_statistics(mask_logits)], dim=-1)
        return self.layers(evidence).squeeze(-1).float()

    def check_trained(self) -> None:
        """Refuse to score without training.

        Raises:
            ValueError: If the score was never trained, here or in the checkpoint it came from.
        """
        if not self.steps > 0:
            raise ValueError(
                'The score of `preference` was never trained, or the checkpoint holds none: train with '
                "`preference.loss`, or set weighting='uniform' in `decoder`."
            )

    def score(self, proposals: Proposals) -> Tensor:
        """Scores r of proposals, (B, N) float32; see :meth:`check_trained`."""
        self.check_trained()
        return self(proposals.feats, proposals.mask_logits)

    def training_losses(self, model: AlignZeg, inputs: Tensor, targets: Sequence[InstanceData]) -> dict[str, Tensor]:
        """``loss_preference``; empty without :attr:`loss`.

        Args:
            model: Makes proposals and matches them.
            inputs: (B, 3, H, W), normalised.
            targets: Per image, ``labels`` (G,) and ``masks`` (G, H, W).
        """
        if self.loss is None:
            return {}
        step = int(self.steps)
        self.steps += 1
        if step % self.loss.interval:  # a zero with a gradient, which distributed training expects
            nothing = self(inputs.new_zeros(0, model.clip.embed_dim), inputs.new_zeros(0, 1, 1))
            return {'loss_preference': nothing.sum()}
        judged = [self.judge(model, self.loss.noisy(inputs), targets, view) for view in self.loss.views]
        scores, ious = zip(*judged, strict=True)
        return {'loss_preference': self.loss(torch.stack(scores), torch.stack(ious), step)}

    def judge(
        self, model: AlignZeg, images: Tensor, targets: Sequence[InstanceData], view: View
    ) -> tuple[Tensor, Tensor]:
        """Score the proposals that matching gives to the true masks, and measure them.

        Args:
            model: See :meth:`training_losses`.
            images: (B, 3, H, W), normalised.
            targets: See :meth:`training_losses`.
            view: How the images are looked at.

        Returns:
            r (ΣG,), with a gradient for the head, and IoU (ΣG,), NaN where a mask has no proposal.
        """
        model.decode_head.eval()  # versions of an image differ by their noise alone
        with torch.no_grad():
            proposals = model.extract_feat(view.apply(pad(images, model.stride), model.stride))
            mask_logits = view.restore(proposals.mask_logits)
            class_scores = model.classify(proposals, model.text_bank(model.vocabulary.seen_classes, images.device))
            feats, masks, ious = [], [], []
            for i, target in enumerate(targets):
                match = model.criterion.matcher(class_scores[i], mask_logits[i], target)
                proposal = match.proposals.new_zeros(len(target.labels))
                proposal[match.targets] = match.proposals
                iou = match.mask_cost.new_full((len(proposal),), float('nan'))
                iou[match.targets] = mask_iou(mask_logits[i, match.proposals], target.masks[match.targets])
                feats.append(proposals.feats[i, proposal])
                masks.append(mask_logits[i, proposal])
                ious.append(iou)
        model.decode_head.train(model.training)
        return self(torch.cat(feats), torch.cat(masks)), torch.cat(ious)
