"""Make multi-process training and tests possible without a GPU."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import utils

_with_gpu = utils._init_dist_pytorch


def enable_cpu_ranks() -> None:
    """Make ``--launcher pytorch`` work on a machine without a GPU, with ``env_cfg.dist_cfg.backend=gloo``.

    MMEngine assigns a GPU to each process before it reads the backend, and fails if there is none, even for gloo. Only
    this case is replaced.
    """
    utils._init_dist_pytorch = _init_dist_pytorch


def _init_dist_pytorch(backend: str, init_backend: str = 'torch', **kwargs: Any) -> None:
    if get_device() not in ('cpu', 'mps'):  # torch has no collectives for Apple's GPUs
        _with_gpu(backend, init_backend=init_backend, **kwargs)
        return
    if backend == 'nccl':
        raise RuntimeError(
            f"The backend 'nccl' needs GPUs, but torch {torch.__version__} sees none: check `nvidia-smi` and "
            'CUDA_VISIBLE_DEVICES, or pass `--cfg-options env_cfg.dist_cfg.backend=gloo` to use CPUs.'
        )
    torch.distributed.init_process_group(backend, **kwargs)
