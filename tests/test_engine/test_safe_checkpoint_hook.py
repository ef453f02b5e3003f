"""A real runner saves, loads with `weights_only=True`, resumes, and refuses another vocabulary."""

import itertools
from collections import OrderedDict
from enum import Enum, IntEnum
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

import mmseg_alignzeg  # noqa: F401
from mmseg_alignzeg.engine import read_checkpoint
from mmseg_alignzeg.engine.safe_checkpoint_hook import (
    SafeCheckpointHook,
    identity_differences,
    restore_history,
    to_plain,
)

IDENTITY = dict(classes=['cat', 'dog', 'fox'], unseen_classes=['fox'], templates='vild', clip='ViT-B-16:openai:abc')

RUN = itertools.count()


class ToyData(Dataset):
    metainfo = dict(classes=('cat', 'dog'), palette=np.arange(6).reshape(2, 3), scale=np.float64(0.5))

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.full((2,), float(index))


class ToyModel(BaseModel):
    def __init__(self, identity=IDENTITY):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)
        self.identity = identity

    def checkpoint_identity(self, saved=None):
        return self.identity

    def forward(self, inputs, mode='tensor'):
        return dict(loss=self.linear(inputs).square().mean())

    def train_step(self, data, optim_wrapper):
        loss = self(torch.stack(data))['loss']
        optim_wrapper.update_params(loss)
        return dict(loss=loss)


class PlainModel(ToyModel):
    checkpoint_identity = property()  # hasattr() is False: a model that knows nothing of this package


class ObjectHook(Hook):
    """Adds what a validation and other hooks leave in a checkpoint."""

    def before_save_checkpoint(self, runner, checkpoint):
        checkpoint['meta']['score'] = np.float64(0.25)
        checkpoint['from_hook'] = object()


def make_runner(work_dir, max_iters=4, model=None, check_identity=True, **kwargs):
    torch.manual_seed(0)
    return Runner(
        model=model or ToyModel(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=ToyData(), batch_size=2, sampler=dict(type='InfiniteSampler', shuffle=False), num_workers=0
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=max_iters),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.01)),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=2),
            dict(type='PolyLR', power=0.9, by_epoch=False, begin=2, end=8),
            dict(type='CosineAnnealingLR', T_max=8, by_epoch=False, end=8),
        ],
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=4),
            logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
        ),
        custom_hooks=[dict(type='SafeCheckpointHook', check_identity=check_identity), ObjectHook()],
        randomness=dict(seed=0),
        experiment_name=f'toy {next(RUN)}',  # runners of one name would share their history
        default_scope='mmseg',
        **kwargs,
    )


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """The folder of a run of 4 iterations, its checkpoint, and its loss history."""
    work_dir = tmp_path_factory.mktemp('run')
    runner = make_runner(work_dir)
    runner.train()
    return work_dir / 'iter_4.pth', runner.message_hub.get_scalar('train/loss').data[0].copy()


def test_checkpoint_loads_with_weights_only(saved):
    path, losses = saved
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint['meta']['alignzeg'] == IDENTITY
    assert checkpoint['meta']['score'] == 0.25 and type(checkpoint['meta']['score']) is float
    # The names of what the model predicts, not of what the training data labels.
    assert checkpoint['meta']['dataset_meta'] == dict(classes=['cat', 'dog', 'fox'], unseen_classes=['fox'])
    assert checkpoint['from_hook'] is None
    history = checkpoint['message_hub']['log_scalars']['train/loss']
    assert history['log_history'].tolist() == losses.tolist()
    assert {'linear.weight', 'linear.bias'} == set(checkpoint['state_dict'])


def test_resume_continues_weights_schedule_and_history(saved, tmp_path):
    path, losses = saved
    resumed = make_runner(tmp_path / 'resumed', max_iters=6, load_from=str(path), resume=True)
    resumed.train()
    whole = make_runner(tmp_path / 'whole', max_iters=6)
    whole.train()
    history = resumed.message_hub.get_scalar('train/loss')
    assert isinstance(history, HistoryBuffer)
    assert resumed.iter == 6 and len(history.data[0]) == 6
    assert history.data[0][:4].tolist() == losses.tolist()
    # The learning rates are those of an uninterrupted run, so the schedulers were restored too.
    rates = [runner.message_hub.get_scalar('train/lr').data[0] for runner in (resumed, whole)]
    assert rates[0].tolist() == rates[1].tolist()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            dict(unseen_classes=['dog']),
            "`unseen_classes`: .* has 1 and the model 1, .* position 0 \\('fox' against 'dog'\\)",
        ),
        (dict(classes=['cat', 'dog', 'fox', 'owl']), "`classes`: .* 3 and the model 4, .*\\(nothing against 'owl'\\)"),
        (dict(templates='single'), "`templates`: the checkpoint has 'vild', the model 'single'"),
        (dict(clip='ViT-L-14:openai:def'), "`clip`: the checkpoint has 'ViT-B-16:openai:abc', the model 'ViT-L-14"),
    ],
)
def test_refuses_another_identity(saved, tmp_path, change, message):
    path, _ = saved
    runner = make_runner(tmp_path, model=ToyModel({**IDENTITY, **change}))
    with pytest.raises(ValueError, match=message) as error:
        runner.load_checkpoint(str(path))
    assert 'check_identity=False' in str(error.value) and '\n' not in str(error.value)


