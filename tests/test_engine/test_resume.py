"""The corners of resuming, with a toy that draws from every random generator, in training and in validation."""

import random
import re

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmseg.registry import DATASETS, METRICS, MODELS
from resuming import COMPARED, outcome, same, train
from torch.utils.data import Dataset

from mmseg_alignzeg.engine import ResumableTrainLoop


class ToyData(Dataset):
    metainfo = dict(classes=('cat', 'dog'))

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return torch.tensor([float(index), np.random.rand(), random.random()]) + torch.rand(3)


class ToyModel(BaseModel):
    """Draws from every generator, in training and in validation."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 1)

    def forward(self, inputs, mode='tensor'):
        return self.linear(inputs + torch.randn(3) * np.random.randn() + random.gauss(0, 1)).square().mean()

    def train_step(self, data, optim_wrapper):
        loss = self(torch.stack(data))
        optim_wrapper.update_params(loss)
        return dict(loss=loss)

    def val_step(self, data):
        return [dict(drawn=self(torch.stack(data)).item())]


class ToyMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return dict(drawn=results[-1]['drawn'], mIoU=-len(self.results))


@pytest.fixture(scope='module', autouse=True)
def _registered():
    for registry, member in ((DATASETS, ToyData), (MODELS, ToyModel), (METRICS, ToyMetric)):
        registry.register_module(module=member, force=True)


def toy(end=9, **changes):
    """Nine steps, three of which make an update; validated and saved at every third."""
    loader = dict(dataset=dict(type='ToyData'), batch_size=2, num_workers=0)
    shuffled, sorted_ = (dict(type='InfiniteSampler'), dict(type='DefaultSampler', shuffle=False))
    cfg = dict(
        default_scope='mmseg',
        model=dict(type='ToyModel'),
        train_dataloader=dict(loader, sampler=shuffled),
        train_cfg=dict(type='ResumableTrainLoop', max_iters=end, val_interval=3),
        val_dataloader=dict(loader, sampler=sorted_),
        val_cfg=dict(),
        val_evaluator=dict(type='ToyMetric'),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.01)),
        param_scheduler=[dict(type='PolyLR', power=0.9, begin=0, end=end, by_epoch=False)],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=3),
        ),
        custom_hooks=[dict(type='SafeCheckpointHook'), dict(type='RandomStateHook')],
        randomness=dict(seed=3),
    )
    cfg = Config(cfg)
    cfg.merge_from_dict(changes)
    return cfg


def validations(runner):
    """The score of each validation."""
    return runner.message_hub.get_scalar('val/drawn').data[0].tolist()


CORNERS = {
    'plain': {},
    'saved in the middle of an accumulation': {'optim_wrapper.accumulative_counts': 4},
    'saved again when scores are known': {'default_hooks.checkpoint.save_best': 'mIoU'},
    'a seed by lot': {'randomness.seed': None},
    'a seed for each process': {'randomness.diff_rank_seed': True},
    'a sampler that ends': {'train_dataloader.sampler.type': 'DefaultSampler'},
    'workers that end with the data': {'train_dataloader.num_workers': 1},
}


@pytest.mark.attack('resume: another result than without the stop')
@pytest.mark.parametrize('corner', CORNERS)
def test_corners_go_on_as_if_there_had_been_no_stop(tmp_path, corner, record_property):
    cfg = toy(**CORNERS[corner])
    scores = validations(train(cfg, tmp_path / 'whole'))
    expected = outcome(tmp_path / 'whole', 9)
    assert len(scores) == 3
    record_property('tries', 3)
    for stop in (3, 6, 9):
        resumed = train(cfg, tmp_path / f'{stop}', tmp_path / f'whole/iter_{stop}.pth')
        assert validations(resumed) == scores
        assert stop == 9 or same(outcome(tmp_path / f'{stop}', 9), expected)


def test_validation_that_draws_does_not_change_the_training(tmp_path):
    results = []
    for often in (1, 2, 100):
        train(toy(**{'train_cfg.val_interval': often}), tmp_path / f'{often}')
        results.append({key: outcome(tmp_path / f'{often}', 9)[key] for key in COMPARED})
    assert same(results[0], results[1]) and same(results[0], results[2])


@pytest.mark.parametrize('save_best', [None, 'mIoU'])
def test_a_validation_that_the_stop_came_before_is_made_once(tmp_path, save_best):
    cfg = toy(3, **{'default_hooks.checkpoint.save_best': save_best})
    scores = validations(train(cfg, tmp_path / 'whole'))
    resumed = train(cfg, tmp_path / 'resumed', tmp_path / 'whole/iter_3.pth')
    assert resumed.iter == 3 and validations(resumed) == scores and len(scores) == 1


def test_data_that_were_trained_are_not_loaded_again(tmp_path, monkeypatch):
    loaded = []
    original = ToyData.__getitem__
    monkeypatch.setattr(ToyData, '__getitem__', lambda self, index: (loaded.append(index), original(self, index))[1])
    cfg = toy(val_cfg=None, val_dataloader=None, val_evaluator=None)
    train(cfg, tmp_path / 'whole')
    whole = loaded.copy()
    loaded.clear()
    train(cfg, tmp_path / 'resumed', tmp_path / 'whole/iter_6.pth')
    assert len(whole) == 18 and loaded == whole[12:]


def test_weights_alone_are_no_reason_to_restore(tmp_path):
    train(toy(3), tmp_path / 'whole')
    checkpoint = tmp_path / 'whole/iter_3.pth'
    outcomes = []
    for name, seed in (('first', 3), ('second', 4)):
        train(toy(3, load_from=str(checkpoint), **{'randomness.seed': seed}), tmp_path / name)
        outcomes.append(outcome(tmp_path / name, 3))
    assert not same(outcomes[0]['process_states'], outcomes[1]['process_states'])


@pytest.mark.parametrize(
    ('states', 'reason'),
    [
        (None, 'the checkpoint has none'),
        ([{}, {}], r'written by 2 '),
        ([{'random': {}, 'gradients': {}}], 'KeyError'),
        (7, 'is not a list'),
        ([7], 'TypeError'),
    ],
)
def test_a_checkpoint_without_usable_states_is_resumed_with_one_warning(tmp_path, caplog, states, reason):
    train(toy(6), tmp_path / 'whole')
    checkpoint = torch.load(tmp_path / 'whole/iter_3.pth', weights_only=True)
    del checkpoint['process_states'], checkpoint['message_hub']['runtime_info']['data_seed']
    if states is not None:
        checkpoint['process_states'] = states
    torch.save(checkpoint, tmp_path / 'old.pth')
    runner = train(toy(6), tmp_path / 'resumed', tmp_path / 'old.pth')
    log = next((tmp_path / 'resumed').rglob('*.log')).read_text()
    lines = [line for line in log.splitlines() if 'random state' in line]
    assert runner.iter == 6 and len(lines) == 1 and re.search(f'WARNING.*{reason}', lines[0])


def test_a_data_loader_that_cannot_begin_anywhere_is_refused():
    for loader in (object(), dict(sampler=object())):
        with pytest.raises(TypeError, match='needs `train_dataloader` and its `sampler` as configs'):
            ResumableTrainLoop(None, loader, max_iters=1)


def test_another_batch_size_goes_on_behind_the_last_sample(tmp_path):
    train(toy(end=3), tmp_path / 'first')  # six samples
    cfg = toy(end=5, **{'train_dataloader.batch_size': 4})
    runner = train(cfg, tmp_path / 'second', resume=tmp_path / 'first/iter_3.pth')
    assert runner.train_loop.dataloader.batch_sampler.sampler.start == 6
    assert runner.message_hub.get_info('used_samples') == 6 + 2 * 4
