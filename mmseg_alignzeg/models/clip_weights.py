"""Weight files of CLIP in the formats people have, read as data, and the identity of the weights in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from open_clip.factory import load_state_dict
from torch import Tensor

from ..files import cache_folder, write_text
from ..printable import printable
from .clip_layouts import to_open_clip
from .clip_torchscript import is_torchscript, read_torchscript

SLOW = 1 << 26  # bytes of a file from which its identity is cached; hashing ViT-B/16 takes seconds
IN_FOLDERS = (
    'open_clip_model.safetensors',
    'open_clip_pytorch_model.bin',
    'model.safetensors',
    'model.safetensors.index.json',
    'pytorch_model.bin',
)
FORMATS = 'weights of open_clip, OpenAI (TorchScript), transformers (CLIP or SigLIP) or mmseg (clip2mmseg.py)'


@dataclass(frozen=True)
class CLIPWeights:
    """Weights of a CLIP model.

    Attributes:
        state: Tensors with open_clip's names and shapes, in the precision of the file.
        format: Where the names come from, such as ``'transformers CLIP'``.
        quick_gelu: Whether the model was trained with QuickGELU; None if the file does not say.
    """

    state: dict[str, Tensor]
    format: str
    quick_gelu: bool | None = None


def is_path(pretrained: str) -> bool:
    """Return whether ``pretrained`` names a file or folder: it has a suffix or a separator, as no tag has."""
    return bool(Path(pretrained).suffix) or '/' in pretrained or '\\' in pretrained


def read_clip(path: Path) -> CLIPWeights:
    """Read CLIP weights. No code of the file is run.

    Args:
        path: A file (``.safetensors``; ``.pt``, ``.pth`` or ``.bin``, a state dict or OpenAI's TorchScript archive), or
            a folder of ``transformers`` or open_clip.

    Raises:
        FileNotFoundError: If the folder has no weights.
        ValueError: If the file is damaged, or contains something else.
    """
    files = weight_files(path)
    try:
        state, script, quick_gelu = {}, False, None
        for file in files:
            if file.suffix != '.safetensors' and is_torchscript(file):
                tensors, quick_gelu = read_torchscript(file)
                script = True
            else:
                tensors = load_state_dict(str(file), weights_only=True)
            state.update(tensors)
        if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
            raise ValueError('it contains other things than tensors')
        state, layout = to_open_clip(state)
    except Exception as error:  # each reader has its own exceptions; they all mean that the file is unusable
        reason = ' '.join(str(error).split()) if type(error) is ValueError else type(error).__name__
        raise ValueError(
            printable(f'{path} is not a readable CLIP state dict ({reason}): expected {FORMATS}.')
        ) from error
    if layout.startswith('transformers'):
        quick_gelu = _hidden_activation(files[0].with_name('config.json'))
    return CLIPWeights(state, 'OpenAI TorchScript' if script and layout == 'open_clip' else layout, quick_gelu)


def weight_files(path: Path) -> list[Path]:
    """Return the files that hold the weights of a path: itself, or those of a folder.

    Raises:
        FileNotFoundError: If it does not exist, or is a folder without weights.
    """
    if path.is_file():
        return [path]
    found = next((path / name for name in IN_FOLDERS if (path / name).is_file()), None)
    if found is None:
        expected = f'one of {", ".join(IN_FOLDERS)}' if path.is_dir() else 'a file or a folder'
        raise FileNotFoundError(printable(f'CLIP weights {str(path)!r} do not exist: expected {expected} there.'))
    if found.suffix != '.json':
        return [found]
    try:  # the parts of a large model
        names = sorted(set(json.loads(found.read_text(encoding='utf-8'))['weight_map'].values()))
        parts = [path / Path(name).name for name in names]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(printable(f'{found} is not an index of weight files ({type(error).__name__}).')) from None
    missing = [part for part in parts if not part.is_file()]
    if missing:
        raise FileNotFoundError(printable(f'{found} names {missing[0].name!r}, which does not exist: copy it too.'))
    return parts


def _hidden_activation(config: Path) -> bool | None:
    """Return whether a configuration of ``transformers`` says QuickGELU; None if there is no usable one."""
    try:
        content = json.loads(config.read_text(encoding='utf-8'))
        # The configuration of CLIP omits what equals its default, which is QuickGELU; SigLIP's is GELU.
        default = 'quick_gelu' if content['model_type'] == 'clip' else 'gelu_pytorch_tanh'
        vision = content.get('vision_config') or {}
        return vision.get('hidden_act', default) == 'quick_gelu'
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def digest(state: Mapping[str, Tensor]) -> str:
    """Return 16 hexadecimal digits that identify weights in open_clip's layout, whatever file they are from.

    The digest is the SHA-256 of names, shapes and values as float32, in the order of the names: it does not depend on
    container, order or precision, as long as no value was rounded.
    """
    found = hashlib.sha256()
    for name in sorted(state):
        value = state[name].float().contiguous()
        found.update(f'{name}{tuple(value.shape)}'.encode())
        found.update(value.numpy().data)
    return found.hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return 16 hexadecimal digits that identify the content of weight files, the identity in old checkpoints."""
    found = hashlib.sha256()
    for file in weight_files(path):
        with file.open('rb') as stream:
            while block := stream.read(1 << 22):
                found.update(block)
    return found.hexdigest()[:16]


def weights_digest(path: Path) -> str:
    """Return :func:`digest` of the weights at a path; for large files it is kept in the cache folder.

    Raises:
        FileNotFoundError: See :func:`read_clip`.
        ValueError: See :func:`read_clip`.
    """
    stats = [(str(file.resolve()), file.stat()) for file in weight_files(path)]
    if sum(stat.st_size for _, stat in stats) < SLOW:
        return digest(read_clip(path).state)
    key = json.dumps([[name, stat.st_size, stat.st_mtime_ns, stat.st_ino] for name, stat in stats])
    kept = cache_folder() / f'clip_{hashlib.sha256(key.encode()).hexdigest()[:32]}.txt'
    try:
        text = kept.read_text(encoding='ascii')
        if len(text) == 16 and set(text) <= set('0123456789abcdef'):
            return text
    except (OSError, ValueError):
        pass
    found = digest(read_clip(path).state)
    try:
        write_text(kept, found)
    except OSError:  # a cache that cannot be written only costs time
        pass
    return found
