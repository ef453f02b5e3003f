"""Load a trained model from a config and weights, from a folder, or from the package."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS

from mmseg_alignzeg.models import AlignZeg
from mmseg_alignzeg.models.clip_source import ASSETS
from mmseg_alignzeg.models.random_clip import is_random, warn_of_random_clip

from ..config_file import read_config_file
from ..exchange import load_pretrained, load_weights, read_config
from ..exchange.plain_config import default_input_scale, input_scale

PathLike = str | os.PathLike


def load_model(
    model: PathLike | None, weights: PathLike | None, clip_weights: str | None = None
) -> tuple[AlignZeg, tuple[int, int]]:
    """Build a trained model.

    A config file is Python code and is executed; folders and weights are plain data.

    Args:
        model: A config (``.py``), a folder of ``save_pretrained``, or None for the model of the embedded world.
        weights: A checkpoint (``.pth``) or ``.safetensors``; only with a config.
        clip_weights: A file or tag of CLIP weights in place of those named in config or folder.

    Returns:
        The model in evaluation mode on the CPU, and the (long, short) pixels that its inputs are resized to.

    Raises:
        FileNotFoundError: If something does not exist.
        ValueError: If the arguments do not fit together, or have the wrong type.
    """
    if model is None:
        if weights is not None:
            raise ValueError(
                f'Weights {os.fspath(weights)!r} need the config they were trained with: pass both, as in '
                "AlignZegInferencer('config.py', 'weights.pth'). MMEngine stores the config beside the weights."
            )
        model = ASSETS / 'patterns'
    path = Path(model).expanduser()
    if path.is_dir():
        if weights is not None:
            raise ValueError(f'The folder {path} has its own weights: do not pass {os.fspath(weights)!r}.')
        built, config = load_pretrained(path, clip_weights=clip_weights), read_config(path)
        return built, default_input_scale(config, str(path))
    if not path.exists():
        raise FileNotFoundError(
            f'{os.fspath(model)!r} does not exist: give a config (.py) or a folder of a saved model.'
        )
    if path.suffix != '.py':
        raise ValueError(
            f'{path} is neither a config (.py) nor a folder of a saved model; weights are the second argument, as in '
            "AlignZegInferencer('config.py', 'weights.pth')."
        )
    if weights is None:
        raise ValueError(f"The config {path} needs weights: AlignZegInferencer('{path.name}', 'weights.pth').")
    cfg = read_config_file(path)
    if clip_weights is not None:
        cfg.model.clip.pretrained = clip_weights
    built = build_trained(cfg, weights)
    return built, input_scale(cfg) or default_input_scale(cfg, str(path))


def build_trained(cfg: Config, weights: PathLike) -> AlignZeg:
    """Build the model of a config with its weights, in evaluation mode on the CPU.

    Args:
        cfg: Config with ``model``.
        weights: A checkpoint (``.pth``) or ``.safetensors``.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the model cannot be built or is of another type, or the weights do not fit it.
    """
    if is_random(cfg.model):
        warn_of_random_clip()
    with DefaultScope.overwrite_default_scope('mmseg'):
        try:
            model = MODELS.build(cfg.model).eval()
        except (OSError, ValueError):  # with a message of their own
            raise
        except Exception as error:  # building from a config may raise anything
            raise ValueError(f'The model of the config cannot be built: {type(error).__name__}: {error}') from error
    if not isinstance(model, AlignZeg):
        raise ValueError(f'The model of the config is a {type(model).__name__}, not an AlignZeg: use `mim test`.')
    load_weights(model, Path(weights).expanduser())
    return model


def usable_device(device: str | torch.device | None) -> torch.device:
    """Return a device that this machine has; for None, a CUDA GPU if there is one, else the CPU.

    Raises:
        ValueError: If torch does not know the device, or this machine does not have it.
    """
    try:
        chosen = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device={device!r} is not a device of torch: use 'cpu' or 'cuda:0'.") from error
    if chosen.type == 'cuda' and (chosen.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"device='{chosen}' was requested, but torch sees {count} CUDA device(s): use device='cpu'.")
    return chosen
