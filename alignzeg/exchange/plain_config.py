"""A model's arguments as plain JSON: conversion from a config file, and checks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from reprlib import Repr
from typing import Any

import open_clip
from mmengine.config import Config
from mmseg.registry import MODELS

from mmseg_alignzeg.models.clip_weights import is_path

FORMAT = 1
PREPROCESSORS = ('SegDataPreProcessor', 'PinnedSegDataPreProcessor')
WIDEST = 4  # ratio of long to short side of the largest input if a config has no resize, as in the full-size pipelines
#: Sources of :class:`ClassNames` that do not depend on files of the training machine.
NAME_SOURCES = ('raw', 'comma', 'cleaned')
#: Limits of an untrusted configuration. The largest of this project: 8 layers, 847 names, 640 pixels.
LARGEST_FILE = 4 << 20  # bytes
LARGEST_AREA = 1 << 24  # pixels of an input
SMALLEST_SIDE = 16  # pixels of an input
LARGEST_NUMBER = 1_000_000
DEEPEST = 8
LONGEST_LIST = {'classes': 20_000, 'unseen_classes': 20_000, 'views': 8}
LONGEST_OTHER_LIST = 64
MOST_LAYERS = 64
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 120


def plain_config(cfg: Config) -> dict[str, Any]:
    """Return the content of ``config.json`` for the config a model was trained with.

    Nothing of the machine is included: ``cache_dir`` and ``compile`` are dropped, and so is a CLIP weight file, which
    the checkpoint's identity still identifies by its digest.

    Args:
        cfg: Config with ``model`` and, if images are resized before a prediction, a test pipeline.

    Returns:
        ``format``, ``model`` (arguments of ``AlignZeg``) and, if there is one, ``input_scale``.

    Raises:
        ValueError: If the model cannot be described without code or files of this machine.
    """
    model = json.loads(json.dumps(cfg.model.to_dict(), default=_refuse))
    (model.get('text') or {}).pop('cache_dir', None)
    clip = model.get('clip', {})
    for encoder in (clip, model.get('image_encoder', {})):
        encoder.pop('compile', None)
    if clip.get('pretrained', '') is None:
        raise ValueError(
            "`clip.pretrained` is None: CLIP's weights are random and not in any file, so the model could never be "
            'built again. Train with a tag such as "openai" or with a file.'
        )
    if is_path(clip.get('pretrained', '')):
        del clip['pretrained']
    config: dict[str, Any] = {'format': FORMAT, 'model': model}
    scale = input_scale(cfg)
    if scale is not None:
        config['input_scale'] = list(scale)
    check_config(config, 'the config')
    return config


def input_scale(cfg: Config) -> tuple[int, int] | None:
    """Return the (long, short) bounds of test images in mmcv's ``Resize(keep_ratio=True)``; None if not resized.

    Raises:
        ValueError: If the test pipeline resizes in another way.
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
    """Return the types that a configuration may name: this package's own models and mmseg's data preprocessor."""
    own = {name for name, part in MODELS.module_dict.items() if part.__module__.startswith('mmseg_alignzeg.models')}
    return frozenset(own | {*PREPROCESSORS})


def check_config(config: Any, origin: str) -> None:
    """Refuse anything that could affect more than the components of AlignZeg: other types, scopes, paths, addresses.

    Args:
        config: Parsed JSON.
        origin: Origin of the config, for messages.

    Raises:
        ValueError: If an entry is refused; the message names it.
    """
    if not isinstance(config, dict) or config.get('format') != FORMAT or not isinstance(config.get('model'), dict):
        raise ValueError(
            f'{origin} is not a configuration of this version: expected {{"format": {FORMAT}, "model": {{…}}}}.'
        )
    unknown = sorted(config.keys() - {'format', 'model', 'input_scale'})
    if unknown:
        raise ValueError(
            f'{origin}: unknown entry {_SHORT.repr(unknown[0])}; expected `model` and, optionally, `input_scale`.'
        )
    model = config['model']
    if model.get('type') != 'AlignZeg':
        raise ValueError(
            f"{origin}: `model.type` is {_SHORT.repr(model.get('type'))}; only 'AlignZeg' can be exchanged."
        )
    types = allowed_types()
    for where, key, value in _entries(model, f'{origin}: `model'):
        if key == 'type' and (not isinstance(value, str) or value not in types):
            raise ValueError(f'{where}` is {_SHORT.repr(value)}; allowed are {", ".join(sorted(types))}.')
        if key.startswith('_') or key in ('cache_dir', 'compile', 'embeddings'):
            raise ValueError(f'{where}` is not allowed in an exchanged model: delete it.')
        fault = _fault(key, value)
        if fault:
            raise ValueError(f'{where}` is {_SHORT.repr(value)}; expected {fault}.')
    clip, text = model.get('clip'), model.get('text') or {}
    names = text.get('names') or {} if isinstance(text, dict) else None
    name = clip.get('model_name') if isinstance(clip, dict) else None
    if not isinstance(name, str) or name not in open_clip.list_models():
        raise ValueError(f'{origin}: `model.clip.model_name` must be one of open_clip.list_models().')
    pretrained = clip.get('pretrained', 'none')
    if not isinstance(pretrained, str) or is_path(pretrained):
        raise ValueError(
            f'{origin}: `model.clip.pretrained` is {_SHORT.repr(pretrained)}; expected "embedded" or a tag of '
            'open_clip. Omit it if the weights come from a file, and pass that file when loading.'
        )
    if not isinstance(names, dict) or names.get('source', 'raw') not in NAME_SOURCES:
        raise ValueError(f'{origin}: `model.text.names.source` must be one of {NAME_SOURCES}, not a file.')
    if not 0 < _number(clip.get('scale_factor', 1)) <= 4:
        raise ValueError(
            f'{origin}: `model.clip.scale_factor` is {_SHORT.repr(clip["scale_factor"])}; expected a number in (0, 4].'
        )
    _check_preprocessor(model.get('data_preprocessor'), f'{origin}: `model.data_preprocessor')
    scale = config.get('input_scale')
    if scale is not None and not _is_size(scale):
        raise ValueError(f'{origin}: `input_scale` is {_SHORT.repr(scale)}; expected [long, short] in pixels.')
    long, short = default_input_scale(config, origin)
    if min(long, short) < SMALLEST_SIDE or long * short > LARGEST_AREA:
        raise ValueError(
            f'{origin}: images would be resized to {long} × {short} pixels; expected sides of at least {SMALLEST_SIDE} '
            f'and at most {LARGEST_AREA:,} pixels in total: change `input_scale`, or `model.data_preprocessor.size` '
            'if there is none.'
        )


