"""Inference settings (class names and score corrections), separate from the model, so each caller can have its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..vocabulary import Vocabulary
from .bias_correction import PredictiveBiasCorrection
from .calibrated_stacking import CalibratedStacking
from .class_embeddings import Bank
from .inference import drop_background

BACKGROUND_RULES = ('share', 'ignore')


@dataclass(frozen=True)
class Question:
    """The class names to predict, and how their scores are corrected.

    Attributes:
        vocabulary: C class names in label order; its unseen classes are those outside S of Eq. (7).
        text_bank: Embeds the class names.
        bias_correction: PBC, or None.
        calibration: Calibrated stacking, or None.
        background_at_test: See :func:`~mmseg_alignzeg.models.inference.drop_background`.

    Raises:
        ValueError: If ``background_at_test`` is unknown.
    """

    vocabulary: Vocabulary
    text_bank: Bank
    bias_correction: PredictiveBiasCorrection | None = None
    calibration: CalibratedStacking | None = None
    background_at_test: str = 'share'

    def __post_init__(self) -> None:
        if self.background_at_test not in BACKGROUND_RULES:
            raise ValueError(f"background_at_test={self.background_at_test!r} must be 'share' or 'ignore'.")

    @property
    def classes(self) -> tuple[str, ...]:
        """The C class names in label order."""
        return self.vocabulary.classes

    @property
    def seen(self) -> Tensor:
        """(C,) bool, whether each class is in S."""
        return ~self.vocabulary.unseen_mask

    def without_correction(self) -> Question:
        """Return the same question without PBC."""
        return replace(self, bias_correction=None)

    def text_embeds(self, device: torch.device | str) -> Tensor:
        """Return embeddings of the class names, see :class:`TextBank`."""
        return self.text_bank(self.classes, device)

    def probs(self, scores: Tensor, indicator: Tensor | None) -> Tensor:
        """Compute class probabilities after bias correction.

        Args:
            scores: P, (B, N, C + 1) logits, background last.
            indicator: I, (B, N) probabilities; may be None without PBC.

        Returns:
            (B, N, C); rows sum to at most 1.
        """
        if self.bias_correction is not None and indicator is not None:
            scores = self.bias_correction(scores, indicator, self.seen.to(scores.device))
        return drop_background(scores, self.background_at_test)

    def class_bias(self, device: torch.device | str) -> Tensor | None:
        """Return (C,) float32, added by calibration to the pixel scores of each class; None without calibration."""
        if self.calibration is None:
            return None
        return self.calibration(torch.zeros(len(self.classes), device=device), self.seen)
