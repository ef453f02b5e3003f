"""A training step waits for the device twice, whatever the number of images, besides what MMEngine logs."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from small_model import build
from waits import DeviceWaits

from mmseg_alignzeg.engine import FiniteGuardHook
from mmseg_alignzeg.transfer import to_device, to_host


def batch(num_images):
    labels = torch.randint(0, 3, (num_images, 2, 2)).repeat_interleave(32, 1).repeat_interleave(32, 2)
    labels[:, :8] = 255
    samples = [SegDataSample(gt_sem_seg=PixelData(data=image[None])) for image in labels]
    return dict(inputs=[torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in samples], data_samples=samples)


@pytest.mark.parametrize('num_images', [1, 4])
def test_a_step_waits_for_labels_and_for_matching_costs(num_images):
    model = build().train()
    optim_wrapper = OptimWrapper(
        torch.optim.SGD([param for param in model.parameters() if param.requires_grad], lr=0.01),
        clip_grad=dict(max_norm=0.01),
    )
    guard = FiniteGuardHook()
    runner = SimpleNamespace(model=model, optim_wrapper=optim_wrapper, iter=0)
    guard.before_train(runner)
    model.train_step(batch(num_images), optim_wrapper)  # fills the text bank
    guard.after_train_iter(runner, 0)
    with DeviceWaits() as waits:
        outputs = model.train_step(batch(num_images), optim_wrapper)
    model_waits, logging = waits.found[:2], waits.found[2:]
    assert all(line.startswith('cpu in transfer.py') for line in model_waits)
    # MMEngine logs the norm of the gradient; the guard decides, and reads the losses that are logged.
    assert len(logging) == 2 and logging[0].startswith('aten._local_scalar_dense'), logging
    on_device = dict(outputs)
    guard.after_train_iter(runner, 0, None, outputs)
    assert outputs.keys() == on_device.keys() and all(outputs[name] is not on_device[name] for name in outputs)
    torch.testing.assert_close(outputs, on_device, rtol=0, atol=0)


def test_waits_are_seen():
    values = torch.arange(4.0)
    with DeviceWaits() as waits:
        float(values[0]), values.tolist(), values.cpu(), values.unique(), values[values > 1], (values > 1).nonzero()
        bool(values[1] > 0), values.masked_fill(values > 1, 0), values[values.long()]
        values[values > 2] = 0
    assert len(waits.found) == 8


def test_transfers_keep_shapes_and_values():
    first, second = torch.randn(2, 3, requires_grad=True), torch.randn(0, 4)
    for copied, original in zip(to_host(first, second), (first, second), strict=True):
        assert torch.equal(copied, original) and not copied.requires_grad
    rows = [torch.arange(3), torch.arange(0), torch.tensor([7])]
    for copied, original in zip(to_device(torch.device('cpu'), *rows), rows, strict=True):
        assert torch.equal(copied, original)
