"""A model's arguments as plain JSON: what may stand there, and how they are taken from a config file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
from mmengine.config import Config
from mmseg.registry import MODELS

FORMAT = 1
#: Sources of :class:`ClassNames` that are no file of the machine that trained.
NAME_SOURCES = ('raw', 'comma', 'cleaned')


def plain_config(cfg: Config) -> dict[str, Any]:
    """What ``config.json`` holds, from the config a model was trained with.

    No path leaves the machine: ``cache_dir`` is dropped, and so is a CLIP weight file, which the checkpoint's identity
    still names by its digest.

    Args:
        cfg: With ``model`` and, as far as images are resized before a prediction, a test pipeline.

    Returns:
        ``format``, ``model`` (arguments of ``AlignZeg``) and, if there is one, ``input_scale``.

    Raises:
        ValueError: If the model cannot be described without code or files of this machine.
    """
    model = json.loads(json.dumps(cfg.model.to_dict(), default=_refuse))
    model.pop('cache_dir', None)
    clip = model.get('clip', {})
    if clip.get('pretrained', '') is None:
        raise ValueError(
            "`clip.pretrained` is None: CLIP's weights are random and belong to no file, so that the model could never "
            'be built again. Train with a tag such as "openai" or with a file.'
        )
    if Path(clip.get('pretrained', '')).suffix:
        del clip['pretrained']
    config: dict[str, Any] = {'format': FORMAT, 'model': model}
    scale = input_scale(cfg)
    if scale is not None:
        config['input_scale'] = list(scale)
    check_config(config, 'the config')
    return config


def input_scale(cfg: Config) -> tuple[int, int] | None:
    """(long, short) bounds of the test images as of mmcv's ``Resize(keep_ratio=True)``; None if they keep their size.

    Raises:
        ValueError: If the test pipeline resizes in a way that has no such form.
    """
    dataset = cfg.get('test_dataloader', {}).get('dataset', {})
    for step in dataset.get('pipeline', cfg.get('test_pipeline', [])):
        if step['type'] == 'ResizeShortestEdge':
            scale = step['scale']
            return int(step['max_size']), scale if isinstance(scale, int) else min(scale)
        if step['type'] == 'Resize' and step.get('keep_ratio') and len(step.get('scale') or ()) == 2:
            return max(step['scale']), min(step['scale'])
        if 'Resize' in step['type']:
            raise ValueError(
                f'The test pipeline resizes by {dict(step)}: expected `ResizeShortestEdge` with `max_size`, or '
                '`Resize` with `scale=(long, short)` and `keep_ratio=True`.'
            )
    return None


def allowed_types() -> frozenset[str]:
    """Types of parts that a configuration may name: this package's own models and mmseg's data preprocessor."""
    own = {name for name, part in MODELS.module_dict.items() if part.__module__.startswith('mmseg_alignzeg.models')}
    return frozenset(own | {'SegDataPreProcessor'})


def check_config(config: Any, origin: str) -> None:
    """Refuse whatever could reach further than the parts of AlignZeg: other types, scopes, paths, addresses.

    Args:
        config: Parsed JSON.
        origin: Where it is from, for messages.

    Raises:
        ValueError: Naming the entry.
    """
    if not isinstance(config, dict) or config.get('format') != FORMAT or not isinstance(config.get('model'), dict):
        raise ValueError(
            f'{origin} is no configuration of this version: expected {{"format": {FORMAT}, "model": {{…}}}}.'
        )
    unknown = config.keys() - {'format', 'model', 'input_scale'}
    if unknown:
        raise ValueError(f'{origin}: unknown entry {min(unknown)!r}; expected `model` and, if at all, `input_scale`.')
    model = config['model']
    if model.get('type') != 'AlignZeg':
        raise ValueError(f"{origin}: `model.type` is {model.get('type')!r}; only 'AlignZeg' can be exchanged.")
    types = allowed_types()
    for where, key, value in _entries(model, 'model'):
        if key == 'type' and (not isinstance(value, str) or value not in types):
            raise ValueError(f'{origin}: `{where}` is {value!r}; allowed are {", ".join(sorted(types))}.')
        if key.startswith('_') or key == 'cache_dir':
            raise ValueError(f'{origin}: `{where}` is not allowed in an exchanged model; delete it.')
    clip, names = model.get('clip'), model.get('names') or {}
    if not isinstance(clip, dict) or clip.get('model_name') not in open_clip.list_models():
        raise ValueError(f'{origin}: `model.clip.model_name` must be one of open_clip.list_models().')
    pretrained = clip.get('pretrained', 'none')
    if not isinstance(pretrained, str) or Path(pretrained).suffix or '/' in pretrained:
        raise ValueError(
            f'{origin}: `model.clip.pretrained` is {pretrained!r}; expected "embedded" or a tag of open_clip. Leave it '
            'out where weights come from a file, and give that file when loading.'
        )
    if not isinstance(names, dict) or names.get('source', 'raw') not in NAME_SOURCES:
        raise ValueError(f'{origin}: `model.names.source` must be one of {NAME_SOURCES}, not a file.')
    scale = config.get('input_scale', [1, 1])
    if not isinstance(scale, list) or len(scale) != 2 or any(type(side) is not int or side < 1 for side in scale):
        raise ValueError(f'{origin}: `input_scale` is {scale!r}; expected [long, short] in pixels.')


def _entries(value: Any, where: str) -> Iterator[tuple[str, str, Any]]:
    """Every entry of every dict in a nested value: its path, its key and its value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        path = f'{where}.{key}'
        if isinstance(value, dict):
            yield path, str(key), item
        yield from _entries(item, path)


def _refuse(value: Any) -> None:
    raise ValueError(
        f'The model config holds a {type(value).__name__} ({value!r}), which JSON cannot: use plain values.'
    )
