"""The result files of a prediction, with names that never collide between pictures."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..apis import Prediction

SUFFIXES = {
    'overlay': '_overlay.png', 'png': '_labels.png', 'coco': '_coco.json', 'labelme': '_labelme.json',
    'csv': '_shares.csv', 'proposals': '_proposals.npz',
}  # fmt: skip
FILM = '_overlay.webm'
CLASSES = 'classes.json'
LONGEST = 200  # bytes of a name; file systems allow 255, and the suffixes of results and temporary files are added


def output_names(paths: Sequence[str]) -> list[str]:
    """Return a unique base name for the result files of each picture.

    This is the picture's name without suffix. Where two names are equal, the folder is put in front (``a/x.jpg`` and
    ``b/x.jpg`` become ``a_x`` and ``b_x``); where that is not enough, as for ``x.jpg`` and ``x.png``, a number is
    appended. Upper and lower case, and an accent written as one character or two, count as equal, as they do on some
    file systems. A name of more than ``LONGEST`` bytes is cut, and a digest of the whole name is appended.
    """
    names = [Path(path).stem for path in paths]
    taken = Counter(map(_fold, names))
    for i, path in enumerate(paths):
        if taken[_fold(names[i])] > 1:
            names[i] = f'{Path(path).absolute().parent.name}_{names[i]}'.lstrip('_')
    seen: set[str] = set()
    for i, name in enumerate(map(_shortened, names)):
        number, names[i] = 1, name
        while _fold(names[i]) in seen:
            number += 1
            names[i] = f'{name}_{number}'
        seen.add(_fold(names[i]))
    return names


def _fold(name: str) -> str:
    return unicodedata.normalize('NFC', name).casefold()


def _shortened(name: str) -> str:
    encoded = os.fsencode(name)
    if len(encoded) <= LONGEST:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    return f'{encoded[: LONGEST - 17].decode(errors="ignore")}_{digest}'


def save_classes(prediction: Prediction, folder: Path, overwrite: bool) -> None:
    """Write ``classes.json``, the meaning of the values in label maps: value ``i`` is ``classes[i]``.

    Raises:
        ValueError: If the folder has label maps of other words and ``overwrite`` is False.
    """
    from mmseg_alignzeg.files import whole_file

    path = folder / CLASSES
    content = {'classes': list(prediction.classes), 'unseen': list(prediction.unseen)}
    if path.exists() and not overwrite and json.loads(path.read_text(encoding='utf-8')) != content:
        raise ValueError(f'{path} belongs to label maps of other words: pass the same words, or another --out.')
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + '\n', encoding='utf-8')
