"""Videos for ``alignzeg predict``: frames are segmented one batch at a time and written as they come."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .output import complain, printable

if TYPE_CHECKING:
    import numpy as np

    from ..apis import AlignZegInferencer, Failure

ROWS = 3  # of the legend of a frame
SUFFIXES = ('.mp4', '.m4v', '.mov', '.mkv', '.webm', '.avi')


@dataclass(frozen=True)
class Film:
    """What was found in a video.

    Attributes:
        name: Its path.
        frames: Number of frames.
        shares: Mean share of the pixels of each class, 0..1.
        unseen: Names that count as unseen.
        hints: Hints on the words, and on the frames in which no proposal is sure.
    """

    name: str
    frames: int
    shares: dict[str, float]
    unseen: tuple[str, ...]
    hints: tuple[str, ...]

    def record(self, files: Mapping[str, Path]) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        shares = {name: share for name, share in self.shares.items() if share > 0}
        return {
            'image': self.name,
            'frames': self.frames,
            'shares': shares,
            'unseen': [name for name in self.unseen if name in shares],
            'hints': list(self.hints),
            'files': {kind: str(file) for kind, file in files.items()},
        }


def is_video(path: str) -> bool:
    """Return whether a path is a file with the suffix of a video."""
    return path.lower().endswith(SUFFIXES) and os.path.isfile(path)


def check_formats(kinds: Sequence[str], videos: Sequence[str]) -> None:
    """Refuse formats that videos do not have.

    Raises:
        ValueError: If there are videos, and other formats than overlays.
    """
    if videos and list(kinds) != ['overlay']:
        raise ValueError(
            f'{videos[0]} is a video, which is written as overlay only: leave out --format {",".join(kinds)}, or '
            'process pictures and videos separately.'
        )


def segment_videos(
    inferencer: AlignZegInferencer, targets: Mapping[str, Path], settings: Mapping[str, Any], side_by_side: bool
) -> Iterator[Film | Failure]:
    """Segment videos one after the other, and yield what was found in each, or why it failed."""
    from ..apis import Failure

    for path, target in targets.items():
        try:
            film = segment_video(inferencer, path, target, settings, side_by_side)
        except ValueError as error:
            yield Failure(path, str(error))
        else:
            for hint in film.hints:
                complain(f'hint: {printable(path)}: {hint}')
            yield film


def segment_video(
    inferencer: AlignZegInferencer, path: str, target: Path, settings: Mapping[str, Any], side_by_side: bool
) -> Film:
    """Write a video of overlays; memory holds one batch of frames.

    Args:
        inferencer: The model; the words are encoded once.
        path: The video.
        target: The WebM file to write.
        settings: Arguments of :meth:`AlignZegInferencer.stream`.
        side_by_side: Show each frame beside its overlay.

    Raises:
        ValueError: If the video cannot be decoded, or an argument is invalid.
    """
    from ..apis import Prediction
    from ..apis.hints import far_hint, unsure_hint
    from ..apis.video import open_video, write_video

    sums: Counter[str] = Counter()
    unsure, last = 0, None

    def overlays(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        nonlocal unsure, last
        while batch := list(itertools.islice(frames, settings['batch_size'])):
            for result in inferencer.stream(batch, **settings):
                assert isinstance(result, Prediction)  # an array is always readable
                sums.update(result.shares())
                unsure += bool(unsure_hint(result.best_score))
                last = result
                yield overlay_frame(result, side_by_side)

    with open_video(path) as video:
        count = write_video(target, overlays(video.frames), video.rate)
    assert last is not None
    hints = list(far_hint(last.far_words, len(last.classes) - len(last.plain)))
    hints += [f'no proposal is sure in {unsure:,} of {count:,} frames, the labels are probably wrong'] if unsure else []
    return Film(path, count, {name: sums[name] / count for name in last.classes}, last.unseen, tuple(hints))


def overlay_frame(prediction: Any, side_by_side: bool) -> np.ndarray:
    """Return one frame of the overlay, (height, width, 3) uint8 RGB, of the same size for all frames."""
    from mmseg_alignzeg.visualization.overlay import overlay_picture

    labels, vocabulary = prediction.labels, prediction.vocabulary
    return overlay_picture(prediction.image, labels, vocabulary, prediction.plain, side_by_side, ROWS)
