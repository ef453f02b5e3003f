"""Ground truth of a batch, with a check of its pixels and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.dist import all_gather_object
from mmengine.structures import InstanceData
from mmseg.structures import SegDataSample
from torch import Tensor

from ...printable import printable
from ...transfer import to_device, to_host
from .ranks import gather_row


@dataclass
class Targets:
    """Ground truth of the images of one rank, and its size on all ranks.

    Attributes:
        images: Per image, ``labels`` (G,) int64 in ascending order and ``masks`` (G, H, W) bool.
        ranks: Per rank, its number of images, and of masks that will be matched: Σ min(N, G).
    """

    images: list[InstanceData]
    ranks: list[tuple[int, int]]


def present_labels(labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Find the labels of images without waiting for the device.

    Args:
        labels: (B, H, W) integers.
        num_classes: C.
        ignore_index: Label of pixels without a class.

    Returns:
        (B, C + 1) bool: whether an image has a pixel of each class, and one whose label is neither a class nor ignored.
    """
    column = torch.where((labels >= 0) & (labels < num_classes), labels, num_classes)
    column = column.masked_fill(labels == ignore_index, num_classes + 1).long().flatten(1)
    present = torch.zeros(len(labels), num_classes + 2, dtype=torch.bool, device=labels.device)
    return present.scatter_(1, column, True)[:, :-1]


def checked_targets(
    inputs: Tensor, samples: Sequence[SegDataSample], num_classes: int, ignore_index: int, num_proposals: int
) -> Targets:
    """Return one mask per class of each image, after checking pixels and labels on all ranks.

    It waits for the device once, for the labels of the batch and the outcome of all ranks together.

    Args:
        inputs: (B, 3, H, W), normalised.
        samples: B data samples with ``gt_sem_seg``.
        num_classes: C, number of seen classes.
        ignore_index: Label of pixels without a class.
        num_proposals: N, the largest number of masks that can be matched in an image.

    Raises:
        ValueError: The same on every rank, if a label of any rank is neither a seen class nor ``ignore_index``, or a
            pixel is not finite; the message names a file of each such rank.
    """
    labels = torch.cat([sample.gt_sem_seg.data for sample in samples])  # (B, H, W)
    present = present_labels(labels, num_classes, ignore_index)
    # The sum is not finite if any pixel is not, and takes a tenth of the time of checking each pixel.
    bad = present[:, -1].any() | ~inputs.sum(dtype=torch.float32).isfinite()
    masks = present[:, :-1].sum(dim=1).clamp(max=num_proposals).sum()
    ranks = gather_row(torch.stack([bad.long(), torch.full_like(masks, len(samples)), masks]))
    present, ranks = to_host(present[:, :-1].long(), ranks)
    if ranks.numpy()[:, 0].any():
        faults = all_gather_object(_fault(inputs, samples, num_classes, ignore_index))
        raise ValueError(printable('; '.join(fault for fault in faults if fault)))
    found = [torch.from_numpy(row.numpy().nonzero()[0]) for row in present]
    on_device = to_device(labels.device, torch.cat(found))[0].split([len(image) for image in found])
    images = [
        InstanceData(labels=own, masks=label_map == own[:, None, None])
        for own, label_map in zip(on_device, labels, strict=True)
    ]
    return Targets(images, [(int(row[1]), int(row[2])) for row in ranks.numpy()])


def _fault(inputs: Tensor, samples: Sequence[SegDataSample], num_classes: int, ignore_index: int) -> str:
    """Return the first problem of this rank's batch; empty if there is none."""
    for i, (image, sample) in enumerate(zip(inputs, samples, strict=True)):
        path = sample.metainfo.get('img_path', f'image {i} of the batch')
        if not image.isfinite().all():
            count = int((~image.isfinite()).sum())
            return f'{path}: {count:,} pixel values are not finite: create this file again.'
        labels = sample.gt_sem_seg.data.unique().tolist()
        foreign = [label for label in labels if not 0 <= label < num_classes and label != ignore_index]
        if foreign:
            return (
                f'{sample.metainfo.get("seg_map_path", path)}: a training label is {min(foreign)}, but there are only '
                f'{num_classes} seen classes, and {ignore_index} for no label: check the label map, '
                '`metainfo.classes` and `reduce_zero_label` of the training data (`alignzeg check CONFIG` lists the '
                'files and values).'
            )
    return ''
