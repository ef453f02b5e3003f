"""From the data loader to the device, without waiting for it."""

from __future__ import annotations

from typing import Any

from mmengine.structures import BaseDataElement
from mmseg.models import SegDataPreProcessor
from mmseg.registry import MODELS
from mmseg.utils import stack_batch
from torch import Tensor


@MODELS.register_module()
class PinnedSegDataPreProcessor(SegDataPreProcessor):
    """mmseg's SegDataPreProcessor, which copies training data to a GPU without waiting for it; the result is equal.

    mmseg's waits for each image, for its labels, and for the list of channels by which it turns BGR into RGB.

    Args:
        **kwargs: Arguments of SegDataPreProcessor.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._non_blocking = True

    def cast_data(self, data: Any) -> Any:
        """Copy data to the device; only copies from pinned memory do not wait."""
        if self.device.type == 'cuda' and isinstance(data, (Tensor, BaseDataElement)):
            data = pinned(data)
        return super().cast_data(data)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Normalise, pad and stack the images of a batch, see SegDataPreProcessor."""
        if not training:
            return super().forward(data, training)
        data = self.cast_data(data)
        images = [image.flip(0) if reverses_channels(self) and len(image) == 3 else image for image in data['inputs']]
        images = [image.float() for image in images]
        if self._enable_normalize:
            images = [(image - self.mean) / self.std for image in images]
        inputs, samples = stack_batch(
            images,
            data['data_samples'],
            size=self.size,
            size_divisor=self.size_divisor,
            pad_val=self.pad_val,
            seg_pad_val=self.seg_pad_val,
        )
        if self.batch_augments is not None:
            inputs, samples = self.batch_augments(inputs, samples)
        return {'inputs': inputs, 'data_samples': samples}


def reverses_channels(preprocessor: SegDataPreProcessor) -> bool:
    """Whether a preprocessor turns BGR into RGB, or back. The OneDL fork has another name for its attribute."""
    return any(getattr(preprocessor, name, False) for name in ('channel_conversion', '_channel_conversion'))


def pinned(value: Any) -> Any:
    """Return a tensor, or a data sample with all of its tensors, in pinned memory."""
    if isinstance(value, Tensor):
        return value.pin_memory() if value.device.type == 'cpu' else value
    if not isinstance(value, BaseDataElement):
        return value
    copied = value.new()
    for name, part in value.items():
        copied.set_data({name: pinned(part)})
    return copied
