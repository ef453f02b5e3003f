"""Memory over 500 predictions and over 500 training steps, after as many to warm up: the slope of a line through it.

The warm-up is long because checkpoints fragment the heap: resident memory grows for some 400 steps and then stands
still.

A step that keeps anything keeps at least one array of its picture. The smallest is the uint8 label map of 128 × 128
pixels, 16 KiB, so the slope must stay below half of that. What is left to a healthy process is the noise of the
allocator and MMEngine's log history (some 10 numbers a step). Checkpoints are saved every 10 steps, because of them too
none may stay in memory.
"""

import gc
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from scipy.stats import theilslopes

from alignzeg.apis import AlignZegInferencer
from mmseg_alignzeg.datasets.patterns import draw_scene

WARM, STEPS = 500, 500
BOUND = 128 * 128 // 2  # bytes per step
pytestmark = pytest.mark.slow


def resident():
    """Bytes of memory that this process has now, without pages of files, which the system takes back when it likes."""
    gc.collect(0)
    fields = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())
    return sum(int(fields[name].split()[0]) * 1024 for name in ('RssAnon', 'VmSwap'))


def slope(sizes):
    """Bytes per step, of a line through what follows the warm-up, in which caches fill.

    It is the median of the slopes of all pairs: unlike least squares, single large blocks that the allocator takes or
    gives back do not move it.
    """
    return float(theilslopes(sizes[WARM:]).slope)


def test_a_leak_of_one_label_map_a_step_is_seen():
    rng = np.random.default_rng(0)
    steps = np.arange(WARM + STEPS)
    noise = 2e6 * (rng.random(len(steps)) < 0.1) + 3e6 * (steps > 900)  # blocks that come and go, and one that stays
    assert slope(noise) < BOUND < slope(noise + 2 * BOUND * steps)


@pytest.mark.attack('leaks: 500 predictions')
def test_predictions_leave_nothing_behind(record_property):
    """Pictures of several sizes and 24 vocabularies, which are more than stay in memory."""
    inferencer = AlignZegInferencer(device='cpu')
    scenes = [draw_scene(2, index, size)[0] for index, size in enumerate((96, 128, 160))]
    sizes = []
    for step in range(WARM + STEPS):
        words = ['red stripes', f'thing {step % 24}']
        (found,) = inferencer(scenes[step % 3], words, proposals=step % 5 == 0, others=True)
        assert found.labels.shape == scenes[step % 3].shape[:2]
        sizes.append(resident())
    record_property('tries', STEPS)
    print(f'{slope(sizes):.0f} bytes per prediction')
    assert slope(sizes) < BOUND


class Memory(Hook):
    priority = 'LOWEST'

    def __init__(self):
        self.sizes = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.sizes.append(resident())


@pytest.mark.attack('leaks: 500 training steps')
def test_training_steps_leave_nothing_behind(tmp_path, record_property):
    cfg = Config.fromfile('configs/alignzeg_patterns.py')
    cfg.work_dir = str(tmp_path)
    cfg.train_cfg.update(max_iters=WARM + STEPS, val_interval=2 * (WARM + STEPS))
    cfg.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    cfg.default_hooks.checkpoint.interval = 10
    runner = Runner.from_cfg(cfg)
    memory = Memory()
    runner.register_hook(memory)
    runner.train()
    assert len(memory.sizes) == WARM + STEPS
    record_property('tries', STEPS)
    print(f'{slope(memory.sizes):.0f} bytes per training step')
    assert slope(memory.sizes) < BOUND
