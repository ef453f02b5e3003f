"""A prediction as an object of FiftyOne or supervision; the package is imported only when it is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .prediction import Prediction


def to_supervision(prediction: Prediction) -> Any:
    """Return ``supervision.Detections`` with one mask for each class that occurs, without ``others``.

    ``class_id`` is the label, ``data`` has ``class_name`` and ``unseen``, and ``xyxy`` is the box around the mask.

    Raises:
        ImportError: If supervision is not installed.
    """
    supervision = _required('supervision')
    present = [label for label in np.unique(prediction.labels).tolist() if label < len(prediction.classes)]
    present = [label for label in present if prediction.classes[label] not in prediction.plain]
    if not present:
        return supervision.Detections.empty()
    masks = np.stack([prediction.labels == label for label in present])
    names = [prediction.classes[label] for label in present]
    return supervision.Detections(
        xyxy=supervision.mask_to_xyxy(masks).astype(np.float32),
        mask=masks,
        class_id=np.array(present),
        data={'class_name': np.array(names), 'unseen': np.array([name in prediction.unseen for name in names])},
    )


def to_fiftyone(prediction: Prediction) -> Any:
    """Return ``fiftyone.Segmentation``, whose mask has label + 1, because FiftyOne draws nothing for 0; others are 0.

    Give the dataset the names: ``dataset.default_mask_targets = mask_targets(prediction.classes)``.

    Raises:
        ImportError: If FiftyOne is not installed.
    """
    fiftyone = _required('fiftyone')
    count = len(prediction.classes)
    values = np.arange(1, count + 1, dtype=np.min_scalar_type(count))
    values[[name in prediction.plain for name in prediction.classes]] = 0
    return fiftyone.Segmentation(mask=values[prediction.labels])


def mask_targets(classes: tuple[str, ...]) -> dict[int, str]:
    """Return the names of the values of :func:`to_fiftyone`'s masks."""
    return {i + 1: name for i, name in enumerate(classes)}


def _required(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f'This needs {package}: pip install "mmseg_alignzeg[{package}]" ({error}).') from error
