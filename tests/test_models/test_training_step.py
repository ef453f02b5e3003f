"""What a training step costs: waits for the device, memory for the backward pass, slow modules, compilation."""

import functools
import shutil
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.structures import PixelData
from mmseg.models import SegDataPreProcessor
from mmseg.structures import SegDataSample
from small_model import build
from waits import DeviceWaits

from mmseg_alignzeg.engine import FiniteGuardHook
from mmseg_alignzeg.models import CLIPSource, ImageEncoder, PinnedSegDataPreProcessor, build_tower
from mmseg_alignzeg.models.data_preprocessor import pinned
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


def test_preprocessor_gives_what_mmsegs_does():
    settings = dict(mean=[1.0, 2.0, 3.0], std=[2.0, 3.0, 4.0], bgr_to_rgb=True, size=(70, 80), seg_pad_val=255)
    data = batch(2)
    for training in (True, False):
        ours, theirs = (kind(**settings)(data, training) for kind in (PinnedSegDataPreProcessor, SegDataPreProcessor))
        assert torch.equal(ours['inputs'], theirs['inputs'])
        for one, other in zip(ours['data_samples'], theirs['data_samples'], strict=True):
            assert torch.equal(one.gt_sem_seg.data, other.gt_sem_seg.data)
            assert one.metainfo == other.metainfo


def test_a_pinned_sample_has_the_same_content(monkeypatch):
    monkeypatch.setattr(torch.Tensor, 'pin_memory', lambda self: self + 1)  # without a GPU, it would fail
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, 4, 4)), metainfo=dict(img_path='a.png'))
    copied = pinned(sample)
    assert copied.gt_sem_seg.data.eq(1).all() and sample.gt_sem_seg.data.eq(0).all()
    assert copied.metainfo == sample.metainfo


def test_no_clip_layer_runs_as_a_slow_module(monkeypatch):
    """nn.MultiheadAttention computes the gradient of a frozen layer as hundreds of small products."""

    def refuse(self, *args, **kwargs):
        raise AssertionError('a module of open_clip runs')

    cfg = dict(model_name='tiny_clip', pretrained=None, tap_layer=3, tail_layers=3, num_prompts=2)
    for model in (build(), build(clip=cfg)):
        model.text_bank(model.vocabulary.seen_classes)
        for module in model.clip.visual.modules():
            if isinstance(module, torch.nn.MultiheadAttention):
                monkeypatch.setattr(module, 'forward', refuse)
        data = model.data_preprocessor(batch(1), True)
        sum(model.train().loss(**data).values()).backward()
        model.eval().predict(data['inputs'])


def test_losses_keep_nothing_of_the_size_of_images(monkeypatch):
    """Ground-truth masks are compared at points; masks of a larger image cost the backward pass no memory."""
    saved = []
    model = build().train()
    for side in (64, 256):
        data = model.data_preprocessor(batch(2), True)
        proposals = model.extract_feat(data['inputs'])
        for sample in data['data_samples']:
            labels = sample.gt_sem_seg.data.repeat(1, side // 64, side // 64)
            sample.gt_sem_seg = PixelData(data=labels)
        seen = {}

        def keep(kept, seen=seen):
            return seen.setdefault(kept.untyped_storage().data_ptr(), kept)

        with monkeypatch.context() as patch, torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
            patch.setattr(model, 'extract_feat', functools.partial(lambda found, _: found, proposals))
            model.loss(data['inputs'], data['data_samples'])
        saved.append(max(kept.untyped_storage().nbytes() for kept in seen.values()))
    assert saved[0] == saved[1]


def encoders(compiled):
    torch.manual_seed(0)
    layers = dict(tap_layer=1, tail_layers=1, skip_bridge=True, num_prompts=2)
    vision = build_tower(CLIPSource('tiny_clip', None), compile=compiled, **layers)
    return ImageEncoder(64, 16, 12, depth=1, num_heads=3, compile=compiled), vision


def outcome(image_encoder, vision):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    stream = vision(images)
    outputs = [image_encoder(images), stream.tap, stream.tail_inputs[-1]]
    sum(output.square().sum() for output in outputs).backward()
    gradients = [p.grad for part in (image_encoder, vision) for p in part.parameters() if p.requires_grad]
    return [output.detach() for output in outputs], gradients


@pytest.mark.parametrize(
    'backend',
    [
        'aot_eager',  # all of it but the generated code
        pytest.param(
            'inductor',
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(not shutil.which('c++'), reason='there is no C++ compiler'),
            ],
        ),
    ],
)
def test_compiled_encoders_equal_plain_ones(monkeypatch, backend):
    plain = encoders(compiled=False)
    monkeypatch.setattr(torch, 'compile', functools.partial(torch.compile, backend=backend, fullgraph=True))
    compiled = encoders(compiled=True)
    for one, other in zip(plain, compiled, strict=True):
        assert list(one.state_dict()) == list(other.state_dict()) and other._compiled_call_impl is not None
    torch.testing.assert_close(outcome(*compiled), outcome(*plain), rtol=1e-4, atol=1e-4)
