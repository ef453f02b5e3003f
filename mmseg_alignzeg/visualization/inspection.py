"""Data for visualisation, computed with the model's own functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mmcv
import numpy as np
import torch
from mmseg.structures import SegDataSample
from torch import Tensor

from ..models import AlignZeg
from ..models.inference import binary_masks, mask_stripes
from ..models.proposals import Window, padded_size, unflip
from .corrections import Correction


@dataclass
class Inspection:
    """Proposals and scores of one image; N proposals, C test classes.

    Attributes:
        masks: M, (N, h, w) logits on the padded grid, flips undone.
        scores: P, (N, C + 1) logits before any correction, background last.
        cls_feats: F_cls, (N, D).
        probs: (N, C) class probabilities without PBC.
        corrected: (N, C) class probabilities with PBC; None if the model has no PBC.
        indicator: I, (N,) probabilities; None without PBC.
        labels: Labels (H, W) int64 predicted without PBC, at the size of the original image.
        window: Position of the image in the grid; its ``size`` is (H, W).
        shape: Rows and columns of the padded input that the grid covers.
    """

    masks: Tensor
    scores: Tensor
    cls_feats: Tensor
    probs: Tensor
    corrected: Tensor | None
    indicator: Tensor | None
    labels: Tensor
    window: Window
    shape: tuple[int, int]


def corrects(model: AlignZeg) -> bool:
    """Return whether PBC affects the predictions of the model; with oracle classes, it does not."""
    parts = (model.question.bias_correction, model.class_indicator)
    return None not in parts and not model.decoder.needs_labels


@torch.no_grad()
def inspect_image(model: AlignZeg, inputs: Tensor, sample: SegDataSample) -> Inspection:
    """Run a model on one image, without PBC and, if available, with PBC.

    Args:
        model: In evaluation mode.
        inputs: (3, H', W'), as provided by the data loader.
        sample: Meta information of the image; not changed.
    """
    data = model.data_preprocessor({'inputs': [inputs], 'data_samples': [sample]})
    images, (own_sample,) = data['inputs'], data['data_samples']  # the preprocessor has created a new sample
    looks, shape = model.look(images), images.shape[2:]
    proposals = looks[0]
    corrected = indicator = None
    if corrects(model) and (indicators := model.indicate(proposals)) is not None:
        corrected = model.class_probs(proposals)[0].float()
        indicator = indicators[0].float()
    plain = model.question.without_correction()
    (answer,) = model.answer(looks, [own_sample], shape, plain)
    return Inspection(
        masks=answer.views[0].mask_logits,
        scores=model.classify(proposals, plain.text_embeds(images.device))[0].float(),
        cls_feats=proposals.cls_feats[0].float(),
        probs=answer.views[0].class_probs,
        corrected=corrected,
        indicator=indicator,
        labels=answer.labels()[0],
        window=answer.window,
        shape=padded_size(shape, model.stride),
    )


def find_corrections(found: Inspection, seen: Tensor, limit: int) -> list[Correction]:
    """Return proposals whose best class is seen without PBC and unseen with it, the largest masks first.

    Args:
        found: With ``corrected`` and ``indicator``.
        seen: (C,) bool, whether each test class is in S.
        limit: Maximum number; masks without a pixel where σ(M) > 0.5 are left out.
    """
    assert found.corrected is not None and found.indicator is not None
    seen = seen.to(found.probs.device)
    (prob_before, before), (prob_after, after) = found.probs.max(dim=1), found.corrected.max(dim=1)
    changed = (seen[before] & ~seen[after]).nonzero().squeeze(1)
    areas = mask_areas(found.masks[changed], found.window)
    order = areas.argsort(descending=True, stable=True)[:limit]
    chosen = changed[order[areas[order] > 0]]
    if not len(chosen):
        return []
    masks = binary_masks(found.masks[chosen], found.window)
    values = (found.indicator, before, after, prob_before, prob_after)
    return [
        Correction(mask.numpy(), *row)
        for mask, *row in zip(masks, *(value[chosen].tolist() for value in values), strict=True)
    ]


def mask_areas(mask_logits: Tensor, window: Window) -> Tensor:
    """Count the pixels of the image where σ(M) > 0.5, (N,) int64.

    Args:
        mask_logits: (N, h, w), flips undone.
        window: Position of the image in the grid.
    """
    areas = torch.zeros(len(mask_logits), dtype=torch.long, device=mask_logits.device)
    if len(mask_logits):
        for _, masks in mask_stripes(mask_logits, window):
            areas += (masks > 0.5).sum(dim=(0, 1))
    return areas


def matched_features(model: AlignZeg, found: Inspection, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return the proposals of an image that Hungarian matching assigns to a ground-truth class, as in training.

    Args:
        model: Provides the matcher, which compares masks at random points.
        found: Result of :func:`inspect_image` for the same model.
        labels: Ground-truth labels (H, W) integers; labels outside the test classes are ignored.
        seed: Seed of the points; the global random state does not change.

    Returns:
        F_cls (m, D), and labels (m,) int64.
    """
    num_classes = found.probs.shape[1]
    labels = torch.where((labels >= 0) & (labels < num_classes), labels.long(), num_classes).to(found.masks.device)
    placed = found.window.place(labels, found.shape, num_classes)
    with torch.random.fork_rng([found.masks.device] if found.masks.is_cuda else []):
        torch.manual_seed(seed)
        pairs = model.criterion.match(found.masks, found.scores, placed, num_classes)
    return found.cls_feats[pairs[:, 0]], pairs[:, 1]


def original_image(inputs: Tensor, metainfo: Mapping[str, Any], bgr: bool) -> np.ndarray:
    """Reconstruct the image from an input of a test pipeline, at its original size, without padding and flips.

    Args:
        inputs: (3, H', W') 0..255, not normalised.
        metainfo: See :meth:`Window.of_image`.
        bgr: Whether the channels are in the order blue, green, red.

    Returns:
        (H, W, 3) uint8 RGB; the original pixels unless the pipeline resized them.
    """
    window = Window.of_image(metainfo, inputs.shape[1:], stride=1)
    picture = unflip(inputs, metainfo).permute(1, 2, 0).cpu().numpy()
    top, left = round(window.top * picture.shape[0]), round(window.left * picture.shape[1])
    height, width = round(window.height * picture.shape[0]), round(window.width * picture.shape[1])
    picture = picture[top : top + height, left : left + width]
    if (height, width) != tuple(window.size):
        picture = mmcv.imresize(picture, tuple(window.size)[::-1], interpolation='bilinear')
    picture = picture.round().clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(picture[..., ::-1] if bgr else picture)
