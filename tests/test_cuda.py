"""On a GPU: the same results as on a CPU, in each precision, with few waits. Run them with ``pytest -m cuda``."""

import copy
import functools
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_alignzeg.datasets.patterns import draw_scene
from mmseg_alignzeg.engine import AutoAmpOptimWrapper, FiniteGuardHook

sys.path.insert(0, str(Path(__file__).parent / 'test_models'))
from small_model import build

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU')]


@pytest.fixture(autouse=True)
def _tf32_as_before():
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    convolutions, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before, convolutions


def batch(num_images=2, side=128, seed=0):
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (num_images, 2, 2), generator=draw)
    labels = labels.repeat_interleave(side // 2, 1).repeat_interleave(side // 2, 2)
    labels[:, :8] = 255
    images = torch.randint(0, 256, (num_images, 3, side, side), generator=draw, dtype=torch.uint8)
    return dict(
        inputs=list(images), data_samples=[SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in labels]
    )


def small(prompts=0, **options):
    """A model on the embedded CLIP's weights."""
    clip = dict(model_name='tiny_clip', pretrained='embedded', tap_layer=3, tail_layers=3, num_prompts=prompts)
    return build(clip=clip | options.pop('clip', {}), **options).train()


def same_chance(monkeypatch):
    """Random points and drops are drawn on the CPU, whatever the device of the model."""
    rand = torch.rand
    monkeypatch.setattr(torch, 'rand', lambda *shape, device=None: rand(*shape).to(device or 'cpu'))


def gradients(model, data, optim_wrapper=None):
    """Losses, and the gradient of each parameter, on the CPU."""
    torch.manual_seed(3)
    model.zero_grad()
    data = model.data_preprocessor(copy.deepcopy(data), True)
    if optim_wrapper is None:
        losses = model.loss(**data)
    else:
        with optim_wrapper.optim_context(model):
            losses = model.loss(**data)
    sum(losses.values()).backward()
    found = {name: param.grad.float().cpu() for name, param in model.named_parameters() if param.grad is not None}
    return {name: loss.detach().cpu() for name, loss in losses.items()}, found


def close(found, expected, tolerance):
    """Whether all tensors together, and none of them by itself much more, differ by the tolerance."""
    assert found.keys() == expected.keys()
    whole = torch.cat([part.flatten() for part in expected.values()]).norm()
    difference = torch.cat([(found[name] - expected[name]).flatten() for name in expected]).norm()
    assert difference <= tolerance * whole, float(difference / whole)


def wrapped(model, **options):
    trained = [param for param in model.parameters() if param.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    return AutoAmpOptimWrapper(optimizer=optimizer, clip_grad=dict(max_norm=0.01), **options)


@pytest.mark.parametrize('prompts', [0, 4])
def test_a_step_in_float32_equals_the_cpus(monkeypatch, prompts):
    same_chance(monkeypatch)
    model = small(prompts)
    losses, expected = gradients(model, batch())
    cuda_losses, found = gradients(model.cuda(), batch())
    torch.testing.assert_close(cuda_losses, losses, rtol=1e-3, atol=1e-5)
    close(found, expected, 1e-2)


@pytest.mark.parametrize('dtype', ['auto', 'float16', 'float32'])
def test_a_step_in_mixed_precision_is_close_to_float32_and_trains(monkeypatch, dtype):
    same_chance(monkeypatch)
    model = small(prompts=4).cuda()
    losses, expected = gradients(model, batch())
    optim_wrapper = wrapped(model, dtype=dtype)
    mixed_losses, found = gradients(model, batch(), optim_wrapper)
    assert all(loss.dtype == torch.float32 for loss in mixed_losses.values())
    torch.testing.assert_close(mixed_losses, losses, rtol=0.1, atol=0.01)
    close(found, expected, 0.3)  # proposals that cost nearly the same may be matched to another mask
    model.zero_grad()
    before = {name: param.detach().clone() for name, param in model.named_parameters() if param.requires_grad}
    for seed in range(2):
        log = model.train_step(batch(seed=seed), optim_wrapper)
        assert all(value.isfinite() for value in log.values())
    changed = [name for name, param in model.named_parameters() if name in before and not param.equal(before[name])]
    assert len(changed) > 0.9 * len(before)
    assert optim_wrapper.loss_scaler.is_enabled() == (optim_wrapper.cast_dtype is torch.float16)
    assert torch.backends.cuda.matmul.allow_tf32


def test_scores_and_matching_do_not_depend_on_tf32():
    model = small().cuda()
    feats = torch.nn.functional.normalize(torch.randn(2, 8, 64, device='cuda'), dim=-1)
    embeds = torch.nn.functional.normalize(torch.randn(50, 1, 64, device='cuda'), dim=-1)
    exact = model.semantic_head.scores(feats, embeds, 100.0)
    torch.backends.cuda.matmul.allow_tf32 = True
    assert torch.equal(model.semantic_head.scores(feats, embeds, 100.0), exact)


@pytest.mark.parametrize('num_images', [1, 4])
@pytest.mark.parametrize('dtype', ['float32', 'auto'])
def test_a_step_waits_twice_besides_logging(dtype, num_images):
    model = small(prompts=4).cuda()
    optim_wrapper = wrapped(model, dtype=dtype)
    guard = FiniteGuardHook()
    guard.before_train(SimpleNamespace(model=model, optim_wrapper=optim_wrapper, iter=0))
    if optim_wrapper.loss_scaler.is_enabled():
        pytest.skip('without bfloat16, the GradScaler waits once more')
    for seed in range(2):  # text bank, pinned memory, state of the optimizer
        log = model.train_step(batch(num_images, seed=seed), optim_wrapper)
        guard.after_train_iter(SimpleNamespace(optim_wrapper=optim_wrapper), 0, None, log)
    data = batch(num_images, seed=2)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('warn')
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            log = model.train_step(data, optim_wrapper)
            guard.after_train_iter(SimpleNamespace(optim_wrapper=optim_wrapper), 0, None, log)
            values = [value.item() for value in log.values()]
    finally:
        torch.cuda.set_sync_debug_mode('default')
    waits = [f'{warning.filename}:{warning.lineno}' for warning in caught if 'synchronizing' in str(warning.message)]
    # Labels and matching costs; MMEngine's norm of the gradient; the outcome, with the losses that are logged.
    assert len(waits) <= 4, waits
    assert np.isfinite(values).all() and not any(value.is_cuda for value in log.values())


def test_compiled_encoders_equal_plain_ones(monkeypatch):
    pytest.importorskip('triton')
    same_chance(monkeypatch)
    encoder = dict(type='ImageEncoder', image_size=128, patch_size=8, embed_dim=96, depth=2, num_heads=3)
    losses, expected = gradients(small(prompts=4, image_encoder=encoder).cuda(), batch())
    compiled = small(prompts=4, image_encoder=encoder | dict(compile=True), clip=dict(compile=True)).cuda()
    compiled_losses, found = gradients(compiled, batch())
    torch.testing.assert_close(compiled_losses, losses, rtol=1e-3, atol=1e-4)
    close(found, expected, 1e-2)


@functools.cache
def predictions(device, dtype):
    from alignzeg.apis import AlignZegInferencer

    inferencer = AlignZegInferencer(device=device, dtype=dtype)
    pictures = [draw_scene(2, index, side)[0] for index, side in enumerate((128, 200, 256))]
    return [result.labels for result in inferencer(pictures)]


@pytest.mark.parametrize(('dtype', 'share'), [('fp32', 0.999), ('bf16', 0.97)])
def test_predictions_equal_the_cpus(dtype, share):
    expected, found = predictions('cpu', 'fp32'), predictions('cuda', dtype)
    agreed = np.concatenate([(a == b).ravel() for a, b in zip(expected, found, strict=True)])
    assert agreed.mean() >= share


def test_activations_are_recomputed_with_prompts():
    peaks = []
    for with_cp in (False, True):
        model = small(prompts=4, clip=dict(with_cp=with_cp)).cuda()
        data = model.data_preprocessor(batch(8), True)
        model.text_bank(model.vocabulary.seen_classes, 'cuda')
        torch.cuda.reset_peak_memory_stats()
        sum(model.loss(**data).values()).backward()
        peaks.append(torch.cuda.max_memory_allocated())
        del model, data
    assert peaks[1] < peaks[0]
