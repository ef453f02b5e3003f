"""Aggregation of all images to the plain numbers of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor

from .collect import AnalysisTask, ImageProposals
from .curves import Variant, image_counts, mask_ious, measures

BINS = 20


class Summary:
    """Accumulates images one by one.

    Args:
        variants: Result of :func:`plan_variants`.
        own: The setting of the config, one of the variants.
        base: γ for comparisons of PBC; None for a model without indicator.
        task: Classes and conventions.
    """

    def __init__(self, variants: Sequence[Variant], own: Variant, base: float | None, task: AnalysisTask) -> None:
        self.variants = variants
        self.own = own
        self.base = base
        self.task = task
        num_classes = len(task.vocabulary.classes)
        self.images = 0
        self.confusion = torch.zeros(len(variants), num_classes, num_classes + 1, dtype=torch.int64)
        self._ious: list[Tensor] = []  # per image (C,)
        self._indicators: dict[str, list[Tensor]] = {'seen': [], 'unseen': [], 'background': []}

    def add(self, image: ImageProposals) -> None:
        """Add one image."""
        confusion, pixels = image_counts(image, self.variants, self.task)
        self.images += 1
        self.confusion += confusion
        self._ious.append(mask_ious(pixels, confusion[0].sum(dim=1)))
        indicator = image.views[0].indicator
        if indicator is not None:
            for group, values in indicator_groups(indicator, image.matched, self.task.trained).items():
                self._indicators[group].append(values)

    def result(self) -> dict[str, Any]:
        """Return all numbers in JSON-compatible types.

        Returns:
            ``images``; ``base``; ``rows``, one dict per variant with its settings, whether it is the config's own, and
            its measures in percent; ``masks``, ``indicator`` and ``confusion`` of :func:`mask_quality`,
            :func:`indicator_quality` and :func:`unseen_confusion`; ``left_out``, a sentence for each missing part.
        """
        unseen = self.task.unseen
        rows = [
            {**asdict(variant), 'own': variant == self.own, **measures(confusion, unseen)}
            for variant, confusion in zip(self.variants, self.confusion, strict=True)
        ]
        left_out = []
        if self.base is None:
            left_out.append(
                'The model has no class indicator, so everything about predictive bias correction is left out.'
            )
        if not unseen.any():
            left_out.append(
                'No test class is unseen, so calibrated stacking and everything about unseen classes are left out.'
            )
        elif unseen.all():
            left_out.append(
                'All test classes are unseen, so calibrated stacking and everything about bias are left out.'
            )
        elif not self.task.has_both:
            left_out.append('Training had labels for all test classes or none, so calibrated stacking is left out.')
        compared = {'without PBC': Variant()}
        if self.base is not None:
            compared['with PBC'] = Variant(self.base)
        return {
            'images': self.images,
            'base': self.base,
            'rows': rows,
            'masks': mask_quality(torch.stack(self._ious), unseen),
            'indicator': indicator_quality({k: np.concatenate(v) for k, v in self._indicators.items() if v}, self.base),
            'confusion': {
                name: unseen_confusion(
                    self.confusion[self.variants.index(variant)], unseen, self.task.vocabulary.classes
                )
                for name, variant in compared.items()
            },
            'left_out': left_out,
        }


def indicator_groups(indicator: Tensor, matched: Tensor, trained: Tensor) -> dict[str, Tensor]:
    """Group I of one image's proposals by what they were matched to.

    Args:
        indicator: I, (N,).
        matched: (m, 2), see :class:`ImageProposals`.
        trained: (C,) bool.

    Returns:
        Values of proposals matched to ``seen`` and to ``unseen`` classes, and of the rest, ``background``; on the CPU.
    """
    values, matched = indicator.cpu(), matched.cpu()
    seen = trained[matched[:, 1]]
    rest = torch.ones(len(values), dtype=torch.bool).index_fill(0, matched[:, 0], False)
    return {'seen': values[matched[seen, 0]], 'unseen': values[matched[~seen, 0]], 'background': values[rest]}


def histogram(values: np.ndarray) -> dict[str, Any]:
    """Return ``count``, ``mean`` (None if empty) and ``histogram`` of values in [0, 1], in :data:`BINS` equal bins."""
    counts = np.histogram(values, bins=BINS, range=(0, 1))[0]
    return {
        'count': len(values),
        'mean': float(np.mean(values, dtype=np.float64)) if len(values) else None,
        'histogram': counts.tolist(),
    }


def indicator_quality(groups: dict[str, np.ndarray], base: float | None) -> dict[str, Any]:
    """Measure how well I separates unseen from seen classes.

    Args:
        groups: Values of all images, see :func:`indicator_groups`; empty for a model without φ_bc.
        base: γ.

    Returns:
        For each group, :func:`histogram` and ``above_base``, the share with I > γ (None if it is empty); and ``auroc``,
        the probability that a matched unseen proposal has a larger I than a matched seen one, None if one is missing.
    """
    if not groups:
        return {}
    seen, unseen = groups['seen'], groups['unseen']
    auroc = None
    if len(seen) and len(unseen):
        auroc = float(mannwhitneyu(unseen, seen).statistic / (len(seen) * len(unseen)))
    result: dict[str, Any] = {'auroc': auroc}
    for name, values in groups.items():
        above = float((values > base).mean()) if len(values) else None
        result[name] = {**histogram(values), 'above_base': above}
    return result


def mask_quality(ious: Tensor, unseen: Tensor) -> dict[str, Any]:
    """Measure how well the best proposals fit.

    Args:
        ious: (images, C) of :func:`mask_ious`.
        unseen: (C,) bool.

    Returns:
        For ``seen`` and ``unseen`` classes, :func:`histogram` over ground-truth masks and ``above_half``, the share of
        IoUs above 0.5 (None without masks).
    """
    result = {}
    for name, members in (('seen', ~unseen), ('unseen', unseen)):
        fits = ious[:, members]
        values = fits[~fits.isnan()].numpy()
        above = float((values > 0.5).mean()) if len(values) else None
        result[name] = {**histogram(values), 'above_half': above}
    return result


def unseen_confusion(confusion: Tensor, unseen: Tensor, classes: Sequence[str], top: int = 3) -> list[dict[str, Any]]:
    """Return the classes that pixels of unseen classes are predicted as.

    Args:
        confusion: (C, C + 1) int64.
        unseen: (C,) bool.
        classes: C names.
        top: Number of seen classes to list.

    Returns:
        One dict per unseen class with pixels: ``name``, ``pixels``, and the shares ``itself``, ``other_unseen`` and
        ``seen`` in percent; ``takers``, the most frequent seen classes, as [name, share] pairs.
    """
    table = []
    for label in unseen.nonzero().flatten().tolist():
        pixels = confusion[label].sum().item()
        if not pixels:
            continue
        shares = 100 * confusion[label, :-1].double() / pixels
        to_seen = shares.masked_fill(unseen, 0)
        takers = [(classes[i], to_seen[i].item()) for i in to_seen.argsort(descending=True)[:top].tolist()]
        table.append(
            {
                'name': classes[label],
                'pixels': pixels,
                'itself': shares[label].item(),
                'other_unseen': (shares[unseen].sum() - shares[label]).item(),
                'seen': to_seen.sum().item(),
                'takers': [[name, share] for name, share in takers if share > 0],
            }
        )
    return table
