"""A trained model as a folder: ``config.json``, plain JSON, and ``model.safetensors``, the trained weights."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_alignzeg.files import write_text
from mmseg_alignzeg.models import AlignZeg

from .plain_config import LARGEST_FILE, check_config, plain_config
from .weights import check_shapes, load_weights, save_weights

CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'


def save_pretrained(cfg: Config, checkpoint: str | Path, folder: str | Path) -> AlignZeg:
    """Write a trained model as a folder that :func:`load_pretrained` reads.

    A built model does not know its arguments, so they are taken from its config. Before anything is written, the model
    is built from the new configuration and the checkpoint is loaded into it, so nothing inconsistent is saved.

    Args:
        cfg: The config the model was trained with, as stored by MMEngine beside a checkpoint.
        checkpoint: A checkpoint (``.pth``) or weights (``.safetensors``).
        folder: Created if necessary; its two files are replaced.

    Returns:
        The model that was written.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If config and checkpoint do not fit, or the model cannot be described by plain values.
    """
    config = plain_config(cfg)
    model = _build(config, 'the config', cfg.model.clip.pretrained)
    load_weights(model, checkpoint)
    write_text(Path(folder) / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + '\n')
    save_weights(model, Path(folder) / WEIGHTS)
    return model


def load_pretrained(name: str | Path, download: bool = False, clip_weights: str | None = None) -> AlignZeg:
    """Build a model from a folder of :func:`save_pretrained`. The folder cannot execute code.

    CLIP's weights are not in the folder: the configuration names the embedded ones or a tag of open_clip, which
    open_clip downloads unless they are cached, as in training.

    Args:
        name: A folder, or with ``download`` the id of a model on the Hugging Face Hub (``org/name``).
        download: Allow the download of that id.
        clip_weights: A file or tag of CLIP weights in place of those in the configuration; must be identical to those
            of the training.

    Returns:
        The model, in evaluation mode on the CPU.

    Raises:
        FileNotFoundError: If the folder or a file is missing, or the download fails.
        ValueError: If a file is damaged or not allowed, or the files do not fit each other or CLIP.
    """
    folder = find_pretrained(name, download)
    config, origin = read_config(folder), str(folder / CONFIG)
    check_shapes(folder / WEIGHTS, _outline(config, origin))  # before memory is allocated for a model without weights
    model = _build(config, origin, clip_weights)
    load_weights(model, folder / WEIGHTS)
    return model


def find_pretrained(name: str | Path, download: bool = False) -> Path:
    """Return the folder of a model on this machine, downloading it from the hub if requested.

    Args:
        name: See :func:`load_pretrained`.
        download: See :func:`load_pretrained`.

    Raises:
        FileNotFoundError: See :func:`load_pretrained`.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir() and is_hub_id(name) and download:
        folder = _fetch(str(name))
    if not folder.is_dir():
        hint = ' To download it from the Hugging Face Hub, pass download=True.' if is_hub_id(name) else ''
        raise FileNotFoundError(f'{str(name)!r} is not a folder with a saved model.{hint}')
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise FileNotFoundError(
                f'{folder} has no {file}: expected the {CONFIG} and {WEIGHTS} of `save_pretrained`.'
            )
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check ``config.json``: ``model``, the arguments of ``AlignZeg``, and optionally ``input_scale``.

    ``input_scale`` is [long, short]: images are resized to fit into it, keeping their ratio.

    Raises:
        ValueError: If it is not valid JSON, or contains anything that is not allowed.
    """
    path = folder / CONFIG
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f'{path} has {path.stat().st_size:,} bytes; a configuration has at most {LARGEST_FILE:,}.')
    try:
        text = path.read_text(encoding='utf-8')
        config = json.loads(text, parse_constant=_no_number, object_pairs_hook=_each_key_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} is not valid JSON ({error}).') from error
    check_config(config, str(path))
    return config


def _build(config: dict[str, Any], origin: str, clip_weights: str | None) -> AlignZeg:
    """Build the model of a checked configuration, with untrained weights, in evaluation mode."""
    arguments = {**config['model'], 'clip': dict(config['model']['clip'])}
    if clip_weights is not None:
        arguments['clip']['pretrained'] = clip_weights
    if 'pretrained' not in arguments['clip']:
        raise ValueError(
            f"{origin} names no CLIP weights, because they came from a file: pass that file's path as `clip_weights`."
        )
    model = _build_parts(arguments, origin)
    if model.stride > 1024:
        raise ValueError(
            f'{origin}: images would be padded to multiples of {model.stride} pixels; expected at most 1024.'
        )
    return model.eval()


def _outline(config: dict[str, Any], origin: str) -> dict[str, Tensor]:
    """Return the state dict of a configuration without memory for its weights; CLIP's own file is not needed."""
    arguments = {**config['model'], 'clip': {**config['model']['clip'], 'pretrained': None}}
    arguments['criterion'] = None  # it has no weights, and a part of it computes with its arguments
    with torch.device('meta'):
        return _build_parts(arguments, origin).state_dict()


def _build_parts(arguments: dict[str, Any], origin: str) -> AlignZeg:
    try:
        with DefaultScope.overwrite_default_scope('mmseg'):
            return MODELS.build(arguments)
    except OSError:  # a problem with CLIP's weights, with its own message
        raise
    except Exception as error:  # invalid arguments can make layers raise almost any exception
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ValueError(f'{origin}: AlignZeg cannot be built from `model`: {first}') from error


def _no_number(text: str) -> None:
    raise ValueError(f'it contains {text}, which is not a number')


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError('an entry is repeated')
    return content


def _fetch(hub_id: str) -> Path:
    """Download only the two files of a model."""
    from huggingface_hub import snapshot_download  # open_clip depends on it

    try:
        # The downloaded files are data, checked like any other folder.
        return Path(snapshot_download(hub_id, allow_patterns=[CONFIG, WEIGHTS]))  # nosec B615
    except Exception as error:  # see `hub_error`
        raise FileNotFoundError(
            f'{hub_id!r} could not be downloaded from the Hugging Face Hub: {hub_error(error)}'
        ) from error


def is_hub_id(name: object) -> bool:
    """Return whether a name has the form of a model's id on the Hugging Face Hub, ``org/name``."""
    return re.fullmatch(r'\w[\w.-]*/\w[\w.-]*', str(name)) is not None


def hub_error(error: Exception) -> str:
    """Return the first line of an error of the hub's client, or its type, because many time-outs have no text.

    The client has changed its HTTP library twice (requests, httpx, httpx2), and the exceptions of each have no common
    base class but Exception.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip('.:') + '.'
