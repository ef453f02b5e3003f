"""What one call of the inferencer asks for."""

from __future__ import annotations

from dataclasses import dataclass

from mmseg_alignzeg.models import AlignZeg, PredictiveBiasCorrection, Question
from mmseg_alignzeg.models.tiling import Tiling

from .words import Words

OTHERS_BELOW = 0.5  # threshold on the scores Σ_n p_nc·σ(M_n)


@dataclass(frozen=True)
class Request:
    """Settings of one call.

    Attributes:
        question: The class names and how their scores are corrected.
        words: The same class names, with notes.
        others: Whether there is a last class for pixels that match no name.
        proposals: Whether proposals are returned.
        tiling: Windows at the size of the image, or None for the inputs of the model's config.
    """

    question: Question
    words: Words
    others: bool
    proposals: bool
    tiling: Tiling | None


def bias_correction(model: AlignZeg, gamma: float | None, pbc: bool) -> PredictiveBiasCorrection | None:
    """Return the bias correction that a call asks for; see :meth:`AlignZeg.choose_correction`.

    Raises:
        ValueError: If γ is out of range, or the model lacks φ_bc.
    """
    if gamma is not None and (isinstance(gamma, (bool, str)) or not 0 < gamma <= 1):
        raise ValueError(f'gamma={gamma!r} must be in (0, 1]; pbc=False disables the bias correction.')
    return model.choose_correction(gamma, pbc)
