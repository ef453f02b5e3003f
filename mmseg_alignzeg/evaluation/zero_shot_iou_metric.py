"""IoU over seen classes, unseen classes and their harmonic mean, from one confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement
from mmseg.registry import METRICS
from PIL import Image
from prettytable import PrettyTable
from torch import Tensor

from ..vocabulary import Vocabulary


def confusion_matrix(pred: Tensor, gt: Tensor, num_classes: int, ignore_index: int = 255) -> Tensor:
    """Count the pixels of every (true, predicted) pair of labels.

    Args:
        pred: Predicted labels (H, W), any integer dtype. A label outside ``0 … C-1`` is no class, hence a miss.
        gt: True labels (H, W), any integer dtype.
        num_classes: The number of classes C.
        ignore_index: Pixels with this true label are left out, whatever was predicted there.

    Returns:
        int64 counts (C, C + 1): row = true label, column = predicted label; the last column holds predictions that
        name no class.

    Raises:
        ValueError: On different shapes, a true label outside ``0 … C-1``, or an ``ignore_index`` that is a class.
    """
    if pred.shape != gt.shape:
        raise ValueError(
            f'The prediction has shape {tuple(pred.shape)} and the ground truth {tuple(gt.shape)}: '
            'predictions must be resized to the original image before evaluation.'
        )
    if 0 <= ignore_index < num_classes:
        raise ValueError(
            f'`ignore_index={ignore_index}` is the label of one of the {num_classes} classes and would drop it: '
            'use a value outside of them, e.g. 65535, in the labels and in the metric.'
        )
    pred, gt = pred.long(), gt.to(pred.device).long()
    valid = gt != ignore_index
    pred, gt = pred[valid], gt[valid]  # (number of labelled pixels,)
    foreign = (gt < 0) | (gt >= num_classes)
    if foreign.any():
        raise ValueError(
            f'The ground truth holds label(s) {gt[foreign].unique().tolist()}, outside 0…{num_classes - 1} and '
            f'not `ignore_index={ignore_index}`: check `classes`, `ignore_index` and `reduce_zero_label`.'
        )
    no_class = (pred < 0) | (pred >= num_classes)
    column = torch.where(no_class, num_classes, pred)
    counts = torch.bincount(gt * (num_classes + 1) + column, minlength=num_classes * (num_classes + 1))
    return counts.view(num_classes, num_classes + 1)


def class_areas(pred: Tensor, gt: Tensor, num_classes: int, ignore_index: int = 255) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels per class of one image that are hit, predicted and true.

    Args and errors are those of :func:`confusion_matrix`.

    Returns:
        ``tp``, ``pred_area`` and ``gt_area``, each int64 (C,).
    """
    return _areas(confusion_matrix(pred, gt, num_classes, ignore_index))


def zero_shot_iou(tp: Tensor, pred_area: Tensor, gt_area: Tensor, unseen_mask: Tensor) -> dict[str, float]:
    """The measures of zero-shot segmentation, from areas summed over all images.

    A class with neither true nor predicted pixels has no IoU and is skipped. A measure that has no value (no unseen
    class at all, or none with a pixel) is left out instead of being called 0.

    Args:
        tp: Correctly labelled pixels (C,), integer.
        pred_area: Predicted pixels (C,), integer; counted on labelled pixels only.
        gt_area: True pixels (C,), integer.
        unseen_mask: bool (C,), True for unseen classes.

    Returns:
        ``pAcc``, ``mIoU``, ``mIoU_seen``, ``mIoU_unseen`` and ``hIoU`` in percent, as far as they exist.
    """
    iou = _class_iou(tp, pred_area, gt_area)
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
        measures['hIoU'] = 2 * seen * unseen / (seen + unseen) if seen + unseen > 0 else 0.0
    return measures


