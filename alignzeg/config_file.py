"""Reading of configs, which are Python code and may raise anything."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmengine.config import Config


def read_config_file(path: str | os.PathLike) -> Config:
    """Execute a config and return it.

    Raises:
        ValueError: If it cannot be read, whatever the reason, or has no ``model``.
    """
    from mmengine.config import Config

    try:
        cfg = Config.fromfile(path)
    except Exception as error:
        raise ValueError(f'The config {path} cannot be read: {type(error).__name__}: {error}') from error
    if not cfg.get('model'):
        raise ValueError(f'The config {path} has no `model`: give one that `mim train` accepts.')
    return cfg
