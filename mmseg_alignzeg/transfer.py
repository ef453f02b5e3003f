"""Copies between the host and a device, which wait for the device as seldom as possible."""

from __future__ import annotations

import torch
from torch import Tensor


def to_host(*tensors: Tensor) -> list[Tensor]:
    """Copy tensors of one type to the host. This waits once for all work queued on their device.

    Returns:
        Tensors of the same shapes on the CPU, without gradient.
    """
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors]).cpu()
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def to_device(device: torch.device, *tensors: Tensor) -> list[Tensor]:
    """Copy vectors of one type from the host to a device in one transfer, without waiting for it.

    A copy from ordinary memory waits until the device has done all previous work; one from pinned memory does not.
    """
    flat = torch.cat(tensors)
    if device.type == 'cuda':
        flat = flat.pin_memory()
    return list(flat.to(device, non_blocking=True).split([len(tensor) for tensor in tensors]))