def test_names_every_difference(saved):
    other = dict(IDENTITY, templates='single', clip='other')
    assert [phrase.split(':')[0] for phrase in identity_differences(IDENTITY, other)] == ['`clip`', '`templates`']
    assert identity_differences(IDENTITY, dict(IDENTITY, classes=tuple(IDENTITY['classes']))) == []


def test_check_can_be_lowered_to_a_warning(saved, tmp_path, monkeypatch):
    path, _ = saved
    runner = make_runner(tmp_path, model=ToyModel(dict(IDENTITY, templates='single')), check_identity=False)
    lines = []
    monkeypatch.setattr(runner.logger, 'warning', lines.append)
    runner.load_checkpoint(str(path))
    assert len(lines) == 1 and "the model 'single'" in lines[0]


def test_checkpoint_without_identity_loads_with_a_warning(tmp_path, monkeypatch):
    path = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=ToyModel().state_dict()), path)
    runner = make_runner(tmp_path)
    lines = []
    monkeypatch.setattr(runner.logger, 'warning', lines.append)
    runner.load_checkpoint(str(path))
    assert len(lines) == 1 and "no `meta['alignzeg']`" in lines[0]


def test_model_without_identity_is_left_alone(saved, tmp_path):
    path, _ = saved
    make_runner(tmp_path, model=PlainModel()).load_checkpoint(str(path))
    checkpoint = dict(meta={}, message_hub={}, state_dict={})
    SafeCheckpointHook().before_save_checkpoint(make_runner(tmp_path, model=PlainModel()), checkpoint)
    assert 'alignzeg' not in checkpoint['meta']


class Level(IntEnum):
    HIGH = 3


class Colour(str, Enum):  # noqa: UP042 - str() of the older form is not its value
    RED = 'red'


def test_to_plain_survives_a_safe_load(tmp_path):
    value = OrderedDict(
        number=np.float32(0.5),
        flag=np.bool_(True),
        name=np.str_('cat'),
        level=Level.HIGH,
        colour=Colour.RED,
        raw=b'raw',
        device=torch.device('cpu'),
        path=Path('a') / 'b',
        words=np.array(['x', 'y']),
        grid=np.eye(2),
        config=ConfigDict(a=dict(b=(1, np.int64(2)))),
        names={'only'},
        none=None,
        dtype=torch.bfloat16,
    )
    torch.save(to_plain(value), tmp_path / 'plain.pth')
    loaded = torch.load(tmp_path / 'plain.pth', weights_only=True)
    assert torch.equal(loaded.pop('grid'), torch.eye(2, dtype=torch.float64))
    assert loaded == dict(
        number=0.5,
        flag=True,
        name='cat',
        level=3,
        colour='red',
        raw=b'raw',
        device=torch.device('cpu'),
        path=str(Path('a') / 'b'),
        words=['x', 'y'],
        config=dict(a=dict(b=(1, 2))),
        names=['only'],
        none=None,
        dtype=torch.bfloat16,
    )
    assert type(value['number']) is np.float32  # the original is untouched


def test_history_keeps_counts_and_its_limit():
    history = HistoryBuffer([1.0, 2.0, 4.0], [1, 2, 1], max_length=3)
    hub = dict(log_scalars=dict(loss=to_plain(history)))
    restore_history(hub)
    history.update(3.0)
    hub['log_scalars']['loss'].update(3.0)
    for restored, original in zip(hub['log_scalars']['loss'].data, history.data, strict=True):
        assert restored.tolist() == original.tolist()


def test_expanded_tensors_can_be_loaded_again(tmp_path):
    content = dict(meta={}, message_hub={'x': torch.zeros(1).expand(1000, 1000)})
    content['state_dict'] = {'linear.weight': torch.ones(1).expand(3000, 1000)}
    SafeCheckpointHook().before_save_checkpoint(make_runner(tmp_path, model=PlainModel()), content)
    torch.save(content, tmp_path / 'x.pth')
    loaded = read_checkpoint(tmp_path / 'x.pth')
    assert torch.equal(loaded['state_dict']['linear.weight'], torch.ones(3000, 1000))
    assert loaded['message_hub']['x'].stride() == (1000, 1)
    torch.save({'state_dict': {'x': torch.ones(1).expand(1000, 1000)}}, tmp_path / 'other.pth')  # by another program
    assert read_checkpoint(tmp_path / 'other.pth')['state_dict']['x'].shape == (1000, 1000)


def test_a_file_without_checksums_is_named(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({'state_dict': {'x': torch.ones(3)}}, tmp_path / 'x.pth')
    finally:
        torch.serialization.set_crc32_options(before)
    with pytest.raises(ValueError, match=r'set_crc32_options\(False\)'):
        read_checkpoint(tmp_path / 'x.pth')
