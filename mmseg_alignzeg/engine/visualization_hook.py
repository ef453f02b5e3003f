"""Visualise a test whose training data have other classes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mmengine.runner import BaseLoop, Runner
from mmseg.engine.hooks import SegVisualizationHook
from mmseg.registry import HOOKS


def training_step(runner: Runner) -> int:
    """Return the training iteration, 0 in a test; ``runner.iter`` would build the training data."""
    return runner.iter if isinstance(runner._train_loop, BaseLoop) else 0


@HOOKS.register_module()
class ZeroShotVisualizationHook(SegVisualizationHook):
    """mmseg's hook, but with the names of the tested classes.

    mmseg's hook accesses ``runner.iter``, which in a test builds the unneeded training data. That sets the classes of
    the visualizer to the seen ones, so all names from the first unseen class on are wrong.
    """

    def _after_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        super()._after_iter(SimpleNamespace(iter=training_step(runner)), *args, **kwargs)
