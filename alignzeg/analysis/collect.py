"""The pass over a test set: one forward pass per image, and the outputs that all analyses use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.utils.data import DataLoader

from mmseg_alignzeg.models import AlignZeg
from mmseg_alignzeg.models.proposals import Proposals, Window, padded_size, upright
from mmseg_alignzeg.vocabulary import Vocabulary, names_mask


@dataclass
class ViewScores:
    """The proposals of one view of an image, before any correction.

    Attributes:
        masks: M, (N, h, w) logits on the padded grid, flips undone.
        scores: P, (N, C + 1) logits, background last.
        indicator: I, (N,) probabilities, or None for a model without φ_bc.
    """

    masks: Tensor
    scores: Tensor
    indicator: Tensor | None = None


@dataclass
class ImageProposals:
    """The proposals of one image and its ground truth.

    Attributes:
        views: Views of the decoder. Measures of proposals use the first, measures of labels use all of them.
        labels: Ground-truth labels (H, W) int64 at the size of the original image.
        window: Position of the image in the grid; its ``size`` is (H, W).
        matched: (m, 2) int64, the proposals that Hungarian matching assigns to a ground-truth mask, and its label.
    """

    views: tuple[ViewScores, ...]
    labels: Tensor
    window: Window
    matched: Tensor


@dataclass(frozen=True)
class AnalysisTask:
    """Properties that all images of a test set share.

    Attributes:
        vocabulary: Classes in label order, and which of them the measures treat as unseen.
        trained_classes: Classes with training labels: S of Eq. (7).
        ignore_index: Ground-truth label that is not evaluated.
        background_at_test: See :func:`~mmseg_alignzeg.models.inference.drop_background`.
        images: Number of images in the whole test set.
    """

    vocabulary: Vocabulary
    trained_classes: tuple[str, ...]
    ignore_index: int
    background_at_test: str
    images: int

    @classmethod
    def of(cls, model: AlignZeg, dataset: Any, ignore_index: int) -> AnalysisTask:
        """Create the task of a model and a dataset.

        Raises:
            ValueError: If the dataset is empty or has no class names.
        """
        if model.tiling is not None:
            raise ValueError('An analysis looks at whole images: pass --cfg-options model.test_cfg.mode=whole.')
        if not len(dataset):
            raise ValueError(
                f'The test set is empty: `test_dataloader.dataset` ({type(dataset).__name__}) has no image.'
            )
        metainfo: Mapping[str, Any] = dataset.metainfo
        vocabulary = Vocabulary.of_test_data(metainfo, model.vocabulary)
        seen = tuple(filter(model.vocabulary.has_labels_for, vocabulary.classes))
        return cls(vocabulary, seen, ignore_index, model.question.background_at_test, len(dataset))

    @cached_property
    def unseen(self) -> Tensor:
        """(C,) bool, for the measures."""
        return self.vocabulary.unseen_mask

    @cached_property
    def trained(self) -> Tensor:
        """(C,) bool, S of Eq. (7)."""
        return names_mask(self.vocabulary.classes, self.trained_classes)

    @property
    def has_both(self) -> bool:
        """Whether both the measures and S have seen and unseen classes; otherwise calibration changes no label."""
        return all(bool(mask.any()) and not bool(mask.all()) for mask in (self.unseen, self.trained))


@torch.no_grad()
def collect(model: AlignZeg, loader: DataLoader, task: AnalysisTask) -> Iterator[ImageProposals]:
    """Run a model over a test set.

    Args:
        model: In evaluation mode.
        loader: Data loader whose batches contain images and labels.
        task: Properties that the images share.

    Yields:
        The proposals of each image, on the device of the model.

    Raises:
        ValueError: If an image has no labels.
    """
    question = model.ask(task.vocabulary.classes)
    for batch in loader:
        data = model.data_preprocessor(batch)
        inputs, samples = data['inputs'], data['data_samples']
        shape = padded_size(inputs.shape[2:], model.stride)
        embeds = question.text_embeds(inputs.device)
        views = [_view(model, proposals, samples, embeds) for proposals in model.look(inputs)]
        for sample, seen in zip(samples, zip(*views, strict=True), strict=True):
            if 'gt_sem_seg' not in sample:
                raise ValueError(
                    f'{sample.metainfo.get("img_path", "An image")} has no labels: put `LoadAnnotations` in the test '
                    'pipeline.'
                )
            labels = sample.gt_sem_seg.data[0].long()
            window = Window.of_image(sample.metainfo, inputs.shape[2:], model.stride)
            placed = window.place(labels, shape, task.ignore_index)
            matched = model.criterion.match(seen[0].masks, seen[0].scores, placed, task.ignore_index)
            yield ImageProposals(seen, labels, window, matched)


def _view(
    model: AlignZeg, proposals: Proposals, samples: Sequence[SegDataSample], text_embeds: Tensor
) -> list[ViewScores]:
    """Return the proposals of one view for each image."""
    masks = upright(proposals.mask_logits, samples)
    scores = model.classify(proposals, text_embeds).float()
    found = model.indicate(proposals)
    indicator = [None] * len(samples) if found is None else found.float()
    return [ViewScores(*parts) for parts in zip(masks, scores, indicator, strict=True)]
