"""Sweeps: one setting at several values, as defined in ``configs/ablations/sweeps.yml``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config


@dataclass(frozen=True)
class Sweep:
    """One setting at several values.

    Attributes:
        name: Name in rows and folders.
        varies: Description of the setting in one line.
        key: The setting, as for ``--cfg-options``.
        values: Its values, or those for each CLIP, by ``model.clip.model_name``.
        trains: Whether each value needs a training; if not, all are tested with the checkpoint of the config.
        fixed: Overrides for all values.
    """

    name: str
    varies: str
    key: str
    values: Sequence[Any] | Mapping[str, Sequence[Any]]
    trains: bool
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def overrides(self, cfg: Config) -> dict[str, dict[str, Any]]:
        """Return the overrides of a config for each value, by label (``gamma=0.3``).

        Raises:
            ValueError: If the sweep lists no values for its CLIP.
        """
        values = self.values
        if isinstance(values, Mapping):
            clip = cfg.get('model', {}).get('clip', {}).get('model_name')
            if clip not in values:
                raise ValueError(
                    f'The sweep {self.name!r} has values for the CLIPs {", ".join(values)}, but {cfg.filename} uses '
                    f'{clip!r}: add values for it.'
                )
            values = values[clip]
        return {f'{self.name}={value}': {**self.fixed, self.key: value} for value in values}


def read_sweep(path: Path, name: str) -> Sweep:
    """Read one sweep from a file.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file has no sweep of this name, or the sweep is incomplete.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist below this folder: run this from the project folder.')
    sweeps = yaml.safe_load(path.read_text(encoding='utf-8'))
    if name not in sweeps:
        raise ValueError(f'There is no sweep {name!r} in {path}; available sweeps: {", ".join(sweeps)}.')
    try:
        sweep = Sweep(name, **sweeps[name])
    except TypeError as error:
        raise ValueError(f'{path}, {name}: {error}.') from None
    if not sweep.values:
        raise ValueError(f'{path}, {name}: there are no values.')
    return sweep
