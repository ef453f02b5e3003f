"""The preference loss: of two noisy versions of an image, the one with the better mask should get the higher score.

Inspired by the preference pairs and the curriculum of Zhu et al., "POPEN: Preference-Based Optimization and Ensemble
for LVLM-Based Reasoning Segmentation", with different formulas; not in the AlignZeg paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor

from ..views import View, make_views
from .ranks import mean_counts


def cover_with_noise(images: Tensor, rectangles: int, size: tuple[float, float]) -> Tensor:
    """Replace random rectangles by normal noise, which has the mean and standard deviation of normalised pixels.

    Args:
        images: (B, 3, H, W), normalised; not changed in place.
        rectangles: Number per image; they may overlap.
        size: Minimum and maximum side, relative to the side of the image.

    Returns:
        (B, 3, H, W).
    """
    num_images, _, *shape = images.shape
    sides = torch.empty(num_images, rectangles, 2, device=images.device).uniform_(*size)
    begins = torch.rand_like(sides) * (1 - sides)
    covered = []  # per axis, (B, R, side) bool
    for axis, length in enumerate(shape):
        centres = (torch.arange(length, device=images.device) + 0.5) / length
        begin, side = begins[..., axis, None], sides[..., axis, None]
        covered.append((centres >= begin) & (centres < begin + side))
    mask = (covered[0][..., :, None] & covered[1][..., None, :]).any(dim=1, keepdim=True)  # (B, 1, H, W)
    return torch.where(mask, torch.randn_like(images), images)


def mask_iou(mask_logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the IoU of masks (σ(M) > 0.5) with ground-truth masks, pair by pair.

    Args:
        mask_logits: (m, h, w).
        targets: (m, H, W) in {0, 1}, covering the same area.

    Returns:
        (m,) in 0..1; 0 where both are empty.
    """
    if not len(targets):
        return targets.new_zeros(0, dtype=torch.float32)
    predicted = F.interpolate(mask_logits[:, None].float(), size=targets.shape[1:], mode='bilinear')[:, 0] > 0
    wanted = targets > 0
    both, either = ((predicted & wanted).sum(dim=(1, 2)), (predicted | wanted).sum(dim=(1, 2)))
    return both / either.clamp(min=1)


def ranked_pairs(ious: Tensor, medium: bool, margin: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Rank the versions of an image, separately for each ground-truth mask.

    Args:
        ious: (V, G), the IoU of V versions of an image with each of G ground-truth masks; NaN if a version has no
            proposal for a mask, which is then left out.
        medium: Compare all pairs of ranks; otherwise only the best with the worst.
        margin: Pairs whose IoU differs by at most this value are ties and left out.

    Returns:
        Better version, worse version and mask of each pair, three (P,) int64.
    """
    order = ious.argsort(dim=0, descending=True, stable=True)  # (V, G)
    complete = ~ious.isnan().any(dim=0)
    found = [torch.empty(3, 0, dtype=torch.long, device=ious.device)]
    last = len(ious) - 1
    for first, second in combinations(range(len(ious)), 2) if medium else [(0, last)]:
        better, worse = order[first], order[second]
        difference = ious.gather(0, better[None])[0] - ious.gather(0, worse[None])[0]
        masks = (complete & (difference > margin)).nonzero().squeeze(1)
        found.append(torch.stack([better[masks], worse[masks], masks]))
    better, worse, masks = torch.cat(found, dim=1)
    return better, worse, masks


def ranking_loss(scores: Tensor, pairs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Compute the mean of −log σ(r_better − r_worse) over pairs (Bradley-Terry model of paired comparisons).

    Args:
        scores: r, (V, G).
        pairs: See :func:`ranked_pairs`.

    Returns:
        Scalar; zero with a gradient if there is no pair.
    """
    better, worse, masks = pairs
    if not len(masks):
        return scores.sum() * 0
    return F.softplus(scores[worse, masks] - scores[better, masks]).mean()


@MODELS.register_module()
class PreferenceLoss:
    """Training settings of :class:`PreferenceHead`; none of the values is from a paper.

    Args:
        views: Arguments of :class:`View` for each of V noisy versions of an image; by default three unchanged views.
            With the views of the ensemble, the score learns the comparisons it is used for.
        rectangles: Number of noise rectangles per version.
        size: Minimum and maximum side of a rectangle, relative to the side of the image.
        margin: IoU differences up to this value are ties.
        medium_from: Step of the head from which medium masks are compared too; before, only the best with the worst.
        interval: Number of steps between computations of the loss, each of which costs V forward passes.
        loss_weight: Weight relative to Eq. (8). Only the score is trained by this loss: the weight only has to keep its
            gradients above AdamW's epsilon after the optimizer has clipped the common norm to 0.01.

    Raises:
        ValueError: If a value is invalid.
    """

    def __init__(
        self,
        views: Sequence[Mapping[str, Any]] | None = None,
        rectangles: int = 3,
        size: Sequence[float] = (0.1, 0.4),
        margin: float = 0.01,
        medium_from: int = 1000,
        interval: int = 1,
        loss_weight: float = 10.0,
    ) -> None:
        self.views = (View(),) * 3 if views is None else make_views(views)
        if len(self.views) < 2:
            raise ValueError(f'views={views} must be at least two: a preference compares versions of an image.')
        if len(size) != 2 or not 0 < size[0] <= size[1] <= 1:
            raise ValueError(
                f'size={size} must be the smallest and the largest side, with 0 < smallest <= largest <= 1.'
            )
        if rectangles < 1 or interval < 1 or medium_from < 0:
            raise ValueError(
                f'rectangles={rectangles} and interval={interval} must be at least 1, medium_from={medium_from} '
                'at least 0.'
            )
        if not 0 <= margin < 1:
            raise ValueError(f'margin={margin} is outside [0, 1): it is a threshold on differences of IoU.')
        self.rectangles = rectangles
        self.size = (float(size[0]), float(size[1]))
        self.margin = margin
        self.medium_from = medium_from
        self.interval = interval
        self.loss_weight = loss_weight

    def noisy(self, images: Tensor) -> Tensor:
        """Return a noisy version of images (B, 3, H, W)."""
        return cover_with_noise(images, self.rectangles, self.size)

    def __call__(self, scores: Tensor, ious: Tensor, step: int) -> Tensor:
        """Compute the weighted loss, a mean over the pairs of all ranks.

        Args:
            scores: r, (V, G) of the matched proposals.
            ious: (V, G), see :func:`ranked_pairs`.
            step: Number of training steps of the head so far.
        """
        pairs = ranked_pairs(ious, step >= self.medium_from, self.margin)
        num_pairs = len(pairs[0])
        (mean_pairs,) = mean_counts(num_pairs)
        return self.loss_weight * (num_pairs / (mean_pairs or 1)) * ranking_loss(scores, pairs)
