"""Mean and standard deviation of the pixels that a tower was trained with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import open_clip
from mmseg.models import SegDataPreProcessor
from mmseg.registry import MODELS
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from ..clip_source import CLIPSource

#: Mean and standard deviation of R, G and B, for pixels in 0..255.
PixelStatistics = tuple[tuple[float, ...], tuple[float, ...]]


def known_statistics(source: CLIPSource) -> list[PixelStatistics]:
    """Return the statistics that open_clip lists for the weights of a source, without building or loading anything.

    For a tag, these are its own. A file does not contain them: they are those of all tags of its architecture, which
    differ for ViT-L-14 alone. Random weights take the first. An architecture without tags has none.
    """
    if source.pretrained == 'embedded':
        return [_of_bytes(OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)]
    tags = open_clip.list_pretrained_tags_by_model(source.model_name)
    listed = [source.pretrained] if source.pretrained in tags else tags
    cfgs = [open_clip.get_pretrained_cfg(source.model_name, tag) for tag in listed]
    found = list(dict.fromkeys(_of_bytes(cfg['mean'], cfg['std']) for cfg in cfgs))
    return found[:1] if source.pretrained is None else found


def with_statistics(preprocessor: Any, source: CLIPSource) -> Any:
    """Complete the config of a ``SegDataPreProcessor`` with the mean and std of a tower; return others unchanged.

    Args:
        preprocessor: ``data_preprocessor`` of a segmentor.
        source: The CLIP model. If nothing is known of it, the default is OpenAI's, and a config may replace it.

    Raises:
        ValueError: If the config has statistics of another tower, or needs them because the tower's are not known.
    """
    if not isinstance(preprocessor, Mapping):
        return preprocessor
    kind = preprocessor.get('type')
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(kind, type) and issubclass(kind, SegDataPreProcessor)):
        return preprocessor
    known, name = known_statistics(source), source.model_name
    given = preprocessor.get('mean'), preprocessor.get('std')
    if given == (None, None):
        if len(known) > 1:
            raise ValueError(
                f'Weights of {name} in a file may need one of {len(known)} normalisations, and the file does not say '
                f'which: set mean and std of model.data_preprocessor to those of their training: {_listed(known)}.'
            )
        mean, std = known[0] if known else _of_bytes(OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
        return {**preprocessor, 'mean': list(mean), 'std': list(std)}
    if known and not any(_equal(given, statistics) for statistics in known):
        raise ValueError(
            f'model.data_preprocessor has mean={given[0]} and std={given[1]}, but {name} was trained with '
            f'{_listed(known)}: delete both from the config, and the values of the tower are used.'
        )
    return preprocessor


def _of_bytes(mean: Sequence[float], std: Sequence[float]) -> PixelStatistics:
    """Convert statistics of pixels in 0..1 to those of pixels in 0..255."""
    return tuple(round(255 * x, 4) for x in mean), tuple(round(255 * x, 4) for x in std)


def _equal(given: tuple[Any, Any], statistics: PixelStatistics) -> bool:
    """Whether mean and std agree up to rounding in the second decimal."""
    try:
        pairs = [*zip(given[0], statistics[0], strict=True), *zip(given[1], statistics[1], strict=True)]
    except (TypeError, ValueError):
        return False
    return all(math.isclose(a, b, abs_tol=0.01) for a, b in pairs)


def _listed(known: Sequence[PixelStatistics]) -> str:
    return ' or '.join(f'mean={list(mean)} std={list(std)}' for mean, std in known)
