"""Checkpoint files, read as data: nothing in them is ever run, and a damaged one is refused.

The readers here also take the place of MMEngine's for local files and web addresses, so that ``--resume``,
``load_from``, ``mim test`` and ``init_cfg=dict(type='Pretrained')`` go through the same checks.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.runner import CheckpointLoader

MapLocation = str | torch.device | Callable | None
DEPTH = 32  # of the containers in a checkpoint; ours are some 6 deep


def read_checkpoint(path: str | Path, map_location: MapLocation = 'cpu') -> dict[str, Any]:
    """Read a checkpoint. The configs in it, which MMEngine would run as Python, are left out.

    Args:
        path: A file that ``torch.save`` wrote.
        map_location: See ``torch.load``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, needs code to be read, or does not hold the plain dict of a checkpoint.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'There is no checkpoint {str(path)!r}: give a file (.pth).')
    try:
        _check_bytes(path)
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
        _check_content(checkpoint, path.stat().st_size)
    except Exception as error:  # a damaged or hostile file makes zipfile and torch raise nearly anything
        reason = ' '.join(str(error).split()) if type(error) is ValueError else type(error).__name__
        raise ValueError(
            f'{path} is not a checkpoint that torch.load(weights_only=True) accepts ({reason}): give one that '
            '`SafeCheckpointHook` wrote, or copy it again.'
        ) from None  # torch's own message advises to switch the check off
    _drop_code(checkpoint)
    return checkpoint


def _check_bytes(path: Path) -> None:
    """Refuse an archive with a wrong checksum, or one that grows when it is read; older formats have neither."""
    with path.open('rb') as file:
        if file.read(2) != b'PK':
            return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        unpacked = sum(entry.file_size for entry in entries)
        if unpacked > path.stat().st_size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError('its data are compressed, as torch never writes them')
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f'wrong checksum of {damaged[-40:]!r}')


def _check_content(checkpoint: Any, size: int) -> None:
    """Refuse what is no checkpoint, or would take longer to walk through or more memory than its ``size`` in bytes."""
    if not isinstance(checkpoint, dict):
        raise ValueError(f'it holds a {type(checkpoint).__name__} and not a dict')
    for key in ('state_dict', 'meta', 'message_hub'):
        if not isinstance(checkpoint.get(key, {}), dict):
            raise ValueError(f'its `{key}` is a {type(checkpoint[key]).__name__} and not a dict')
    if not all(isinstance(name, str) for name in checkpoint.get('state_dict', checkpoint)):
        raise ValueError('a weight has a name that is not a string')
    entries, level = 0, [checkpoint]
    for _ in range(DEPTH):
        children: list[Any] = []
        for container in level:
            items = list(container.values() if isinstance(container, Mapping) else container)
            entries += len(items)
            if entries > size:
                raise ValueError('it has more entries than bytes')
            for item in items:
                if isinstance(item, torch.Tensor):
                    if item.is_meta or item.layout != torch.strided or item.nbytes > size:
                        raise ValueError('a tensor is larger than the file')
                elif isinstance(item, (Mapping, list, tuple, set)):
                    children.append(item)
        level = children
    if level:
        raise ValueError(f'it is nested more than {DEPTH} deep')


def _drop_code(checkpoint: dict[str, Any]) -> None:
    """Take out the texts that MMEngine hands to ``Config.fromstring``, which runs them."""
    meta, hub = checkpoint.get('meta', {}), checkpoint.get('message_hub', {})
    meta.pop('config', None)  # Runner.resume
    meta.pop('cfg', None)  # BaseInferencer, as the next
    if isinstance(hub.get('runtime_info'), dict):
        hub['runtime_info'].pop('cfg', None)


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str, map_location: MapLocation = None) -> dict[str, Any]:
    """MMEngine's reader of local files; see :func:`read_checkpoint`."""
    return read_checkpoint(filename, map_location)


@CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), force=True)
def load_from_http(filename: str, map_location: MapLocation = None) -> dict[str, Any]:
    """MMEngine's reader of web addresses: fetched once into torch's folder, then see :func:`read_checkpoint`."""
    path = Path(torch.hub.get_dir()) / 'checkpoints' / Path(urlparse(filename).path).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(filename, str(path), progress=False)
    return read_checkpoint(path, map_location)
