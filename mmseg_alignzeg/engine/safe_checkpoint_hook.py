"""Checkpoints that ``torch.load(weights_only=True)`` accepts, and that record their vocabulary."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from reprlib import Repr
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import BaseLoop, Runner
from mmseg.registry import HOOKS

from .finite import refuse_not_finite
from .unwrapped import unwrapped_model

_HISTORY_KEYS = {'log_history', 'count_history', 'max_length'}
_SHORT = Repr()  # values from an untrusted file may be long
_SHORT.maxstring = _SHORT.maxother = 120


def to_plain(value: Any, name: str = 'checkpoint') -> Any:
    """Convert a value to the types a safe checkpoint may contain: numbers, strings, tensors, and containers of them.

    Arrays become tensors, NumPy scalars become numbers, and a ``HistoryBuffer`` becomes a dict that
    :func:`restore_history` converts back. Anything else becomes None, with a warning and not an error, because an
    unsupported object should not end a long training.

    Args:
        value: Any object; not changed in place.
        name: Its position in the checkpoint, for the warning.
    """
    # NumPy first: np.float64 is a float and np.str_ is a str, but neither loads safely.
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy()) if value.dtype.kind in 'biuf' else to_plain(value.tolist(), name)
    if isinstance(value, torch.Tensor):
        return _stored_whole(value)
    if value is None or isinstance(value, (bool, torch.dtype, torch.device)):
        return value
    if isinstance(value, Enum):
        return to_plain(value.value, name)
    for plain_type in (int, float, str, bytes):  # also converts subclasses
        if isinstance(value, plain_type):
            return plain_type(value)  # type: ignore[arg-type]
    if isinstance(value, HistoryBuffer):
        log_history, count_history = value.data
        return dict(
            log_history=to_plain(log_history), count_history=to_plain(count_history), max_length=value.max_length
        )
    if isinstance(value, Mapping):  # includes MMEngine's ConfigDict
        return {to_plain(key, name): to_plain(item, f'{name}.{key}') for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [to_plain(item, f'{name}[{i}]') for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, PurePath):
        return str(value)
    print_log(
        f'`{name}` is a {type(value).__name__}, which a safe checkpoint cannot contain: it is stored as None.',
        logger='current',
        level=logging.WARNING,
    )
    return None


def restore_history(message_hub: dict[str, Any]) -> None:
    """Convert the plain histories in a loaded ``checkpoint['message_hub']`` back to buffers, in place."""
    scalars = message_hub.get('log_scalars', {})
    for key, history in scalars.items() if isinstance(scalars, dict) else ():
        if isinstance(history, dict) and history.keys() == _HISTORY_KEYS:
            buffers = [history[k] for k in ('log_history', 'count_history')]
            # MMEngine ignores entries that are not buffers, with a warning.
            if all(isinstance(x, torch.Tensor) and x.shape == (len(buffers[0]),) for x in buffers):
                # `load_checkpoint(map_location='cuda')` moves all tensors, including these.
                scalars[key] = HistoryBuffer(*(x.cpu().numpy() for x in buffers), history['max_length'])


def identity_differences(saved: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Describe, one phrase per entry, how two results of ``model.checkpoint_identity()`` differ."""
    if not isinstance(saved, Mapping):
        return [f'the checkpoint contains a {type(saved).__name__} instead']
    differences = []
    for key in sorted(saved.keys() | expected.keys(), key=str):
        there, here = saved.get(key), expected.get(key)
        if isinstance(there, (list, tuple)) and isinstance(here, (list, tuple)):
            if list(there) != list(here):
                differences.append(f'`{key}`: {_list_difference(there, here)}')
        elif type(there) is not type(here) or there != here:
            differences.append(
                f'`{_SHORT.repr(key)[1:-1]}`: the checkpoint has {_SHORT.repr(there)}, the model {_SHORT.repr(here)}'
            )
    return differences


