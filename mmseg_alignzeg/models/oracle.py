"""Oracle classes: mask quality independent of classification (table 6 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from .answer import Answer, ViewProposals
from .decoding import SemanticDecoder
from .inference import mask_stripes
from .proposals import Window


def oracle_probs(mask_logits: Tensor, labels: Tensor, num_classes: int, window: Window) -> Tensor:
    """Return the most frequent ground-truth class of each proposal (the rule is not given in the paper).

    A pixel belongs to a proposal where σ(M) > 0.5.

    Args:
        mask_logits: (N, h, w) of one image on the padded grid.
        labels: Ground-truth labels (H, W) of integers, H × W being ``window.size``; other values are ignored.
        num_classes: C.
        window: Position of the image in the grid.

    Returns:
        (N, C) one-hot rows; zeros for a proposal without a labelled pixel.

    Raises:
        ValueError: If the size of the labels differs from the window's.
    """
    if tuple(labels.shape) != tuple(window.size):
        raise ValueError(f'The labels have shape {tuple(labels.shape)}, the image {tuple(window.size)}.')
    labels = torch.where((labels >= 0) & (labels < num_classes), labels, num_classes).to(mask_logits.device)
    pixels = mask_logits.new_zeros(num_classes + 1, len(mask_logits))  # of each class in each mask
    for rows, masks in mask_stripes(mask_logits, window):
        pixels.index_add_(0, labels[rows].flatten(), (masks.flatten(0, 1) > 0.5).to(pixels))
    most, winner = pixels[:-1].max(dim=0)  # (N,)
    return F.one_hot(winner, num_classes) * (most > 0).to(mask_logits)[:, None]


@MODELS.register_module()
class OracleDecoder(SemanticDecoder):
    """Decoder that assigns ground-truth classes to proposals (table 6); it needs labels, as in tests and analyses."""

    needs_labels = True

    def __call__(
        self, views: Sequence[ViewProposals], window: Window, class_bias: Tensor | None, sample: SegDataSample
    ) -> Answer:
        """Return the answer for one image, see :class:`SemanticDecoder`.

        Raises:
            ValueError: If ``sample`` has no ``gt_sem_seg``, or its size differs from the original image's.
        """
        if 'gt_sem_seg' not in sample:
            raise ValueError(
                'An oracle needs `gt_sem_seg` in every sample: put `LoadAnnotations` in the test pipeline.'
            )
        (view,) = views
        labels = sample.gt_sem_seg.data[0].long()
        probs = oracle_probs(view.mask_logits, labels, view.class_probs.shape[1], window)
        return Answer((replace(view, class_probs=probs),), window, class_bias)
