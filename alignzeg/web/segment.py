"""Segmentation of a picture for the page, independent of gradio."""

from __future__ import annotations

import re
import time
from typing import Any, NamedTuple

import numpy as np

from mmseg_alignzeg.visualization import overlay_picture
from mmseg_alignzeg.visualization.overlay import shown_colours

from ..apis import AlignZegInferencer, Prediction
from ..apis.looks import Look
from .limits import REQUEST_SECONDS, LimitError, time_limit

# One request must not keep the text tower of a shared server busy for long, nor make its answer large.
MOST_WORDS = 1000
LONGEST_WORD = 200  # characters
LONGEST_TEXT = 50_000  # characters of one field
SHOWN_PROPOSALS = 20


class Result(NamedTuple):
    """The result of a request, as the page shows it.

    Attributes:
        overlay: (height, width, 3) uint8 RGB, with a legend.
        labels: (H, W) unsigned integers, positions in ``classes``.
        classes: The words in label order; ``'others'`` is last if requested.
        shares: One row per word, largest share first: the word, its share of the pixels in percent, ``'unseen'`` or
            ``''``, and its colour as ``#rrggbb``.
        proposals: The best proposals: word, score 0..1, unseen score 0..1 or None, share of the pixels in percent.
        hints: Reasons to doubt the result, one line each.
        status: A summary line, then the notes, one line each.
    """

    overlay: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    shares: list[list[str | float]]
    proposals: list[list[str | float | None]]
    hints: list[str]
    status: list[str]


def see(inferencer: AlignZegInferencer, picture: np.ndarray) -> Look:
    """Look at a picture, (H, W, 3) uint8 RGB, for :func:`segment`.

    Raises:
        LimitError: If it takes too long (413).
    """
    with time_limit(REQUEST_SECONDS):
        return inferencer.look(picture)


def segment(
    inferencer: AlignZegInferencer,
    picture: np.ndarray | Look | None,
    words: str = '',
    unseen: str = '',
    others: bool = False,
    gamma: float | None = None,
    pbc: bool = True,
    windows: bool = False,
) -> Result:
    """Segment a picture into words, given as text that a user typed.

    Args:
        inferencer: The model.
        picture: (H, W, 3) uint8 RGB, or what :func:`see` saw in it, which is much faster.
        words: Words separated by commas or line breaks; blank for the classes of the model.
        unseen: The words that bias correction treats as unseen; blank for all that were not trained on.
        others: Add a class for pixels that fit none of the words.
        gamma: γ of the bias correction, in (0, 1]; None for that of the model.
        pbc: False skips the bias correction, whatever ``gamma`` is.
        windows: Predict in overlapping windows of the model's input size, in place of scaling the picture down;
            without proposals.

    Raises:
        LimitError: If it takes too long, or there are too many words or characters (413).
        ValueError: If ``picture`` is None, or the inferencer refuses an argument.
    """
    if picture is None:
        raise ValueError('There is no picture yet: choose one, or click an example.')
    begin = time.perf_counter()
    asked: dict[str, Any] = dict(classes=split(words), unseen=split(unseen), others=others, gamma=gamma, pbc=pbc)
    with time_limit(REQUEST_SECONDS):
        if isinstance(picture, Look) and not windows:
            prediction = inferencer.answer(picture, **asked, proposals=True)
        else:
            pixels = picture.items[0].image if isinstance(picture, Look) else picture
            side = min(inferencer.input_scale)
            whole = not windows and inferencer.model.tiling is None
            steps = (side, side - side // 4) if windows else None
            prediction = inferencer(pixels, **asked, proposals=whole, windows=steps)[0]
    vocabulary = prediction.vocabulary
    overlay = overlay_picture(prediction.image, prediction.labels, vocabulary, prediction.plain)
    colours = [f'#{bytes(colour).hex()}' for colour in shown_colours(vocabulary, prediction.plain)]
    seconds = time.perf_counter() - begin
    height, width = prediction.labels.shape
    count = len(prediction.classes) - others
    done = f'{width} × {height} pixels into {count:,} word{"s" * (count != 1)} in {seconds:.2f} s'
    return Result(
        overlay,
        prediction.labels,
        prediction.classes,
        share_rows(prediction, colours),
        proposal_rows(prediction),
        list(prediction.hints),
        [f'{done}.', *prediction.notes],
    )


def split(text: str) -> list[str] | None:
    """Split a text into words at commas, ASCII or not, and line breaks; None without words.

    Raises:
        LimitError: If the text, a word or the number of words exceeds its limit (413).
    """
    if len(text) > LONGEST_TEXT:
        raise LimitError(413, f'{len(text):,} characters are too many for this page: use at most {LONGEST_TEXT:,}.')
    words = [word.strip() for word in re.split('[,，、\n]', text)]
    words = [word for word in words if word]
    if len(words) > MOST_WORDS:
        raise LimitError(413, f'{len(words):,} words are too many for this page: use at most {MOST_WORDS:,}.')
    longest = max(words, key=len, default='')
    if len(longest) > LONGEST_WORD:
        raise LimitError(
            413,
            f'The word {longest[:20]!r}… has {len(longest):,} characters, which is too many for this page: use at '
            f'most {LONGEST_WORD}, and separate words by commas.',
        )
    return words or None


def share_rows(prediction: Prediction, colours: list[str]) -> list[list[str | float]]:
    """Return the rows of ``Result.shares``."""
    rows = zip(prediction.shares().items(), colours, strict=True)
    return [
        [name, round(100 * share, 1), 'unseen' if name in prediction.unseen else '', colour]
        for (name, share), colour in sorted(rows, key=lambda row: -row[0][1])
    ]


def proposal_rows(prediction: Prediction) -> list[list[str | float | None]]:
    """Return the rows of ``Result.proposals``."""
    return [
        [
            proposal.label,
            round(proposal.score, 3),
            None if proposal.unseen_score is None else round(proposal.unseen_score, 3),
            round(100 * float(proposal.mask.mean()), 1),
        ]
        for proposal in (prediction.proposals or ())[:SHOWN_PROPOSALS]
    ]
