"""A CLIP with random weights (``pretrained=None``) tests the pipeline; what it computes is not a result."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cache
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import nn

PREFIX = 'random_clip'  # of the names of scores
NOTE = (
    'CLIP has random weights (`model.clip.pretrained=None`): this tests the pipeline; its scores and predictions are '
    'not results.'
)


def is_random(model: Any) -> bool:
    """Return whether the config of a model, or a built one, has a CLIP with random weights."""
    if isinstance(model, nn.Module):
        bank = getattr(model, 'text_bank', None)  # other segmentors have none
        return bank is not None and bank.source.pretrained is None
    return (model.get('clip') or {}).get('pretrained', '') is None


@cache
def warn_of_random_clip() -> None:
    """Log :data:`NOTE` as a warning, once per process."""
    print_log(NOTE, 'current', logging.WARNING)


def label_scores(metrics: Iterable[BaseMetric]) -> None:
    """Name all scores ``random_clip/…``, so that neither a reader nor a program takes them for results."""
    for metric in metrics:
        metric.prefix = PREFIX
