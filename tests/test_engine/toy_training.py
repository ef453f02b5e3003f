"""A training of a few milliseconds with the hooks of the shipped configs."""

import itertools
import os
import traceback
from pathlib import Path

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

RUN = itertools.count()


class Numbers(Dataset):
    metainfo = dict(classes=('cat', 'dog'))

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.full((2,), float(index))


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 64)

    def forward(self, inputs, mode='tensor'):
        return dict(loss=self.linear(inputs).square().mean())

    def train_step(self, data, optim_wrapper):
        loss = self(torch.stack(data))['loss']
        optim_wrapper.update_params(loss)
        return dict(loss=loss)

    def val_step(self, data):
        return [0]

    test_step = val_step


class Rising(BaseMetric):
    """A score that is better at every validation."""

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        self.score = getattr(self, 'score', 0) + 1
        return {'mIoU': self.score}


def toy_runner(work_dir, max_iters=4, validate=False, check_point=None, wrapper=None, **kwargs):
    """A runner of ``max_iters`` iterations that saves each of them and keeps one.

    Args:
        check_point: Changes of the arguments of the checkpoint hook.
        wrapper: Config of the optimizer wrapper, without the optimizer.
    """
    torch.manual_seed(0)
    loader = dict(dataset=Numbers(), batch_size=2, num_workers=0)
    if validate:
        held_out = {**loader, 'sampler': dict(type='DefaultSampler', shuffle=False)}
        kwargs.update(val_dataloader=held_out, val_cfg=dict(type='ValLoop'), val_evaluator=Evaluator(Rising()))
    hook = dict(type='WholeCheckpointHook', by_epoch=False, interval=1, max_keep_ckpts=1)
    return Runner(
        model=Line(),
        work_dir=str(work_dir),
        train_dataloader={**loader, 'sampler': dict(type='InfiniteSampler', shuffle=False)},
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=1),
        optim_wrapper={**(wrapper or dict(type='OptimWrapper')), 'optimizer': dict(type='AdamW', lr=0.01)},
        param_scheduler=[dict(type='PolyLR', power=0.9, by_epoch=False, end=8)],
        default_hooks=dict(
            checkpoint={**hook, **(check_point or {})}, logger=dict(type='LoggerHook', log_metric_by_epoch=False)
        ),
        custom_hooks=[dict(type='SafeCheckpointHook')],
        randomness=dict(seed=0),
        experiment_name=f'toy training {next(RUN)}',  # runners of one name would share their history
        default_scope='mmseg',
        log_level='WARNING',
        **kwargs,
    )


def in_child(work):
    """Do ``work()`` in a forked process; its exit code, 0 if it came back.

    It cannot train if ``torch.compile`` or an export ran in this process before: autograd's threads do not survive a
    fork. pytest-xdist hands out files with more tests first, so that this one's come before those that compile.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def files_of(folder: Path):
    """Names in a folder, without those of logs."""
    return sorted(path.name for path in folder.iterdir() if path.is_file())
