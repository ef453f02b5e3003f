"""mIoU per dataset, image, class and segment, with worst cases, split into seen and unseen classes."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement
from mmseg.registry import METRICS
from prettytable import PrettyTable
from torch import Tensor

from ..files import whole_file
from ..printable import printable
from ..vocabulary import abridged, names_mask
from .fine_grained_iou import ImageScores, check_worst_q, fine_grained_iou, image_means, image_scores
from .vocabulary_metric import VocabularyMetric, label_map, sample_fields


@METRICS.register_module()
class FineGrainedIoUMetric(VocabularyMetric):
    """The fine-grained IoU of "Revisiting Evaluation Metrics for Semantic Segmentation" (arXiv 2310.19252), in percent.

    ========== =======================================================================================================
    ``mIoU_D`` Pixels summed over the dataset, IoU per class, mean over classes; ``mIoU`` of ``ZeroShotIoUMetric``.
    ``mIoU_I`` Per image, the mean over the classes in its ground truth, then the mean over images.
    ``mIoU_C`` Per class, the mean over images with the class in their ground truth, then the mean over classes.
    ``mIoU_K`` Per class, the mean over its ground-truth segments in all images, then the mean over classes.
    ========== =======================================================================================================

    I, C and K also have worst cases: ``mIoU_I_q5`` uses only the lowest 5% of the images (C: of the images of each
    class, K: of the segments of each class), at least one; ``mIoU_I_qbar`` averages over q = 10, 20 … 100.

    Every key also exists as ``…_seen``, ``…_unseen`` and ``…_harmonic``, the harmonic mean of the two. For D, C and K,
    the last mean is over the classes of the group. For I, the score of an image is the mean over those of its classes
    that are in the group; images without such a class are skipped. Seen and unseen values are therefore means over
    different images, and ``mIoU_I`` need not lie between them.

    A class that is predicted but absent from an image's ground truth does not count in I, C and K, and images without
    labelled pixels are skipped. Keys without a value are left out. No label maps are stored. Each result is one image,
    because MMEngine removes the images that a distributed sampler repeats by counting results.

    The split is read from ``dataset_meta`` (``classes`` and ``unseen_classes``). If samples have instance maps
    (``gt_instance_map``), every instance of a thing class is a segment of ``mIoU_K``. Without them, every class of an
    image is one segment, and ``mIoU_K`` equals ``mIoU_C``.

    Args:
        worst_q: Percentages q of the worst cases, each in (0, 100].
        thing_classes: Names of the classes with instances; ``dataset_meta['thing_classes']`` by default.
        num_worst: Number of worst images that are logged and listed.
        **kwargs: Those of :class:`VocabularyMetric`; ``output_dir`` receives ``image_scores.png``, a histogram of the
            images' scores, and ``worst_images.csv``.

    Raises:
        ValueError: If a q is outside (0, 100].
    """

    def __init__(
        self,
        worst_q: Sequence[float] = (1, 5),
        thing_classes: Sequence[str] | None = None,
        num_worst: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_worst_q(worst_q)
        self.worst_q = tuple(worst_q)
        self.thing_classes = thing_classes
        self.num_worst = num_worst

    @property
    def thing_mask(self) -> Tensor:
        """bool (C,), True for classes that have instances."""
        classes, names = self.vocabulary.classes, self.thing_classes
        if names is None:
            names = (self.dataset_meta or {}).get('thing_classes') or ()
        foreign = [name for name in names if name not in classes]
        if foreign:
            raise ValueError(
                f'`thing_classes` names {foreign}, which are not among the {len(classes)} classes '
                f'({abridged(classes)}): use the exact names of `classes`.'
            )
        return names_mask(classes, names)

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any] | BaseDataElement]) -> None:
        """Score the images of one batch.

        Args:
            data_batch: Ignored.
            data_samples: ``SegDataSample`` objects or dicts with ``pred_sem_seg`` and ``gt_sem_seg``, whose ``data``
                are integer label maps (1, H, W) or (H, W), and optionally ``gt_instance_map`` with instance numbers of
                the same size, 0 for none.

        Raises:
            ValueError: If a sample has no labels, or :func:`image_scores` fails; the message names the image.
        """
        num_classes, thing_mask = len(self.vocabulary.classes), self.thing_mask
        for sample in data_samples:
            fields = sample_fields(sample)
            path = str(fields.get('img_path') or '')
            try:
                pred, gt = (label_map(fields, key) for key in ('pred_sem_seg', 'gt_sem_seg'))
                has_instances = fields.get('gt_instance_map') is not None
                instances = label_map(fields, 'gt_instance_map') if has_instances else None
                scores = image_scores(pred, gt, num_classes, self.ignore_index, instances, thing_mask, path)
            except ValueError as error:
                raise ValueError(f'{path or "Sample without `img_path`"}: {error}') from None
            if has_instances and not thing_mask.any():
                warnings.warn(
                    'The samples have instance maps, but there are no thing classes, so each class is one segment of '
                    "`mIoU_K`: pass `thing_classes` to the metric or add it to the dataset's `metainfo`.",
                    stacklevel=2,
                )
            self.results.append(scores)

    def compute_metrics(self, results: list[ImageScores]) -> dict[str, float]:
        """Compute all measures; log them as a table, then the worst images."""
        unseen_mask = self.unseen_mask
        measures = fine_grained_iou(results, unseen_mask, self.worst_q)
        print_log(f'{self.label("fine-grained results")}:\n{_measure_table(measures)}', logger='current')
        scores = 100 * image_means(results, torch.ones_like(unseen_mask))
        worst = _worst_images(scores, results, self.num_worst)
        if worst:
            lines = '\n'.join(f'{score:6.2f}  {printable(name)}' for score, name in worst)
            print_log(f'images with the lowest mean IoU over their classes:\n{lines}', logger='current')
        scores = scores[~scores.isnan()]
        if self.output_dir is not None and len(scores):
            self.output_dir.mkdir(parents=True, exist_ok=True)
            _draw_histogram(scores, self.output_dir / 'image_scores.png')
            table = self.output_dir / 'worst_images.csv'
            with whole_file(table) as part, part.open('w', encoding='utf-8', newline='') as file:
                csv.writer(file).writerows([('mIoU_I', 'image'), *worst])
        return measures


def _worst_images(scores: Tensor, images: Sequence[ImageScores], number: int) -> list[tuple[float, str]]:
    """Return score and path (or position, without a path) of the images with the lowest scores (N,), without NaN."""
    numbered = [(score, i) for i, score in enumerate(scores.tolist()) if score == score]
    return [(score, images[i].path or f'image {i}') for score, i in sorted(numbered)[:number]]


def _measure_table(measures: Mapping[str, float]) -> str:
    """Format a table with one line per measure and its groups in columns; ``-`` for a missing value."""
    groups = {'All': '', 'Seen': '_seen', 'Unseen': '_unseen', 'Harmonic': '_harmonic'}
    table = PrettyTable(['Measure', *groups])
    table.align['Measure'] = 'l'
    for key in measures:
        if not key.endswith(tuple(suffix for suffix in groups.values() if suffix)):
            values = [measures.get(key + suffix) for suffix in groups.values()]
            table.add_row([key, *('-' if value is None else f'{value:.2f}' for value in values)])
    return table.get_string()


def _draw_histogram(scores: Tensor, path: Path) -> None:
    """Write a histogram of the scores of images, percentages (n,), as a PNG."""
    figure = Figure(figsize=(6.0, 3.6), dpi=110)
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.hist(scores.numpy(), bins=20, range=(0, 100))
    mean = scores.mean().item()
    axis.axvline(mean, color='black', linestyle='--', label=f'mean {mean:.2f}')
    axis.set(xlim=(0, 100), xlabel='mean IoU over the classes of an image (%)', ylabel='images')
    axis.legend(frameon=False)
    figure.tight_layout()
    with whole_file(path, flush=False) as part:
        figure.savefig(part, format='png')
