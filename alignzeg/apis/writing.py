"""Files of a prediction: overlay, label map, proposals, and the formats of annotation tools."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mmseg_alignzeg.files import whole_file

from .exports import COLUMNS, share_rows, to_coco, to_polygons

if TYPE_CHECKING:
    from .prediction import Prediction

FORMATS = ('overlay', 'png', 'coco', 'labelme', 'csv', 'proposals')
MOST_LABELS = 2**16  # of a label map: PNG has at most 16 bits
FORMULA = ('=', '+', '-', '@', '\t', '\r')  # a spreadsheet would execute a cell that begins so


def save_prediction(
    prediction: Prediction, path: str | os.PathLike, format: str, overwrite: bool = False, side_by_side: bool = False
) -> None:
    """Write a prediction as one file, atomically; its folder is created if necessary.

    Args:
        prediction: The prediction of one image.
        path: The file.
        format: One of ``FORMATS``, see :meth:`Prediction.save`.
        overwrite: Replace the file if it exists.
        side_by_side: Draw the image beside its overlay.

    Raises:
        FileExistsError: If the file exists and ``overwrite`` is False.
        ValueError: If the format is unknown, or a label map does not have enough bits for the labels.
    """
    if format not in FORMATS:
        raise ValueError(f'format={format!r} must be one of {", ".join(FORMATS)}.')
    if format == 'png' and len(prediction.classes) > MOST_LABELS:
        raise ValueError(f'A label map cannot hold {len(prediction.classes):,} classes: at most {MOST_LABELS:,}.')
    target = Path(path)
    if not overwrite and os.path.lexists(target):
        raise FileExistsError(f'{target} exists already: pass overwrite=True, or another path.')
    with whole_file(target, flush=False) as part:
        if format == 'overlay':
            drawn = 'JPEG' if target.suffix.lower() in ('.jpg', '.jpeg') else 'PNG'
            prediction.overlay(side_by_side).save(part, drawn)
        elif format == 'png':
            Image.fromarray(prediction.labels).save(part, 'PNG')
        elif format == 'proposals':
            _save_proposals(prediction, part)
        elif format == 'csv':
            _save_shares(prediction, part)
        else:
            content = to_coco(prediction) if format == 'coco' else _labelme(prediction, target)
            part.write_text(json.dumps(content, ensure_ascii=False), encoding='utf-8', newline='')


def _labelme(prediction: Prediction, target: Path) -> dict[str, Any]:
    """Return the polygons, with the path of the image as seen from the folder of the file, which labelme expects."""
    content = to_polygons(prediction)
    if os.path.isfile(prediction.name):
        content['imagePath'] = os.path.relpath(prediction.name, target.parent)
    return content


def _save_shares(prediction: Prediction, path: Path) -> None:
    with path.open('w', encoding='utf-8', newline='') as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for image, name, *numbers in share_rows(prediction):
            table.writerow([*(f"'{text}" if text.startswith(FORMULA) else text for text in (image, name)), *numbers])


def _save_proposals(prediction: Prediction, path: Path) -> None:
    """Write arrays for ``numpy.load``: masks, labels, scores, unseen_scores (NaN where there are none)."""
    proposals = prediction.proposals or ()
    height, width = prediction.labels.shape
    masks = np.array([proposal.mask for proposal in proposals], bool).reshape(-1, height, width)
    unseen = [np.nan if proposal.unseen_score is None else proposal.unseen_score for proposal in proposals]
    with path.open('wb') as file:  # given a path, NumPy would append a suffix
        np.savez_compressed(
            file,
            masks=masks,
            labels=np.array([prediction.classes.index(proposal.label) for proposal in proposals], np.int64),
            scores=np.array([proposal.score for proposal in proposals], np.float32),
            unseen_scores=np.array(unseen, np.float32),
        )
