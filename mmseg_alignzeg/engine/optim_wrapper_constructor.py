"""An optimizer for the parameters that are trained, and no others."""

from __future__ import annotations

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, which also hands frozen parameters to the optimizer, without them."""

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, *args: Any, **kwargs: Any) -> None:
        """Add the parameter groups of ``module``, leaving out those without a gradient."""
        if not any(param.requires_grad for param in module.parameters()):
            return  # mmengine would warn about each of them
        super().add_params(params, module, *args, **kwargs)
        params[:] = [group for group in params if group['params'][0].requires_grad]
