"""A prediction in the formats of annotation tools: COCO with run lengths, labelme's polygons, shares in rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from .prediction import Prediction

LABELME = '5.5.0'  # the version of labelme whose files these are
COLUMNS = ('image', 'class', 'unseen', 'pixels', 'share')


def to_coco(prediction: Prediction) -> dict[str, Any]:
    """Return a COCO dataset of one image, with one annotation per class that occurs, as in COCO-Stuff.

    Categories are numbered from 1, in label order, and have ``unseen`` as an additional key. Masks are uncompressed run
    lengths, which pycocotools reads: ``counts`` along columns, beginning with pixels outside. ``others`` is left out.
    """
    labels = prediction.labels
    height, width = labels.shape
    plain = prediction.plain
    annotations: list[dict[str, Any]] = []
    for label, (rows, columns), pixels in _regions(labels):
        if prediction.classes[label] in plain:
            continue
        annotations.append(
            {
                'id': len(annotations) + 1,
                'image_id': 1,
                'category_id': label + 1,
                'segmentation': {'size': [height, width], 'counts': run_lengths(labels == label)},
                'area': pixels,
                'bbox': [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
                'iscrowd': 0,
            }
        )
    categories = [
        {'id': i + 1, 'name': name, 'supercategory': '', 'unseen': name in prediction.unseen}
        for i, name in enumerate(prediction.classes)
        if name not in plain
    ]
    image = {'id': 1, 'file_name': Path(prediction.name).name, 'width': width, 'height': height}
    return {'images': [image], 'annotations': annotations, 'categories': categories}


def run_lengths(mask: np.ndarray) -> list[int]:
    """Return the lengths of alternating runs of a mask (H, W) bool, column by column; the first run is outside."""
    flat = mask.T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *lengths] if flat[0] else lengths


def to_polygons(prediction: Prediction) -> dict[str, Any]:
    """Return the contents of a labelme file: one polygon for each connected region, through the centres of its pixels.

    Polygons have no holes. They are sorted by decreasing area, so that what lies in a hole is drawn later: drawn one
    after the other, as labelme does, they give the label map. Regions of ``others`` are therefore included.
    """
    labels = prediction.labels
    found: list[tuple[float, str, np.ndarray]] = []
    for label, box, _ in _regions(labels):
        parts, _ = ndimage.label(labels[box] == label)  # connected by sides: two such regions never cross
        for number, part in enumerate(ndimage.find_objects(parts), start=1):
            pixels = (parts[part] == number).astype(np.uint8)
            outlines, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            corner = (box[1].start + part[1].start, box[0].start + part[0].start)
            found.append((cv2.contourArea(outlines[0]), prediction.classes[label], outlines[0][:, 0] + corner))
    shapes = [
        {
            'label': name,
            # A polygon has at least three points.
            'points': np.concatenate([points, points[-1:].repeat(max(0, 3 - len(points)), 0)]).astype(float).tolist(),
            'group_id': None,
            'description': '',
            'shape_type': 'polygon',
            'flags': {},
        }
        for _, name, points in sorted(found, key=lambda item: -item[0])
    ]
    return {
        'version': LABELME,
        'flags': {},
        'shapes': shapes,
        'imagePath': Path(prediction.name).name,
        'imageData': None,
        'imageHeight': labels.shape[0],
        'imageWidth': labels.shape[1],
    }


def share_rows(prediction: Prediction) -> list[tuple[str, str, bool, int, float]]:
    """Return a row of ``COLUMNS`` for each class that occurs, in label order; shares are 0..1."""
    shares = prediction.shares()
    return [
        (prediction.name, name, name in prediction.unseen, pixels, shares[name])
        for label, _, pixels in _regions(prediction.labels)
        for name in prediction.classes[label : label + 1]
    ]


def _regions(labels: np.ndarray) -> Iterator[tuple[int, tuple[slice, slice], int]]:
    """Yield each label that occurs, its bounding box as rows and columns, and the number of its pixels."""
    for label, box in enumerate(ndimage.find_objects(labels.astype(np.int32) + 1)):
        if box is not None:
            yield label, box, int(np.count_nonzero(labels[box] == label))