@METRICS.register_module()
class ZeroShotIoUMetric(BaseMetric):
    """``pAcc``, ``mIoU``, ``mIoU_seen``, ``mIoU_unseen`` and ``hIoU`` in percent.

    The split is read from ``dataset_meta`` (``classes`` and ``unseen_classes``). All measures come from one confusion
    matrix over all images. Each image keeps the few entries of its own matrix that are not zero until then, because
    MMEngine drops the images that a distributed sampler repeats by counting results: one result must be one image.

    Args:
        ignore_index: True label that is not evaluated.
        collect_device: ``'cpu'`` or ``'gpu'``, how results of several processes meet.
        prefix: Put before every key as ``prefix/``; none by default.
        collect_dir: Folder shared by all processes for ``collect_device='cpu'``; a temporary one by default.
        output_dir: Where to write predicted label maps as PNG, if anywhere; `mim test --out` sets it.
        keep_results: False writes nothing in spite of ``output_dir``, as in mmseg's ``IoUMetric``.
    """

    default_prefix = ''  # not None, which MMEngine would warn about

    def __init__(
        self,
        ignore_index: int = 255,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
        output_dir: str | None = None,
        keep_results: bool = True,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.ignore_index = ignore_index
        self.output_dir = Path(output_dir) if output_dir and keep_results else None

    @property
    def vocabulary(self) -> Vocabulary:
        """Classes and unseen classes of the evaluated dataset."""
        if self.dataset_meta is None:
            raise ValueError('`dataset_meta` is not set: give the metric a dict with `classes` and `unseen_classes`.')
        return Vocabulary.from_metainfo(self.dataset_meta)

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any] | BaseDataElement]) -> None:
        """Count one batch.

        Args:
            data_batch: Not used.
            data_samples: ``SegDataSample`` objects or dicts with ``pred_sem_seg`` and ``gt_sem_seg``, whose ``data``
                are integer label maps (1, H, W) or (H, W).

        Raises:
            ValueError: On a sample without these maps or that :func:`confusion_matrix` refuses; names the image.
        """
        num_classes = len(self.vocabulary.classes)
        for sample in data_samples:
            fields = sample.to_dict() if isinstance(sample, BaseDataElement) else sample
            try:
                pred, gt = (_label_map(fields, key) for key in ('pred_sem_seg', 'gt_sem_seg'))
                confusion = confusion_matrix(pred, gt, num_classes, self.ignore_index).flatten().cpu()
            except ValueError as error:
                raise ValueError(f'{fields.get("img_path", "Sample without `img_path`")}: {error}') from None
            if self.output_dir is not None:
                self._write(pred, Path(str(fields.get('img_path', f'{len(self.results):06d}'))).stem)
            entries = confusion.nonzero().squeeze(1)
            self.results.append((entries, confusion[entries]))

    def _write(self, pred: Tensor, name: str) -> None:
        """Write predicted labels as an 8-bit PNG, or a 16-bit one where there are more than 256 classes."""
        assert self.output_dir is not None
        self.output_dir.mkdir(parents=True, exist_ok=True)
        depth = np.uint8 if len(self.vocabulary.classes) <= 256 else np.uint16
        Image.fromarray(pred.cpu().numpy().astype(depth)).save(self.output_dir / f'{name}.png')

    def compute_metrics(self, results: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Sum the matrices of all images and derive the measures; logs a table with one line per class."""
        vocabulary = self.vocabulary
        num_classes = len(vocabulary.classes)
        total = torch.zeros(num_classes * (num_classes + 1), dtype=torch.int64)
        for entries, counts in results:
            total[entries] += counts  # an entry occurs once per image
        unseen_mask = torch.tensor([name in vocabulary.unseen_classes for name in vocabulary.classes])
        areas = _areas(total.view(num_classes, num_classes + 1))
        print_log(f'per class results:\n{_class_table(vocabulary.classes, unseen_mask, *areas)}', logger='current')
        return zero_shot_iou(*areas, unseen_mask)


def _areas(confusion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``tp``, ``pred_area`` and ``gt_area`` (C,) of a confusion matrix (C, C + 1)."""
    return confusion.diagonal().clone(), confusion.sum(0)[:-1], confusion.sum(1)


def _class_iou(tp: Tensor, pred_area: Tensor, gt_area: Tensor) -> Tensor:
    """IoU per class (C,), float64 in [0, 1]; NaN (0 / 0) for a class with neither true nor predicted pixels."""
    return tp.double() / (pred_area + gt_area - tp).double()


def _label_map(fields: Mapping[str, Any], key: str) -> Tensor:
    """The label map (H, W) in ``fields[key].data``, from a dict or a ``PixelData``."""
    field = fields.get(key)
    data = field.get('data') if isinstance(field, Mapping) else getattr(field, 'data', None)
    if data is None:
        raise ValueError(
            f'the sample has no `{key}.data`; it has {sorted(fields)}. `gt_sem_seg` needs `LoadAnnotations` in the '
            'test pipeline, `pred_sem_seg` a model in mode "predict".'
        )
    labels = torch.as_tensor(data)
    if labels.ndim == 3 and labels.shape[0] == 1:
        labels = labels[0]
    if labels.ndim != 2:
        raise ValueError(f'`{key}.data` has shape {tuple(labels.shape)}; labels are (1, H, W) or (H, W).')
    return labels


def _class_table(names: Sequence[str], unseen: Tensor, tp: Tensor, pred_area: Tensor, gt_area: Tensor) -> str:
    """One line per class: split, IoU and accuracy in percent, ``-`` where there is none."""
    table = PrettyTable(['Class', 'Split', 'IoU', 'Acc'])
    table.align['Class'] = 'l'
    iou, acc = _class_iou(tp, pred_area, gt_area), tp.double() / gt_area.double()
    for name, is_unseen, *values in zip(names, unseen.tolist(), iou.tolist(), acc.tolist(), strict=True):
        # A NaN is the one number that differs from itself.
        shown = [f'{100 * value:.2f}' if value == value else '-' for value in values]
        table.add_row([name, 'unseen' if is_unseen else 'seen', *shown])
    return table.get_string()
