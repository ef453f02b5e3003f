"""What hooks look at: the model itself."""

from __future__ import annotations

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner


def unwrapped_model(runner: Runner) -> Any:
    """The model itself, out of its wrapper for several GPUs."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
