"""What `alignzeg predict` says: a line or a JSON object per picture, and notes and hints once per kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .output import complain, printable

if TYPE_CHECKING:
    from ..apis import Prediction

SHOWN = 4  # classes named in the result line of a picture
NAMED = 3  # pictures named in a hint


class Remarks:
    """Notes and hints on the pictures of one run; each kind is said once, with the number of pictures."""

    def __init__(self) -> None:
        self.done = self.pictures = self.noted = 0
        self.far_told = False
        self.unsure: dict[str, float] = {}  # best scores of the first pictures
        self.unsure_count, self.unsure_range = 0, (1.0, 0.0)

    def add(self, prediction: Prediction) -> None:
        """Say what is new about a picture, and count the rest."""
        from ..apis.hints import far_hint, unsure_hint

        self.done += 1
        self.pictures += 1
        self.noted += bool(prediction.notes)
        if self.noted == 1:
            for note in prediction.notes:
                complain(f'note: {printable(prediction.name)}: {note}')
        if not self.far_told:
            self.far_told = True
            for hint in far_hint(prediction.far_words, len(prediction.classes) - len(prediction.plain)):
                complain(f'hint: {hint}')
        score = prediction.best_score
        if score is not None and unsure_hint(score):
            self.unsure_count += 1
            low, high = self.unsure_range
            self.unsure_range = min(low, score), max(high, score)
            if len(self.unsure) < NAMED:
                self.unsure[prediction.name] = score

    def finish(self) -> None:
        """Say how many pictures have notes and hints."""
        if self.noted > 1:
            complain(f'note: {self.noted} pictures have such notes; --json prints all of them')
        if self.unsure_count:
            low, high = (f'{score:.3f}' for score in self.unsure_range)
            named = ', '.join(map(printable, self.unsure)) + (', …' if self.unsure_count > len(self.unsure) else '')
            complain(
                f'hint: no proposal is sure in {self.unsure_count} of {self.pictures} pictures (best score '
                f'{low if low == high else f"{low} to {high}"} of 1); the labels are probably wrong: {named}'
            )


def record(prediction: Prediction, files: Mapping[str, Path]) -> dict[str, Any]:
    """Return the object that ``--json`` prints for a picture."""
    shares = {name: share for name, share in prediction.shares().items() if share > 0}
    return {
        'image': prediction.name,
        'shares': shares,
        'unseen': [name for name in prediction.unseen if name in shares],
        'notes': list(prediction.notes),
        'hints': list(prediction.hints),
        'best_score': prediction.best_score,
        'files': {kind: str(file) for kind, file in files.items()},
    }


def line(name: str, shares: Mapping[str, float], unseen: tuple[str, ...], files: Mapping[str, Path]) -> str:
    """Return the line that is printed for a picture without ``--json``.

    Args:
        name: The picture.
        shares: Share of the pixels of each class, 0..1.
        unseen: Names that are marked.
        files: The files written.
    """
    from mmseg_alignzeg.visualization.legend import share_text

    ordered = sorted(((share, word) for word, share in shares.items() if share > 0), key=lambda pair: -pair[0])
    told = [f'{word}{" (unseen)" if word in unseen else ""} {share_text(share)}' for share, word in ordered[:SHOWN]]
    told += [f'{len(ordered) - SHOWN} more'] if len(ordered) > SHOWN else []
    return f'{name}: {", ".join(told)} -> {", ".join(map(str, files.values()))}'
