"""Progress within an image that is predicted window by window."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

from mmseg_alignzeg.models.answer import Answer, Drawing
from mmseg_alignzeg.models.tiling import Tile, TiledAnswer

from .preparation import Item

Watch = Callable[[str, int, int], None]  # name of the image, windows done, all windows


def watched(answers: Sequence[Drawing], items: Sequence[Item], watch: Watch | None) -> Sequence[Drawing]:
    """Return the same answers, which report each window that they have encoded.

    Args:
        answers: One for each image; those of whole images do not report anything.
        items: The images.
        watch: The function to call, or None.
    """
    if watch is None:
        return answers
    return [
        _watched(answer, item.source.name, watch) if isinstance(answer, TiledAnswer) else answer
        for answer, item in zip(answers, items, strict=True)
    ]


def _watched(answer: TiledAnswer, name: str, watch: Watch) -> TiledAnswer:
    done = itertools.count(1)

    def encode(tile: Tile) -> Answer:
        found = answer.encode(tile)
        watch(name, next(done), len(answer.tiles))
        return found

    return replace(answer, encode=encode)