@HOOKS.register_module()
class SafeCheckpointHook(Hook):
    """Write checkpoints that load with ``weights_only=True``, and refuse those of another vocabulary.

    Since torch 2.6, checkpoints are loaded with ``weights_only=True``. MMEngine stores its log history as Python
    objects, which this mode refuses, so testing and resuming fail. This hook converts everything except ``state_dict``
    to plain data before saving, and restores the history after loading, so a resumed run continues it.

    If the model has ``checkpoint_identity(saved)`` (a plain dict: classes, unseen classes, templates, CLIP), the result
    is stored as ``meta['alignzeg']`` and compared on loading, when ``saved`` is the stored one. Otherwise, weights of
    another vocabulary would load silently and give scores near zero.

    Args:
        check_identity: False gives only a warning if there is a difference, e.g. to fine-tune from other weights.
    """

    priority = 'LOWEST'  # after all hooks that add entries to a checkpoint

    def __init__(self, check_identity: bool = True) -> None:
        self.check_identity = check_identity

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Convert the checkpoint to plain data, in place, and add the identity of the model.

        Raises:
            ValueError: If a weight is not finite.
        """
        refuse_not_finite(checkpoint['state_dict'], 'The model cannot be saved', 'resume from the last checkpoint.')
        identity = _identity(runner)
        if identity is not None:
            checkpoint['meta']['alignzeg'] = identity
            checkpoint['meta']['dataset_meta'] = _vocabulary_meta(runner, identity)
        for key in checkpoint.keys() - {'state_dict'}:
            checkpoint[key] = to_plain(checkpoint[key], key)
        for name, value in checkpoint['state_dict'].items():
            if isinstance(value, torch.Tensor):
                checkpoint['state_dict'][name] = _stored_whole(value)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Restore the history and compare identities.

        Raises:
            ValueError: If vocabulary, templates or CLIP of checkpoint and model differ, or a weight is not finite.
        """
        refuse_not_finite(
            checkpoint.get('state_dict', checkpoint), 'The checkpoint cannot be used', 'give an earlier one.'
        )
        restore_history(checkpoint.get('message_hub', {}))
        saved = checkpoint.get('meta', {}).get('alignzeg')
        expected = _identity(runner, saved)
        if expected is None:
            return
        if saved is None:
            runner.logger.warning(
                'The checkpoint does not record the classes and the CLIP it was trained with (no '
                "`meta['alignzeg']`): make sure that they match the config."
            )
            return
        differences = identity_differences(saved, to_plain(expected))
        if not differences:
            if isinstance(runner._train_loop, BaseLoop):
                # Otherwise, MMEngine compares the names of all classes with those of the training data and warns.
                checkpoint['meta']['dataset_meta'] = runner.train_dataloader.dataset.metainfo
            return
        message = f'Checkpoint and model differ: {"; ".join(differences)}.'
        if self.check_identity:
            raise ValueError(
                f"{message} Use the config it was trained with (stored in its `meta['cfg']`); to start from its "
                'weights anyway, set `check_identity=False` in SafeCheckpointHook.'
            )
        runner.logger.warning(message)


def _stored_whole(value: torch.Tensor) -> torch.Tensor:
    """Return an expanded tensor with all of its elements in memory, and any other tensor unchanged."""
    if value.layout == torch.strided and value.untyped_storage().nbytes() < value.nbytes:
        return value.contiguous()
    return value


def _identity(runner: Runner, saved: object = None) -> dict[str, Any] | None:
    """Return the identity of the model, for comparison with a saved one; None if it has none."""
    model = unwrapped_model(runner)
    return model.checkpoint_identity(saved) if hasattr(model, 'checkpoint_identity') else None


def _vocabulary_meta(runner: Runner, identity: dict[str, Any]) -> dict[str, Any]:
    """Return metadata with the names (and colours) that the model predicts, including those not in the training data.

    MMEngine stores the names of the training data, which tools such as ``mmseg.apis.init_model`` use as the names of
    predicted labels.
    """
    loops = [loop for loop in (runner.val_loop, runner.train_loop) if loop is not None]
    for loop in loops:
        metainfo = loop.dataloader.dataset.metainfo
        if list(metainfo.get('classes', ())) == list(identity['classes']):
            return dict(metainfo)
    return {'classes': identity['classes'], 'unseen_classes': identity['unseen_classes']}


def _list_difference(there: list[Any] | tuple[Any, ...], here: list[Any] | tuple[Any, ...]) -> str:
    """Describe how two lists differ: their lengths and the first position with different items."""
    position = next(
        (i for i, (a, b) in enumerate(zip(there, here, strict=False)) if a != b), min(len(there), len(here))
    )
    first = [_SHORT.repr(names[position]) if position < len(names) else 'nothing' for names in (there, here)]
    return (
        f'the checkpoint has {len(there)} and the model {len(here)}, '
        f'first different at position {position} ({first[0]} against {first[1]})'
    )
