"""Optimizer construction for trainable parameters only."""

from __future__ import annotations

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's constructor, but it skips frozen modules instead of giving a warning for each of their parameters."""

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, *args: Any, **kwargs: Any) -> None:
        """Add the parameter groups of ``module`` unless it is completely frozen."""
        if any(param.requires_grad for param in module.parameters()):
            super().add_params(params, module, *args, **kwargs)
