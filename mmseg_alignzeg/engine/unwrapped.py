"""Access to the model without its wrapper."""

from __future__ import annotations

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner


def unwrapped_model(runner: Runner) -> Any:
    """Return the model of a runner, unwrapped if it is distributed."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
