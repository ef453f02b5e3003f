"""Calibrated stacking: the plain remedy against seen bias, beside which predictive bias correction can be judged."""

from __future__ import annotations

import math

from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class CalibratedStacking:
    """argmax_c (s_c − constant·[c ∈ S]): all seen classes lose one constant. Test time only, no parameters.

    Source: Chao et al., "An Empirical Study and Analysis of Generalized Zero-Shot Learning for Object Recognition in
    the Wild", ECCV 2016. In zero-shot segmentation s are the scores of a pixel, the last thing before the argmax:
    ZegCLIP and OTSeg subtract 0.1 from the sigmoid of a pixel's mask logits, and ZegFormer, whose masks and classes
    are multiplied as here, subtracts from Σ_n p_nc·σ(M_n). The latter are the scores meant here, those of
    :func:`~mmseg_alignzeg.models.inference.semantic_stripes`. They are neither logits nor probabilities: where masks
    overlap they exceed 1, so that a constant from a model with other scores means little.

    Args:
        constant: What seen classes lose; 0 changes nothing, a negative one favours them.

    Raises:
        ValueError: If the constant is not a finite number.

    Example:
        >>> import torch
        >>> scores, seen = torch.tensor([[0.5, 0.45], [0.9, 0.1]]), torch.tensor([True, False])
        >>> CalibratedStacking(constant=0.1)(scores, seen)
        tensor([[0.4000, 0.4500],
                [0.8000, 0.1000]])
    """

    def __init__(self, constant: float = 0.1) -> None:
        if not math.isfinite(constant):
            raise ValueError(f'constant={constant} must be a finite number: it is subtracted from scores.')
        self.constant = constant

    def __call__(self, scores: Tensor, seen: Tensor) -> Tensor:
        """Correct the scores of pixels.

        Args:
            scores: (…, C), classes last; not changed in place.
            seen: (C,) bool, which test classes are in S.

        Returns:
            (…, C).
        """
        return scores - self.constant * seen.to(scores)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(constant={self.constant})'