def default_input_scale(config: Any, origin: str) -> tuple[int, int]:
    """Return (long, short) of ``input_scale``; without one, the short side is the size of the training images.

    Args:
        config: With ``model`` and optionally ``input_scale``.
        origin: Origin of the config, for messages.

    Raises:
        ValueError: If there is neither.
    """
    scale = config.get('input_scale')
    if scale is None:
        size = (config['model'].get('data_preprocessor') or {}).get('size')
        if not isinstance(size, (list, tuple)) or not _is_size(list(size)):
            raise ValueError(
                f'{origin} has no resize of test images, and `model.data_preprocessor.size` is {_SHORT.repr(size)}: '
                'expected [height, width] of training images.'
            )
        scale = WIDEST * min(size), min(size)
    return scale[0], scale[1]


def _check_preprocessor(given: Any, where: str) -> None:
    """Refuse a preprocessor with an unusable normalisation, or one that pads images to an arbitrary size."""
    if not isinstance(given, dict) or given.get('type') not in PREPROCESSORS:
        raise ValueError(f'{where}` is {_SHORT.repr(given)}; expected a dict with "type", one of {PREPROCESSORS}.')
    of_tower = not given.keys() & {'mean', 'std'}  # the segmentor takes them from its tower
    for key, smallest in () if of_tower else (('mean', 0), ('std', 1)):  # for pixels in 0..255
        values = given.get(key)
        if not isinstance(values, list) or len(values) != 3 or not all(smallest <= _number(x) <= 255 for x in values):
            raise ValueError(f'{where}.{key}` is {_SHORT.repr(values)}; expected 3 numbers from {smallest} to 255.')
    padding = given.get('test_cfg') or {}
    if not isinstance(padding, dict):
        raise ValueError(f'{where}.test_cfg` is {_SHORT.repr(padding)}; expected {{"size_divisor": 1 to 1024}}.')
    for size in (given.get('size'), padding.get('size')):
        if size is not None and not (_is_size(size) and size[0] * size[1] <= LARGEST_AREA):
            raise ValueError(f'{where}.size` is {_SHORT.repr(size)}; expected [height, width] in pixels.')
    for divisor in (given.get('size_divisor'), padding.get('size_divisor')):
        if divisor is not None and (type(divisor) is not int or not 1 <= divisor <= 1024):
            raise ValueError(f'{where}.size_divisor` is {_SHORT.repr(divisor)}; expected 1 to 1024 pixels.')


def _fault(key: str, value: Any) -> str | None:
    """Return the expectation that an entry of `model` violates, or None."""
    if isinstance(value, str):
        return None if len(value) <= 1000 and value.isprintable() else 'at most 1000 printable characters'
    if isinstance(value, list):
        longest = LONGEST_LIST.get(key, LONGEST_OTHER_LIST)
        return None if len(value) <= longest else f'at most {longest} entries'
    if isinstance(value, (int, float)) and not abs(_number(value, value)) <= LARGEST_NUMBER:
        return f'a number of at most {LARGEST_NUMBER:,}'
    if key in ('tap_layer', 'tail_layers') and value is None:  # the tower chooses
        return None
    fewest = 0 if key == 'tail_layers' else 1
    if key in ('depth', 'num_layers', 'tap_layer', 'tail_layers') and not (
        type(value) is int and fewest <= value <= MOST_LAYERS
    ):
        return f'a whole number from {fewest} to {MOST_LAYERS}'
    return None


def _number(value: Any, otherwise: float = math.nan) -> float:
    """Return a number unchanged; NaN, for which every comparison is false, for anything else, including booleans."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else otherwise


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(x) is int and 0 < x < 1 << 24 for x in value)


def _entries(value: Any, where: str, depth: int = 0) -> Iterator[tuple[str, str, Any]]:
    """Yield every entry of every dict and list in a nested value: its path, its key and its value.

    Raises:
        ValueError: If a key is not an identifier, or the value is nested too deeply.
    """
    if depth > DEEPEST:
        raise ValueError(f'{where}` is nested more than {DEEPEST} deep.')
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(key, str) and not (key.isidentifier() and len(key) <= 64):
            raise ValueError(f'{where}` has an entry {_SHORT.repr(key)}; expected names of arguments.')
        path = f'{where}.{key}'
        yield path, str(key), item
        if isinstance(item, (dict, list)):
            yield from _entries(item, path, depth + 1)


def _refuse(value: Any) -> None:
    raise ValueError(
        f'The model config contains a {type(value).__name__} ({value!r}), which JSON cannot hold: use plain values.'
    )
