"""Mixed precision where the device has it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmseg.registry import OPTIM_WRAPPERS
from torch import nn

DTYPES = {'bfloat16': torch.bfloat16, 'float16': torch.float16, 'float32': None}


@OPTIM_WRAPPERS.register_module()
class AutoAmpOptimWrapper(AmpOptimWrapper):
    """MMEngine's AmpOptimWrapper, which chooses its type at run time and also works without a GPU.

    On a GPU: bfloat16 if the card computes it, else float16 with a ``GradScaler``, whose state is part of checkpoints.
    On other devices: float32, equal to :class:`OptimWrapper`. Losses and matching are in float32 in any case, see
    :func:`full_precision`.

    Args:
        dtype: 'auto', or on a GPU 'bfloat16', 'float16' or 'float32'.
        tf32: Compute the remaining float32 products of the process, except losses and matching, in TF32, on a GPU.
        loss_scale: Arguments of ``GradScaler``, such as ``init_scale``; only for float16.
        **kwargs: Arguments of :class:`OptimWrapper`.

    Raises:
        ValueError: If ``dtype`` is unknown, or the card cannot compute it.
    """

    def __init__(
        self, dtype: str = 'auto', tf32: bool = True, loss_scale: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if dtype not in ('auto', *DTYPES):
            raise ValueError(f"dtype={dtype!r} must be 'auto' or one of {list(DTYPES)}.")
        OptimWrapper.__init__(self, **kwargs)  # AmpOptimWrapper's refuses a CPU
        self.cast_dtype = _chosen(dtype)
        self.loss_scaler = torch.amp.GradScaler(enabled=self.cast_dtype is torch.float16, **(loss_scale or {}))
        self._scale_update_param = None
        if tf32 and torch.cuda.is_available():
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, also one of another type: a scale is then left out, or starts anew."""
        if not state_dict.get('loss_scaler'):
            state_dict.pop('loss_scaler', None)
        super().load_state_dict(state_dict)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Compute the losses of a batch in the chosen type."""
        with OptimWrapper.optim_context(self, model):
            if self.cast_dtype is None:
                yield
                return
            with torch.autocast('cuda', self.cast_dtype):
                yield


def _chosen(dtype: str) -> torch.dtype | None:
    """Return the type of autocast; None for float32."""
    if not torch.cuda.is_available():
        return None
    if dtype == 'auto':
        dtype = 'bfloat16' if torch.cuda.is_bf16_supported(including_emulation=False) else 'float16'
    if dtype == 'bfloat16' and not torch.cuda.is_bf16_supported():
        raise ValueError(f"{torch.cuda.get_device_name()} cannot compute bfloat16: set dtype='auto' or 'float16'.")
    return DTYPES[dtype]
