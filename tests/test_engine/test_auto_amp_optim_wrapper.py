"""Mixed precision is chosen by the device; on a CPU nothing changes; the scale of float16 goes on after a stop."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from toy_training import toy_runner

from mmseg_alignzeg.engine import AutoAmpOptimWrapper
from mmseg_alignzeg.engine import auto_amp_optim_wrapper as module
from mmseg_alignzeg.precision import full_precision

FULL_SIZE = ['alignzeg_voc', 'alignzeg_coco', 'alignzeg_context', 'cross_dataset/alignzeg_coco171', '_base_/folders']


@pytest.fixture
def matmul():
    """Settings of products on a GPU, without TF32."""
    settings = torch.backends.cuda.matmul
    before, settings.allow_tf32 = settings.allow_tf32, False
    yield settings
    settings.allow_tf32 = before


def wrapper(**options):
    return AutoAmpOptimWrapper(optimizer=torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1), **options)


def test_full_size_configs_use_it_and_the_embedded_world_does_not():
    for name in FULL_SIZE:
        cfg = Config.fromfile(f'configs/{name}.py')
        assert cfg.optim_wrapper.type == 'AutoAmpOptimWrapper' and cfg.train_dataloader.pin_memory
    for name in ('alignzeg_patterns', '_base_/folders_tiny'):
        assert Config.fromfile(f'configs/{name}.py').optim_wrapper.type == 'OptimWrapper'


def test_a_cpu_trains_as_without_it(tmp_path):
    ends = []
    for kind in (OptimWrapper, AutoAmpOptimWrapper):
        options = dict(type=kind.__name__, clip_grad=dict(max_norm=0.1), accumulative_counts=2)
        runner = toy_runner(tmp_path / kind.__name__, wrapper=options)
        runner.train()
        assert type(runner.optim_wrapper) is kind
        ends.append(runner.model.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert not runner.optim_wrapper.loss_scaler.is_enabled()
    with runner.optim_wrapper.optim_context(runner.model):
        assert not torch.is_autocast_enabled('cuda') and not torch.is_autocast_enabled('cpu')


@pytest.mark.parametrize(
    ('dtype', 'has_bf16', 'chosen'),
    [
        ('auto', True, torch.bfloat16),
        ('auto', False, torch.float16),
        ('float16', True, torch.float16),
        ('float32', True, None),
    ],
)
def test_a_gpu_gets_bfloat16_or_float16_with_a_scaler(monkeypatch, matmul, dtype, has_bf16, chosen):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation=True: has_bf16)
    assert wrapper(dtype=dtype, tf32=False).cast_dtype is chosen and not matmul.allow_tf32
    made = wrapper(dtype=dtype)
    assert made.loss_scaler.is_enabled() == (chosen is torch.float16) and matmul.allow_tf32


def test_what_a_card_cannot_compute_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="dtype='half' must be 'auto' or one of"):
        wrapper(dtype='half')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation=True: False)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'An old card')
    with pytest.raises(ValueError, match="An old card cannot compute bfloat16: set dtype='auto'"):
        wrapper(dtype='bfloat16', tf32=False)


@pytest.mark.filterwarnings('ignore:.*CUDA is not available.*')
def test_the_scale_of_float16_goes_on_after_a_stop(tmp_path, monkeypatch):
    """The arithmetic stays float32 here; scaling works on a CPU."""
    monkeypatch.setattr(module, '_chosen', lambda dtype: torch.float16)
    monkeypatch.setattr(torch.cuda.amp.common, 'amp_definitely_not_available', lambda: False)
    options = dict(
        type='AutoAmpOptimWrapper', loss_scale=dict(init_scale=8.0, growth_interval=2), clip_grad=dict(max_norm=0.1)
    )
    keep_all = dict(max_keep_ckpts=-1)
    whole = toy_runner(tmp_path / 'whole', wrapper=options, check_point=keep_all)
    whole.train()
    assert whole.optim_wrapper.loss_scaler.get_scale() == 32.0
    stopped = tmp_path / 'whole/iter_3.pth'
    saved = torch.load(stopped, weights_only=True)['optimizer']['loss_scaler']
    assert saved['scale'] == 16.0 and saved['_growth_tracker'] == 1
    resumed = toy_runner(tmp_path / 'resumed', wrapper=options, load_from=str(stopped), resume=True)
    resumed.train()
    assert resumed.iter == 4 and resumed.optim_wrapper.loss_scaler.get_scale() == 32.0


@pytest.mark.parametrize('source', ['OptimWrapper', 'AutoAmpOptimWrapper'])
def test_a_scale_starts_anew_from_a_checkpoint_without_one(source):
    """One of a training in float32, or in bfloat16."""
    made = wrapper() if source == 'AutoAmpOptimWrapper' else OptimWrapper(wrapper().optimizer)
    state = made.state_dict()
    assert not state.get('loss_scaler')
    other = wrapper()
    other.loss_scaler = torch.amp.GradScaler('cpu', init_scale=8.0)
    other.load_state_dict(state)
    assert other.loss_scaler.get_scale() == 8.0


@pytest.mark.filterwarnings('ignore:.*CUDA is not available.*')
def test_losses_and_matching_ignore_tf32_on_a_gpu(matmul):
    device = torch.device('cuda')
    matmul.allow_tf32 = True
    with full_precision(device):
        assert not matmul.allow_tf32
    assert matmul.allow_tf32
    matmul.allow_tf32 = False
    with torch.autocast('cpu', torch.bfloat16), full_precision(torch.device('cpu')):
        assert not torch.is_autocast_enabled('cpu')
    assert not matmul.allow_tf32
