"""IoU over seen classes, unseen classes and their harmonic mean, from one confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement
from mmseg.registry import METRICS
from PIL import Image
from prettytable import PrettyTable
from torch import Tensor

from ..files import whole_file
from ..printable import printable
from .areas import class_iou, confusion_matrix, harmonic_mean, split_areas
from .vocabulary_metric import VocabularyMetric, label_map, sample_fields


def zero_shot_iou(tp: Tensor, pred_area: Tensor, gt_area: Tensor, unseen_mask: Tensor) -> dict[str, float]:
    """Compute the measures of zero-shot segmentation from areas summed over all images.

    A class without true and predicted pixels has no IoU and is skipped. A measure without a value (there is no unseen
    class, or none has pixels) is left out rather than set to 0.

    Args:
        tp: Correctly labelled pixels (C,), integer.
        pred_area: Predicted pixels (C,), integer; counted only where there is a label.
        gt_area: Ground-truth pixels (C,), integer.
        unseen_mask: bool (C,), True for unseen classes.

    Returns:
        ``pAcc``, ``mIoU``, ``mIoU_seen``, ``mIoU_unseen`` and ``hIoU`` in percent; those without a value are left out.

    Examples:
        >>> tp, pred_area, gt_area = torch.tensor([6, 2, 1]), torch.tensor([8, 2, 4]), torch.tensor([8, 4, 2])
        >>> unseen_mask = torch.tensor([False, False, True])
        >>> measures = zero_shot_iou(tp, pred_area, gt_area, unseen_mask)  # IoU 6/10, 2/4 and 1/5
        >>> {name: round(value, 2) for name, value in measures.items()}
        {'pAcc': 64.29, 'mIoU': 43.33, 'mIoU_seen': 55.0, 'mIoU_unseen': 20.0, 'hIoU': 29.33}
    """
    iou = class_iou(tp, pred_area, gt_area)
    measures: dict[str, float] = {}
    if gt_area.sum() > 0:
        measures['pAcc'] = 100 * tp.sum().item() / gt_area.sum().item()
    groups = {'mIoU': torch.ones_like(unseen_mask), 'mIoU_seen': ~unseen_mask, 'mIoU_unseen': unseen_mask}
    for key, members in groups.items():
        existing = members & ~iou.isnan()
        if existing.any():
            measures[key] = 100 * iou[existing].mean().item()
    if 'mIoU_seen' in measures and 'mIoU_unseen' in measures:
        seen, unseen = measures['mIoU_seen'], measures['mIoU_unseen']
        measures['hIoU'] = harmonic_mean(seen, unseen)
    return measures


@METRICS.register_module()
class ZeroShotIoUMetric(VocabularyMetric):
    """``pAcc``, ``mIoU``, ``mIoU_seen``, ``mIoU_unseen`` and ``hIoU`` in percent.

    The split is read from ``dataset_meta`` (``classes`` and ``unseen_classes``). All measures are computed from one
    confusion matrix over all images. Until then, the non-zero entries of each image's matrix are stored as one result
    per image, because MMEngine removes the images that a distributed sampler repeats by counting results.

    Its arguments are those of :class:`VocabularyMetric`; ``output_dir`` receives predicted label maps as PNG.
    """

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any] | BaseDataElement]) -> None:
        """Compute the confusion matrices of one batch.

        Args:
            data_batch: Ignored.
            data_samples: ``SegDataSample`` objects or dicts with ``pred_sem_seg`` and ``gt_sem_seg``, whose ``data``
                are integer label maps (1, H, W) or (H, W).

        Raises:
            ValueError: If a sample lacks these maps, or :func:`confusion_matrix` fails; the message names the image.
        """
        num_classes = len(self.vocabulary.classes)
        for sample in data_samples:
            fields = sample_fields(sample)
            try:
                pred, gt = (label_map(fields, key) for key in ('pred_sem_seg', 'gt_sem_seg'))
                confusion = confusion_matrix(pred, gt, num_classes, self.ignore_index).flatten().cpu()
            except ValueError as error:
                raise ValueError(f'{fields.get("img_path", "Sample without `img_path`")}: {error}') from None
            if self.output_dir is not None:
                self._write(pred, Path(str(fields.get('img_path', f'{len(self.results):06d}'))).stem)
            entries = confusion.nonzero().squeeze(1)
            self.results.append((entries, confusion[entries]))

    def _write(self, pred: Tensor, name: str) -> None:
        """Write predicted labels as an 8-bit PNG, or as a 16-bit one if there are more than 256 classes."""
        assert self.output_dir is not None
        depth = np.uint8 if len(self.vocabulary.classes) <= 256 else np.uint16
        with whole_file(self.output_dir / f'{name}.png', flush=False) as part:
            Image.fromarray(pred.cpu().numpy().astype(depth)).save(part, 'PNG')

    def compute_metrics(self, results: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Sum the matrices of all images and compute the measures; log a table with one line per class."""
        vocabulary = self.vocabulary
        num_classes = len(vocabulary.classes)
        total = torch.zeros(num_classes * (num_classes + 1), dtype=torch.int64)
        for entries, counts in results:
            total[entries] += counts  # an entry occurs once per image
        unseen_mask = self.unseen_mask
        areas = split_areas(total.view(num_classes, num_classes + 1))
        table = _class_table(vocabulary.classes, unseen_mask, *areas)
        print_log(f'{self.label("per class results")}:\n{table}', logger='current')
        return zero_shot_iou(*areas, unseen_mask)


def _class_table(names: Sequence[str], unseen: Tensor, tp: Tensor, pred_area: Tensor, gt_area: Tensor) -> str:
    """Format a table with one line per class: split, IoU and accuracy in percent; ``-`` for a missing value."""
    table = PrettyTable(['Class', 'Split', 'IoU', 'Acc'])
    table.align['Class'] = 'l'
    iou, acc = class_iou(tp, pred_area, gt_area), tp.double() / gt_area.double()
    for name, is_unseen, *values in zip(names, unseen.tolist(), iou.tolist(), acc.tolist(), strict=True):
        # NaN is the only number that differs from itself.
        shown = [f'{100 * value:.2f}' if value == value else '-' for value in values]
        table.add_row([printable(name), 'unseen' if is_unseen else 'seen', *shown])
    return table.get_string()
