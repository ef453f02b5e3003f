"""A trained model from what a user has: a config and its weights, a folder, or nothing at all."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS

from mmseg_alignzeg.models import AlignZeg
from mmseg_alignzeg.models.clip_source import ASSETS

from ..exchange import load_pretrained, load_weights, read_config
from ..exchange.plain_config import default_input_scale, input_scale

PathLike = str | os.PathLike


def load_model(
    model: PathLike | None, weights: PathLike | None, clip_weights: str | None = None
) -> tuple[AlignZeg, tuple[int, int]]:
    """Build a trained model.

    A config file is Python and runs as such; a folder and weights hold plain data.

    Args:
        model: A config (``.py``), a folder of ``save_pretrained``, or None for the model of the embedded world.
        weights: A checkpoint (``.pth``) or ``.safetensors``, for a config alone.
        clip_weights: A file or tag of CLIP weights instead of those that config or folder name.

    Returns:
        The model in evaluation mode on the CPU, and into which (long, short) pixels its inputs are resized.

    Raises:
        FileNotFoundError: If something does not exist.
        ValueError: If the two do not go together, or are none of these.
    """
    if model is None:
        if weights is not None:
            raise ValueError(
                f'Weights {os.fspath(weights)!r} need the config they were trained with: give both, as in '
                "AlignZegInferencer('config.py', 'weights.pth'). MMEngine keeps the config beside the weights."
            )
        model = ASSETS / 'patterns'
    path = Path(model).expanduser()
    if path.is_dir():
        if weights is not None:
            raise ValueError(f'The folder {path} has weights of its own: leave {os.fspath(weights)!r} out.')
        built, config = load_pretrained(path, clip_weights=clip_weights), read_config(path)
        return built, default_input_scale(config, str(path))
    if not path.exists():
        raise FileNotFoundError(
            f'{os.fspath(model)!r} does not exist: give a config (.py) or a folder of a saved model.'
        )
    if path.suffix != '.py':
        raise ValueError(
            f'{path} is neither a config (.py) nor a folder of a saved model; weights go second, as in '
            "AlignZegInferencer('config.py', 'weights.pth')."
        )
    if weights is None:
        raise ValueError(f"The config {path} needs weights: AlignZegInferencer('{path.name}', 'weights.pth').")
    cfg = Config.fromfile(path)
    if clip_weights is not None:
        cfg.model.clip.pretrained = clip_weights
    built = build_trained(cfg, weights)
    return built, input_scale(cfg) or default_input_scale(cfg, str(path))


def build_trained(cfg: Config, weights: PathLike) -> AlignZeg:
    """The model of a config with its weights, in evaluation mode on the CPU.

    Args:
        cfg: With ``model``.
        weights: A checkpoint (``.pth``) or ``.safetensors``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the config builds another model, or the weights do not fit it.
    """
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model).eval()
    if not isinstance(model, AlignZeg):
        raise ValueError(f'The model of the config is a {type(model).__name__}, not an AlignZeg: use `mim test`.')
    load_weights(model, Path(weights).expanduser())
    return model


def usable_device(device: str | torch.device | None) -> torch.device:
    """A device that this machine has; a GPU, if there is one, for None.

    Raises:
        ValueError: If torch does not know it, or has no such GPU.
    """
    try:
        chosen = torch.device(get_device() if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device={device!r} is no device of torch: give 'cpu' or 'cuda:0'.") from error
    if chosen.type == 'cuda' and (chosen.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"device='{chosen}' was asked for, but torch sees {count} CUDA device(s): give device='cpu'.")
    return chosen
