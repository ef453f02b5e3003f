"""Read checkpoint files as data: they cannot execute code, and damaged ones are refused.

``checkpoint_sources`` makes MMEngine's loaders use this module.
"""

from __future__ import annotations

import errno
import logging
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log

MapLocation = str | torch.device | Callable | None
DEPTH = 32  # maximum nesting of containers in a checkpoint; this project's are about 6 deep
SPARE = 1 << 28  # maximum bytes by which the expanded tensors of a file may exceed what it stores
# Objects that MMEngine's own hook stores in `meta` and `message_hub`. None of them is created: see _Unread.
FOREIGN = (
    'builtins.getattr',
    'mmengine.logging.history_buffer.HistoryBuffer',
    'numpy.dtype',
    'numpy.ndarray',
    *(f'numpy.{core}.multiarray.{name}' for core in ('core', '_core') for name in ('_reconstruct', 'scalar')),
)


class _Unread:
    """Placeholder for an object of ``FOREIGN``: accepts the arguments of its construction and ignores them."""

    def __new__(cls, *args: Any) -> _Unread:
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read_checkpoint(path: str | Path, map_location: MapLocation = 'cpu') -> dict[str, Any]:
    """Read a checkpoint, without the configs in it, which MMEngine would execute as Python.

    If MMEngine wrote the checkpoint without ``SafeCheckpointHook``, the log history and NumPy numbers are left out too,
    with a warning.

    Args:
        path: A file written by ``torch.save``.
        map_location: See ``torch.load``.

    Raises:
        FileNotFoundError: If the file does not exist.
        OSError: If the disk or the permissions prevent reading; this says nothing about the content.
        MemoryError: If it does not fit into memory; for GPU memory, ``torch.OutOfMemoryError``.
        ValueError: If it is damaged, requires code to be executed, or does not contain the dict of a checkpoint.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'There is no checkpoint {str(path)!r}: give an existing file (.pth).')
    try:
        _check_bytes(path)
        checkpoint = _load(path, map_location)
        _check_content(checkpoint, path.stat().st_size)
        left_out = _leave_out_unread(checkpoint)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # for a damaged or hostile file, zipfile and torch can raise almost anything
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: an offset in the file
            raise
        if type(error) is RuntimeError and 'DefaultCPUAllocator' in str(error):
            raise MemoryError(f'{path} does not fit into memory: free memory and try again.') from None
        reason = ' '.join(str(error).split()) if type(error) is ValueError else type(error).__name__
        raise ValueError(
            f'{path} is not a checkpoint that torch.load(weights_only=True) accepts ({reason}): use one written by '
            f'`SafeCheckpointHook`, or copy it again.{_way_out(path, error)}'
        ) from None  # torch's own message recommends disabling the check
    if left_out:
        print_log(
            f'{path} was not written by `SafeCheckpointHook`: {left_out} entries that are not plain data, such as the '
            'log history, are left out.',
            logger='current',
            level=logging.WARNING,
        )
    _drop_code(checkpoint)
    return checkpoint


def _load(path: Path, map_location: MapLocation) -> Any:
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError:
        with torch.serialization.safe_globals([(_Unread, name) for name in FOREIGN]):
            return torch.load(path, map_location=map_location, weights_only=True)


def _way_out(path: Path, error: Exception) -> str:
    """Return a hint how to extract the weights of a file that requires code; empty for other errors."""
    if not isinstance(error, pickle.UnpicklingError):
        return ''
    return (
        " If you trust its author, extract only its weights: python -c \"import torch; torch.save({'state_dict': "
        f"torch.load({path.name!r}, 'cpu', weights_only=False)['state_dict']}}, 'weights.pth')\""
    )


def _check_bytes(path: Path) -> None:
    """Refuse an archive with a wrong checksum or with compressed data; older formats have neither."""
    with path.open('rb') as file:
        if file.read(2) != b'PK':
            return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        unpacked = sum(entry.file_size for entry in entries)
        if unpacked > path.stat().st_size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError('its data are compressed, which torch never does')
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(
            f'wrong checksum of {damaged[-40:]!r}; this also happens if it was saved after torch.serialization.'
            'set_crc32_options(False)'
        )


def _check_content(checkpoint: Any, size: int) -> None:
    """Refuse content that is not a checkpoint, or that needs far more time or memory than its ``size`` in bytes."""
    if not isinstance(checkpoint, dict):
        raise ValueError(f'it contains a {type(checkpoint).__name__} instead of a dict')
    for key in ('state_dict', 'meta', 'message_hub'):
        if not isinstance(checkpoint.get(key, {}), dict):
            raise ValueError(f'its `{key}` is a {type(checkpoint[key]).__name__} instead of a dict')
    if not all(isinstance(name, str) for name in checkpoint.get('state_dict', checkpoint)):
        raise ValueError('a weight has a name that is not a string')
    entries, spare, level = 0, max(size, SPARE), [checkpoint]
    for _ in range(DEPTH):
        children: list[Any] = []
        for container in level:
            items = list(container.values() if isinstance(container, Mapping) else container)
            entries += len(items)
            if entries > size:
                raise ValueError('it has more entries than bytes')
            for item in items:
                if isinstance(item, torch.Tensor):
                    if item.is_meta or item.layout != torch.strided or item.untyped_storage().nbytes() > size:
                        raise ValueError('a tensor is larger than the file')
                    spare -= max(0, item.nbytes - item.untyped_storage().nbytes())  # only for an expanded tensor
                    if spare < 0:
                        raise ValueError('its expanded tensors are larger than the file')
                elif isinstance(item, (Mapping, list, tuple, set)):
                    children.append(item)
        level = children
    if level:
        raise ValueError(f'it is nested more than {DEPTH} deep')


def _leave_out_unread(checkpoint: dict[str, Any]) -> int:
    """Remove placeholders from the metadata of a checkpoint, in place; return the number of removed entries."""
    for key, value in checkpoint.items():
        if key not in ('meta', 'message_hub') and _is_unread(value):
            raise ValueError(f'its {str(key)[:40]!r} contains an object that is not plain data')
    return sum(_prune(checkpoint[key]) for key in ('meta', 'message_hub') if key in checkpoint)


def _prune(notes: dict[Any, Any]) -> int:
    inner = sum(_prune(value) for value in notes.values() if isinstance(value, dict))
    unread = [key for key, value in notes.items() if _is_unread(key) or _is_unread(value)]
    for key in unread:
        del notes[key]
    return inner + len(unread)


def _is_unread(value: Any) -> bool:
    """Return whether a value is a placeholder or contains one at any depth."""
    if isinstance(value, Mapping):
        return any(_is_unread(part) for item in value.items() for part in item)
    if isinstance(value, (list, tuple, set)):
        return any(map(_is_unread, value))
    return value is _Unread or isinstance(value, _Unread)


def _drop_code(checkpoint: dict[str, Any]) -> None:
    """Remove the config texts that MMEngine would pass to ``Config.fromstring``, which executes them."""
    meta, hub = checkpoint.get('meta', {}), checkpoint.get('message_hub', {})
    meta.pop('config', None)  # Runner.resume
    meta.pop('cfg', None)  # BaseInferencer, also for the next one
    if isinstance(hub.get('runtime_info'), dict):
        hub['runtime_info'].pop('cfg', None)
