"""Read the tensors of a TorchScript archive, such as OpenAI's ``ViT-B-16.pt``, without running its code."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16,
    'FloatStorage': torch.float32,
    'DoubleStorage': torch.float64,
    'IntStorage': torch.int32,
    'LongStorage': torch.int64,
    'BoolStorage': torch.bool,
}


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript archive; ``torch.save`` writes no ``constants.pkl``."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith('/constants.pkl') for name in archive.namelist())


def read_torchscript(path: Path) -> tuple[dict[str, Tensor], bool | None]:
    """Read the tensors that are attributes of the modules in an archive.

    Args:
        path: An archive that ``torch.jit.save`` wrote.

    Returns:
        Tensors on the CPU, by their names in the state dict; and whether the code of the archive uses QuickGELU
        (True), GELU (False), or neither (None).

    Raises:
        ValueError: If the archive contains anything but modules, plain values and whole tensors.
        Exception: Of any kind, if it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        top = next(name for name in archive.namelist() if name.endswith('/data.pkl')).removesuffix('data.pkl')
        top_module = _unpickler(archive.read(f'{top}data.pkl')).load()
        tensors = {name: _tensor(archive, top, leaf) for name, leaf in _leaves(top_module, '', set())}
        code = [entry for entry in archive.infolist() if entry.filename.endswith('.py') and entry.file_size < 1 << 20]
        texts = [archive.read(entry) for entry in code]
    quick, plain = (any(word in text for text in texts) for word in (b'torch.sigmoid(', b'torch.gelu('))
    return tensors, quick if quick or plain else None


class _Module:
    """Stand-in for every class that an archive defines: it only holds attributes."""


class _Leaf:
    """Stand-in for a tensor, with the arguments to build it."""

    def __init__(self, storage: tuple, offset: int, size: tuple, stride: tuple, *_: Any) -> None:
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride


def _unpickler(data: bytes) -> Any:
    """Return an unpickler that creates plain values and stand-ins, and nothing else."""
    # New classes for each file: a hostile pickle could set attributes of what it is given.
    module, leaf = type('Module', (_Module,), {}), type('Leaf', (_Leaf,), {})

    class Restricted(pickle._Unpickler):  # in C, a wrong index can take all memory
        def find_class(self, origin: str, name: str) -> Any:
            if origin.startswith('__torch__.'):
                return module
            if origin == 'torch' and name in DTYPES:
                return DTYPES[name]
            found = {'collections.OrderedDict': dict, 'torch._utils._rebuild_tensor_v2': leaf}
            if origin == 'torch.jit._pickle':  # typed lists
                return lambda items, *_: items
            if f'{origin}.{name}' not in found:
                raise ValueError(f'it asks for {origin}.{name}'[:120])
            return found[f'{origin}.{name}']

        def persistent_load(self, pid: Any) -> Any:
            return pid

    return Restricted(io.BytesIO(data))


def _leaves(module: Any, prefix: str, known: set[int]) -> Iterator[tuple[str, _Leaf]]:
    known.add(id(module))
    for name, value in vars(module).items():
        if isinstance(value, _Leaf):
            yield prefix + name, value
        elif isinstance(value, _Module) and id(value) not in known:
            yield from _leaves(value, f'{prefix}{name}.', known)


def _tensor(archive: zipfile.ZipFile, top: str, leaf: _Leaf) -> Tensor:
    _, dtype, key, _, count = leaf.storage
    entry = archive.getinfo(f'{top}data/{key}')
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != count * dtype.itemsize:
        raise ValueError(f'the data of tensor {str(key)[:40]!r} are compressed or have the wrong size')
    if prod(leaf.size) > count:
        raise ValueError(f'tensor {str(key)[:40]!r} is larger than its data')
    if not count:
        return torch.empty(leaf.size, dtype=dtype)
    values = torch.frombuffer(bytearray(archive.read(entry)), dtype=dtype)
    return values.as_strided(leaf.size, leaf.stride, leaf.offset).contiguous()
