"""Give a resumed run the random numbers of an uninterrupted one."""

from __future__ import annotations

from typing import Any

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from .random_state import random_state, set_random_state
from .unwrapped import unwrapped_model

_KEY = 'process_states'  # in a checkpoint: one dict per process, see _own_state


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Store in checkpoints, for every process, the state that MMEngine omits, and restore it on resuming.

    This is the random state of Python, NumPy, torch and CUDA, and the gradients of an incomplete accumulation. A
    validation uses random numbers too (each data loader draws a seed), so the state is restored after it: training does
    not depend on how often it is validated. See ``ResumableTrainLoop`` for the data.

    If a checkpoint has no such states, or those of a different number of processes, resuming gives a warning.
    """

    priority = 80  # after hooks that affect training ('LOW'), before CheckpointHook ('VERY_LOW')

    def __init__(self) -> None:
        self._states: list[dict[str, Any]] = []  # of all processes, after the current iteration
        self._loaded: Any = None  # states from a checkpoint, until they are restored
        self._before_val: dict[str, Any] = {}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep the loaded states until everything is set up."""
        self._loaded = checkpoint.pop(_KEY, [])

    def before_train_epoch(self, runner: Runner) -> None:
        """Restore the state, after everything that draws random numbers before the first iteration."""
        loaded, self._loaded = self._loaded, None
        if loaded is None or runner.iter == 0:  # nothing was loaded, or only weights
            return
        try:
            _restore(runner, loaded)
        except ValueError as error:
            runner.logger.warning(
                f'The random state is not restored: {error}. Training continues, but its random numbers differ from '
                'those of an uninterrupted training.'
            )

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Discard the states of the previous iteration."""
        self._states = []

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Collect the states of all processes if a checkpoint will be written."""
        if any(isinstance(hook, CheckpointHook) and _saves_now(hook, runner) for hook in runner.hooks):
            self._collect(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the states to the checkpoint; only those of this process if the checkpoint could not be predicted."""
        checkpoint[_KEY] = self._states or [_own_state(runner)]

    def before_val(self, runner: Runner) -> None:
        """Save the state. ``CheckpointHook`` may write another checkpoint after validation."""
        self._before_val = random_state()
        if not self._states:
            self._collect(runner)

    def after_val(self, runner: Runner) -> None:
        """Restore the state."""
        set_random_state(self._before_val)

    def _collect(self, runner: Runner) -> None:
        self._states = all_gather_object(_own_state(runner))


def _own_state(runner: Runner) -> dict[str, Any]:
    params = unwrapped_model(runner).named_parameters()
    return {
        'random': random_state(),
        'gradients': {name: param.grad.cpu() for name, param in params if param.grad is not None},
    }


def _restore(runner: Runner, states: Any) -> None:
    """Restore the state of this process.

    Raises:
        ValueError: If the states are unusable.
    """
    if not isinstance(states, list):
        raise ValueError(f'`{_KEY}` of the checkpoint is not a list')
    if not states:
        raise ValueError('the checkpoint has none')
    if len(states) != get_world_size():
        raise ValueError(f'the checkpoint was written by {len(states)} process(es), but there are {get_world_size()}')
    params = dict(unwrapped_model(runner).named_parameters())
    try:
        own = states[get_rank()]
        set_random_state(own['random'])
        for name, gradient in own['gradients'].items():
            params[name].grad = gradient.to(params[name])
    except (AttributeError, LookupError, TypeError, RuntimeError) as error:
        raise ValueError(f'{type(error).__name__}: {" ".join(str(error).split())}') from error


def _saves_now(hook: CheckpointHook, runner: Runner) -> bool:
    """Return whether CheckpointHook will write a checkpoint after this iteration."""
    if hook.by_epoch:
        return False
    due = hook.every_n_train_iters(runner, hook.interval, hook.save_begin)
    return due or (hook.save_last and hook.is_last_train_iter(runner))
