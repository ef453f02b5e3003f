"""Calibrated stacking: a simple correction of the bias towards seen classes, as a reference for PBC."""

from __future__ import annotations

import math

from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class CalibratedStacking:
    """argmax_c (s_c − constant·[c ∈ S]): subtract a constant from all seen classes. Test time only, no parameters.

    Source: Chao et al., "An Empirical Study and Analysis of Generalized Zero-Shot Learning for Object Recognition in
    the Wild", ECCV 2016. In zero-shot segmentation, s are the scores of a pixel just before the argmax. ZegCLIP and
    OTSeg subtract 0.1 from the sigmoid of a pixel's mask logits. ZegFormer, which multiplies masks and class
    probabilities as this model does, subtracts from Σ_n p_nc·σ(M_n). Here, s are the latter, the scores of
    :meth:`~mmseg_alignzeg.models.answer.Drawing.stripes`. They are neither logits nor probabilities and exceed 1
    where masks overlap, so constants are not comparable between models with different scores.

    Args:
        constant: Value subtracted from seen classes; 0 has no effect, a negative value favours seen classes.

    Raises:
        ValueError: If the constant is not a finite number.

    Examples:
        >>> import torch
        >>> scores, seen = torch.tensor([[0.5, 0.45], [0.9, 0.1]]), torch.tensor([True, False])
        >>> CalibratedStacking(constant=0.1)(scores, seen)
        tensor([[0.4000, 0.4500],
                [0.8000, 0.1000]])
    """

    def __init__(self, constant: float = 0.1) -> None:
        if not math.isfinite(constant):
            raise ValueError(f'constant={constant} must be a finite number.')
        self.constant = constant

    def __call__(self, scores: Tensor, seen: Tensor) -> Tensor:
        """Correct pixel scores.

        Args:
            scores: (…, C), classes last; not changed in place.
            seen: (C,) bool, whether each class is in S.

        Returns:
            (…, C).
        """
        return scores - self.constant * seen.to(scores)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(constant={self.constant})'
