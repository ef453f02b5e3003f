"""Several processes train as one, also when some of them have nothing to match."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import torch
import torch.distributed as dist
import mmseg_alignzeg
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

rank = int(sys.argv[1])
dist.init_process_group('gloo', init_method=f'file://{sys.argv[2]}', rank=rank, world_size=2)
init_default_scope('mmseg')
cfg = Config.fromfile('configs/alignzeg_patterns.py')
cfg.model.criterion.num_points = 128
torch.manual_seed(0)
model = MODELS.build(cfg.model).train()
wrapped = MMDistributedDataParallel(model, find_unused_parameters=False)
optim_wrapper = build_optim_wrapper(wrapped, cfg.optim_wrapper)
torch.manual_seed(rank)
for _ in range(2):
    labels = torch.full((1, 64, 64), 255) if rank else torch.randint(0, 12, (1, 2, 2)).repeat_interleave(
        32, 1).repeat_interleave(32, 2)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=labels))]
    losses = wrapped.train_step(dict(inputs=[torch.randint(0, 256, (3, 64, 64))], data_samples=samples), optim_wrapper)
    assert all(loss.isfinite() for loss in losses.values())
weights = torch.cat([param.detach().flatten() for param in model.parameters() if param.requires_grad])
both = [torch.zeros_like(weights) for _ in range(2)]
dist.all_gather(both, weights)
assert torch.equal(*both)
print('agreed')
"""


def run(command, size, meeting, expected):
    """Run a command in ``size`` processes, each with its rank."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'}
    workers = [
        subprocess.Popen(
            [sys.executable, *command(rank), str(meeting)],
            cwd=Path(__file__).parents[2],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    for worker in workers:
        out, error = worker.communicate(timeout=500)
        assert worker.returncode == 0 and expected in out, error[-3000:]


def test_two_processes_agree_although_one_has_no_labels(tmp_path):
    run(lambda rank: ['-c', SCRIPT, str(rank)], 2, tmp_path / 'meeting', 'agreed')


@pytest.mark.attack('ranks: some are blank, one has a foreign label or a loss that is not finite')
@pytest.mark.parametrize('size', [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_equal_one_with_the_whole_batch(tmp_path, size):
    """Losses and gradients of every term; what one rank cannot train on ends or skips the step of all."""
    script = str(Path(__file__).with_name('worlds.py'))
    run(lambda rank: [script, str(rank), str(size)], size, tmp_path / 'meeting', 'equal')
