"""What the tests of resuming share: a run, and what two runs are compared by."""

import itertools
import random

import numpy as np
import torch
from mmengine.runner import Runner

RUN = itertools.count()
COMPARED = ('state_dict', 'optimizer', 'param_schedulers', 'process_states')


def same(first, second):
    """Whether two values of a checkpoint are equal, tensors to the bit."""
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and first.equal(second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def outcome(work_dir, end=2):
    """All of a checkpoint that the clock does not change."""
    checkpoint = torch.load(work_dir / f'iter_{end}.pth', weights_only=True)
    scalars = checkpoint['message_hub']['log_scalars']
    histories = {name: values for name, values in scalars.items() if 'time' not in name}
    assert 'train/lr' in histories and len(histories['train/loss']['log_history']) == end
    return {**{key: checkpoint[key] for key in COMPARED}, 'histories': histories}


def train(cfg, work_dir, resume=None, launcher='none', **changes):
    """Run a config, from a checkpoint if one is given, and give the runner."""
    cfg = cfg.copy()
    cfg.merge_from_dict(changes)
    cfg.work_dir, cfg.launcher = str(work_dir), launcher
    cfg.experiment_name = f'resume {next(RUN)}'  # runners of one name would share their history
    if resume:
        cfg.update(load_from=str(resume), resume=True)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(next(RUN))  # what a process has drawn before must not matter
    runner = Runner.from_cfg(cfg)
    runner.train()
    loop = runner.train_loop
    loop.dataloader_iterator = loop.dataloader._iterator = None  # ends its workers; later, each would take 5 s
    return runner
