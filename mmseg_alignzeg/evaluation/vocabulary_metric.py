"""Base of the metrics: the split from ``dataset_meta``, label maps from samples, and the output folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.structures import BaseDataElement
from torch import Tensor

from ..vocabulary import Vocabulary


class VocabularyMetric(BaseMetric):
    """A metric whose classes and unseen classes are those of the evaluated dataset.

    Args:
        ignore_index: Ground-truth label that is not evaluated.
        collect_device: ``'cpu'`` or ``'gpu'``, how results of several processes are collected.
        prefix: Added to every key as ``prefix/``; none by default.
        collect_dir: Folder that all processes can access, for ``collect_device='cpu'``; a temporary one by default.
        output_dir: Folder for output files, if any; `mim test --out` sets it.
        keep_results: False disables output files even with ``output_dir``, as in mmseg's ``IoUMetric``.
    """

    default_prefix = ''  # not None, which causes a warning in MMEngine

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
            raise ValueError('`dataset_meta` is not set: it must be a dict with `classes` and `unseen_classes`.')
        return Vocabulary.from_metainfo(self.dataset_meta)

    def label(self, title: str) -> str:
        """Return the title of a table, with the prefix of the scores, if they have one."""
        return f'{title} ({self.prefix})' if self.prefix else title

    @property
    def unseen_mask(self) -> Tensor:
        """(C,) bool, True for unseen classes."""
        return self.vocabulary.unseen_mask


def sample_fields(sample: Mapping[str, Any] | BaseDataElement) -> Mapping[str, Any]:
    """Return the fields of a data sample, including its meta information."""
    return sample.to_dict() if isinstance(sample, BaseDataElement) else sample


def label_map(fields: Mapping[str, Any], key: str) -> Tensor:
    """Return the label map (H, W) in ``fields[key].data``, from a dict or a ``PixelData``."""
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
