"""What a run needs and this machine lacks: CLIP's weights, GPUs, data. Nothing is loaded or downloaded."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmseg.registry import DATASETS

from ..datasets.checked_datasets import CheckedFiles
from ..models.clip_source import CLIPSource


def missing_parts(cfg: Mapping[str, Any], splits: Sequence[str]) -> list[str]:
    """Return one line for each thing that is missing, with the way to get it; an empty list if nothing is.

    Whether weights that are not in the cache can be downloaded is found out by one request to the model hub, without
    retries.

    Args:
        cfg: A config whose default scope is ``mmseg``.
        splits: The splits whose data are needed, among ``'train'``, ``'val'`` and ``'test'``.
    """
    lines = [missing_weights(cfg.get('model') or {}), missing_gpu(cfg), *missing_data(cfg, splits)]
    return [' '.join(line.split()) for line in lines if line]


def missing_weights(model: Mapping[str, Any]) -> str:
    """Return why the CLIP weights of a model cannot be had, or ''."""
    clip = model.get('clip')
    if not isinstance(clip, Mapping) or not isinstance(clip.get('model_name'), str):
        return ''
    try:
        CLIPSource(clip['model_name'], clip.get('pretrained')).refuse_missing()
    except (ValueError, OSError) as error:
        return str(error)
    return ''


def missing_gpu(cfg: Mapping[str, Any]) -> str:
    """Return which GPU a config asks for although torch sees none, or ''."""
    if torch.cuda.is_available():
        return ''
    device = str(cfg.get('device', ''))
    sees = f'torch {torch.__version__} sees no CUDA device: check `nvidia-smi` and CUDA_VISIBLE_DEVICES'
    if device.startswith('cuda'):
        return f'The config requests `device={device!r}`, but {sees}, or remove `device` to run on the CPU.'
    backend = ((cfg.get('env_cfg') or {}).get('dist_cfg') or {}).get('backend')
    if cfg.get('launcher', 'none') != 'none' and backend == 'nccl':
        way_out = 'pass `--cfg-options env_cfg.dist_cfg.backend=gloo` to use CPUs'
        return f"The backend 'nccl' of `--launcher {cfg['launcher']}` needs GPUs, but {sees}, or {way_out}."
    return ''


def missing_data(cfg: Mapping[str, Any], splits: Sequence[str]) -> list[str]:
    """Return the roots, folders and lists that do not exist, once each, with the splits that need them."""
    needed: dict[str, list[str]] = {}
    for split in splits:
        for leaf in _leaves((cfg.get(f'{split}_dataloader') or {}).get('dataset') or {}):
            kind = leaf.get('type')
            kind = DATASETS.get(kind) if isinstance(kind, str) else kind
            if isinstance(kind, type) and issubclass(kind, CheckedFiles):
                fault = kind.missing_place(leaf)
                if fault and split not in needed.setdefault(fault, []):
                    needed[fault].append(split)
    return [f'{", ".join(names)} data: {fault}' for fault, names in needed.items()]


def _leaves(dataset: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the configs of the datasets inside wrappers."""
    parts = [part for part in [*dataset.get('datasets', ()), dataset.get('dataset')] if isinstance(part, Mapping)]
    for part in parts:
        yield from _leaves(part)
    if not parts and dataset:
        yield copy.deepcopy(dict(dataset))
