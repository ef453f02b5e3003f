"""Steps that are not finite change nothing, a few in a row end the training, and such weights go nowhere."""

import itertools

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import Runner
from mmseg.structures import SegDataSample
from torch.utils.data import Dataset

from mmseg_alignzeg.engine import FiniteGuardHook

RUN = itertools.count()
NAN = float('nan')


class ToyData(Dataset):
    """Sample i is the number i, from the image ``i.png``."""

    metainfo = dict(classes=('cat',))

    def __len__(self):
        return 32

    def __getitem__(self, index):
        return dict(
            inputs=torch.full((2,), 0.1 * index), data_samples=SegDataSample(metainfo=dict(img_path=f'{index}.png'))
        )


class ToyModel(BaseModel):
    """Two terms; ``bad`` says in which forward passes which of them, or a gradient, is not finite."""

    def __init__(self, bad):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)
        self.bad, self.calls = bad, 0
        self.history = []  # the weights before each forward pass

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode == 'predict':
            return data_samples
        self.history.append(self.linear.weight.detach().clone())
        self.calls += 1
        bad = self.bad.get(self.calls)
        outputs = self.linear(torch.stack(inputs))
        # At 0 the root is finite and its slope is not.
        root = (outputs * 0).abs().sqrt().mean() if bad == 'gradient' else 0
        losses = dict(loss_near=outputs.square().mean() + root, loss_far=(outputs - 1).square().mean())
        if bad in losses:
            losses[bad] = losses[bad] * NAN
        if bad == 'constant':
            losses['loss_far'] = losses['loss_far'] + float('inf')  # the gradient stays finite
        return losses


def make_runner(work_dir, bad=(), max_iters=8, guard=True, patience=3, wrapper=None, **kwargs):
    torch.manual_seed(0)
    wrapper = wrapper or dict(type='OptimWrapper', clip_grad=dict(max_norm=0.01))
    if isinstance(wrapper, dict):
        wrapper = {**wrapper, 'optimizer': dict(type='AdamW', lr=0.01)}
    return Runner(
        model=kwargs.pop('model', None) or ToyModel(dict(bad)),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=ToyData(),
            batch_size=2,
            sampler=dict(type='InfiniteSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=max_iters),
        optim_wrapper=wrapper,
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
            **({'guard': dict(type='FiniteGuardHook', patience=patience)} if guard else {}),
        ),
        custom_hooks=[dict(type='SafeCheckpointHook')],
        randomness=dict(seed=0),
        experiment_name=f'guard {next(RUN)}',
        default_scope='mmseg',
        **kwargs,
    )


def guard_of(runner):
    return next(hook for hook in runner.hooks if isinstance(hook, FiniteGuardHook))


def train(runner, monkeypatch):
    """Train, and return what was warned of."""
    warned = []
    monkeypatch.setattr(runner.logger, 'warning', warned.append)
    runner.train()
    return [text for text in warned if 'skipped' in text]


@pytest.mark.attack('training: a loss or gradient that is not finite')
@pytest.mark.parametrize('fault', ['loss_near', 'constant', 'gradient'])
@pytest.mark.parametrize('clip', [dict(max_norm=0.01), None])
def test_a_step_that_is_not_finite_changes_nothing(tmp_path, monkeypatch, fault, clip):
    runner = make_runner(tmp_path, {4: fault}, wrapper=dict(type='OptimWrapper', clip_grad=clip))
    warned = train(runner, monkeypatch)
    history = runner.model.history
    assert torch.equal(history[3], history[4])  # no update, and no decay of the weights
    assert all(not torch.equal(a, b) for i, (a, b) in enumerate(itertools.pairwise(history)) if i != 3)
    assert all(value.isfinite().all() for value in runner.model.state_dict().values())
    state = runner.optim_wrapper.optimizer.state_dict()['state']
    assert all(entry['step'] == 7 and entry['exp_avg'].isfinite().all() for entry in state.values())
    assert guard_of(runner).skipped == 1 and len(warned) == 2
    term = {'loss_near': 'loss_near is nan', 'constant': 'loss_far is inf', 'gradient': 'its gradient is not'}[fault]
    assert term in warned[0] and '6.png, 7.png' in warned[0] and 'Step 4 ' in warned[0]


def test_the_guard_leaves_finite_steps_alone(tmp_path):
    ends = []
    for guard in (True, False):
        runner = make_runner(tmp_path / str(guard), guard=guard)
        runner.train()
        ends.append(runner.model.linear.weight.detach())
    assert torch.equal(*ends)


@pytest.mark.attack('training: a loss or gradient that is not finite')
def test_a_few_in_a_row_end_the_training_and_keep_the_checkpoint(tmp_path):
    runner = make_runner(tmp_path, {2: 'loss_near', 3: 'loss_far', 5: 'loss_far', 6: 'gradient', 7: 'loss_near'})
    with pytest.raises(
        FloatingPointError, match=r'^Step 7 was skipped: loss_near is nan \(images: 12.png, 13.png\)'
    ) as e:
        runner.train()
    assert '\n' not in str(e.value) and guard_of(runner).skipped == 5
    last = (tmp_path / 'last_checkpoint').read_text()
    assert last.endswith('iter_6.pth')
    state = torch.load(last, weights_only=True)['state_dict']
    assert all(value.isfinite().all() for value in state.values())


