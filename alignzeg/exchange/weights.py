"""Files of trained weights, with the identity of the model they belong to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mmseg_alignzeg.engine.checkpoint_file import read_checkpoint
from mmseg_alignzeg.engine.finite import refuse_not_finite
from mmseg_alignzeg.engine.safe_checkpoint_hook import identity_differences, to_plain
from mmseg_alignzeg.files import whole_file
from mmseg_alignzeg.models import AlignZeg

IDENTITY_KEY = 'alignzeg'


def save_weights(model: AlignZeg, path: str | Path) -> None:
    """Write the weights of a model as ``.safetensors``, without CLIP's frozen weights, as in a checkpoint.

    Args:
        model: Its ``checkpoint_identity()`` is stored in the metadata of the file, as JSON.
        path: Replaced atomically if it exists.

    Raises:
        ValueError: If a weight is not finite.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    refuse_not_finite(tensors, 'The model cannot be saved', 'load an earlier checkpoint.')
    metadata = {IDENTITY_KEY: json.dumps(to_plain(model.checkpoint_identity()))}
    with whole_file(Path(path)) as part:
        part.write_bytes(save(tensors, metadata))  # files of `save_file` are not readable for other users


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Read a ``.safetensors`` file or a checkpoint of MMEngine; neither can execute code.

    Returns:
        The state dict on the CPU, and the identity stored in the file, if any.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is truncated, or its content does not match its suffix.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'No weights {str(path)!r}: give a .safetensors file or a checkpoint (.pth).')
    if path.suffix == '.safetensors':
        with _opened(path) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # not a mapping
            identity = json.loads((file.metadata() or {}).get(IDENTITY_KEY, 'null'))
        return tensors, identity
    checkpoint = read_checkpoint(path)
    if 'state_dict' not in checkpoint:
        raise ValueError(f'{path} has no `state_dict`: give a checkpoint of MMEngine, or a .safetensors file.')
    return checkpoint['state_dict'], checkpoint.get('meta', {}).get(IDENTITY_KEY)


def check_shapes(path: Path, expected: Mapping[str, Tensor]) -> None:
    """Compare the names and shapes in a ``.safetensors`` file with those of a model, without reading the weights.

    Args:
        path: The file.
        expected: The state dict of the model; it may be on the device 'meta'.

    Raises:
        ValueError: If the file is damaged, or contains other weights.
    """
    with _opened(path) as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    fault = _misfit(shapes, expected)
    if fault:
        raise ValueError(f'{path} does not fit the model: {fault}. Use the configuration it was trained with.')


def load_weights(model: AlignZeg, path: str | Path) -> None:
    """Load trained weights into a model after checking that they belong to it. Weights of omitted parts are ignored.

    Args:
        model: Changed in place.
        path: See :func:`read_weights`.

    Raises:
        FileNotFoundError: See :func:`read_weights`.
        ValueError: If the file is unreadable, has no identity or another one, or contains other weights or
            non-finite values.
    """
    tensors, identity = read_weights(path)
    if not isinstance(identity, dict):
        raise ValueError(
            f'{path} does not record the classes and the CLIP of its weights: use a checkpoint written by '
            '`SafeCheckpointHook`, or a file of `save_pretrained`.'
        )
    differences = identity_differences(identity, to_plain(model.checkpoint_identity(identity)))
    if differences:
        raise ValueError(f'{path} and the model differ: {"; ".join(differences)}.')
    if model.class_indicator is None:  # a test without PBC of a model that was trained with it
        tensors = {name: value for name, value in tensors.items() if not name.startswith('class_indicator.')}
    fault = _first_fault(tensors, model.state_dict())
    if fault:
        raise ValueError(f'{path} does not fit the model: {fault}. Use the configuration it was trained with.')
    refuse_not_finite(tensors, str(path), 'give an earlier checkpoint.')
    model.load_state_dict(tensors)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework='pt') as file:
            yield file
    except (SafetensorError, ValueError, RecursionError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise ValueError(
            f'{path} is not a complete .safetensors file ({reason}): copy or download it again.'
        ) from error


def _misfit(given: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor]) -> str | None:
    """Describe what is wrong with names or shapes; None if nothing is."""
    for kind, names in (('lacks', expected.keys() - given.keys()), ('has unknown', given.keys() - expected.keys())):
        if names:
            return f'it {kind} {min(names)[:120]!r}' + (f' (and {len(names) - 1} more)' if len(names) > 1 else '')
    for name, value in expected.items():
        if given[name] != tuple(value.shape):
            return f'{name!r} has shape {given[name]}, expected {tuple(value.shape)}'
    return None


def _first_fault(given: Mapping[str, Any], expected: Mapping[str, Tensor]) -> str | None:
    """Describe what is wrong with a state dict; None if nothing is."""
    for name, value in given.items():
        if not isinstance(value, Tensor):
            return f'{name[:120]!r} is a {type(value).__name__}, expected a tensor'
    fault = _misfit({name: tuple(value.shape) for name, value in given.items()}, expected)
    if fault:
        return fault
    for name, value in expected.items():
        if given[name].is_floating_point() != value.is_floating_point() or given[name].is_complex():
            return f'{name!r} has type {given[name].dtype}, expected {value.dtype}'
    return None
