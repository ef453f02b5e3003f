"""What one call of the inferencer asks for."""

from __future__ import annotations

from dataclasses import dataclass

from mmseg_alignzeg.models import Question
from mmseg_alignzeg.models.tiling import Tiling

from .words import Words


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