def test_accumulated_gradients_are_skipped_together(tmp_path, monkeypatch):
    runner = make_runner(tmp_path, {3: 'loss_near'}, wrapper=dict(type='OptimWrapper', accumulative_counts=2))
    warned = train(runner, monkeypatch)
    history = runner.model.history
    assert torch.equal(history[3], history[4]) and not torch.equal(history[4], history[6])
    assert guard_of(runner).skipped == 1 and '4.png, 5.png' in warned[0]


@pytest.mark.parametrize(('scale', 'skipped'), [(2.0**16, 0), (0.5, 1)])
def test_an_overflow_is_the_scalers_unless_its_scale_is_small(tmp_path, monkeypatch, scale, skipped):
    monkeypatch.setattr('mmengine.optim.optimizer.amp_optimizer_wrapper.is_cuda_available', lambda: True)
    model = ToyModel({4: 'gradient'})
    wrapper = AmpOptimWrapper(optimizer=torch.optim.AdamW(model.parameters(), lr=0.01), dtype='bfloat16')
    wrapper.loss_scaler = torch.amp.GradScaler('cpu', init_scale=scale)
    runner = make_runner(tmp_path, model=model, wrapper=wrapper)
    train(runner, monkeypatch)
    assert torch.equal(model.history[3], model.history[4]) and not torch.equal(model.history[4], model.history[5])
    assert guard_of(runner).skipped == skipped


def test_every_config_has_the_guard():
    assert Config.fromfile('configs/_base_/default_runtime.py').default_hooks.guard == dict(type='FiniteGuardHook')


def test_patience_is_at_least_1():
    with pytest.raises(ValueError, match='patience=0 must be at least 1'):
        FiniteGuardHook(patience=0)


@pytest.mark.attack('weights: not finite')
@pytest.mark.parametrize('value', [NAN, float('inf')])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path, value):
    runner = make_runner(tmp_path / 'run', max_iters=2)
    runner.train()
    path = tmp_path / 'run/iter_2.pth'
    good = path.read_bytes()
    with torch.no_grad():
        runner.model.linear.weight[0, 1] = value
    with pytest.raises(ValueError, match=r"1 of 2 tensors .*'linear.weight'"):
        runner.save_checkpoint(str(tmp_path / 'run'), 'iter_2.pth', save_optimizer=False)
    assert path.read_bytes() == good
    checkpoint = torch.load(path, weights_only=True)
    checkpoint['state_dict']['linear.weight'][0, 1] = value
    torch.save(checkpoint, tmp_path / 'bad.pth')
    torch.save(checkpoint['state_dict'], tmp_path / 'bare.pth')
    for name, resume in (('bad.pth', False), ('bad.pth', True), ('bare.pth', False)):
        other = make_runner(tmp_path / f'other {name} {resume}', load_from=str(tmp_path / name), resume=resume)
        with pytest.raises(ValueError, match='1 of 2 tensors'):
            other.train()
        assert other.model.linear.weight.isfinite().all()


def test_an_overflow_of_a_fused_optimizer_is_the_scalers(tmp_path):
    """Fused optimizers are called by the GradScaler although it has found an overflow."""
    scaler = torch.amp.GradScaler('cpu', init_scale=2.0**16)
    wrapper = AmpOptimWrapper.__new__(AmpOptimWrapper)
    runner = make_runner(tmp_path)
    hook = next(hook for hook in runner.hooks if isinstance(hook, FiniteGuardHook))
    optimizer = torch.optim.AdamW(runner.model.parameters(), fused=True)
    wrapper.loss_scaler, wrapper.optimizer = scaler, optimizer
    wrapper.should_update = lambda: True
    runner.optim_wrapper = wrapper
    hook.before_train(runner)
    before = runner.model.linear.weight.detach().clone()
    for _ in range(hook.patience + 2):
        losses = runner.model(inputs=[torch.ones(2)], mode='loss')
        scaler.scale(sum(losses.values())).backward()
        for param in runner.model.parameters():
            param.grad.fill_(float('inf'))
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        hook.after_train_iter(runner, 0)
    assert hook.skipped == 0 and scaler.get_scale() < 2**16
    assert torch.equal(runner.model.linear.weight, before)


def test_a_term_may_be_a_list_as_in_mmengine(tmp_path):
    class Lists(ToyModel):
        def forward(self, inputs, data_samples=None, mode='tensor'):
            losses = super().forward(inputs, data_samples, mode)
            return {name: [loss / 2, loss / 2] for name, loss in losses.items()}

    runner = make_runner(tmp_path, model=Lists({3: 'loss_near'}))
    runner.train()
    hook = next(hook for hook in runner.hooks if isinstance(hook, FiniteGuardHook))
    assert hook.skipped == 1 and all(param.isfinite().all() for param in runner.model.parameters())
