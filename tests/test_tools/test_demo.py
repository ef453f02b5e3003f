"""The demo, and with it `mim train`, `mim test` and `--resume`, as real processes on a few steps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SMALL = [
    'max_iters=3',
    'train_cfg.max_iters=3',
    'train_cfg.val_interval=3',
    'val_dataloader.dataset.length=4',
    'test_dataloader.dataset.length=4',
    'param_scheduler.0.end=1',
    'param_scheduler.1.begin=1',
    'param_scheduler.1.end=3',
    'default_hooks.checkpoint.interval=3',
]


def run(arguments, **environment):
    environment = {**os.environ, 'PYTHONWARNINGS': 'ignore', **environment}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, env=environment
    )


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('demo')
    cache = {'MMSEG_ALIGNZEG_CACHE': str(work_dir / 'cache')}
    done = run(['tools/demo.py', '--work-dir', work_dir, '--cfg-options', *SMALL], **cache)
    assert done.returncode == 0, done.stderr[-3000:]
    return work_dir, done, cache


def test_demo_trains_tests_and_draws(demo):
    work_dir, done, _ = demo
    result = json.loads((work_dir / 'result.json').read_text())
    assert {'pAcc', 'mIoU_seen', 'mIoU_unseen', 'hIoU', 'without_pbc', 'seconds'} == set(result)
    assert set(result['seconds']) == {'train', 'test', 'test_without_pbc', 'pictures'}
    assert all(0 <= result[key] <= 100 for key in ('pAcc', 'mIoU_seen', 'mIoU_unseen', 'hIoU'))
    assert (work_dir / 'contact_sheet.png').read_bytes().startswith(b'\x89PNG')
    assert 'with PBC' in done.stdout and 'hIoU' in done.stdout


def test_checkpoint_is_safe_and_without_clip(demo):
    work_dir, _, _ = demo
    checkpoint = torch.load(work_dir / 'iter_3.pth', weights_only=True)
    assert not any(name.startswith('clip.') for name in checkpoint['state_dict'])
    identity = checkpoint['meta']['alignzeg']
    assert len(identity['classes']) == 20 and len(identity['unseen_classes']) == 8
    assert identity['templates'] == 'vild' and identity['clip'].startswith('tiny_clip:')


def test_training_resumes(demo):
    work_dir, _, cache = demo
    options = [option.replace('max_iters=3', 'max_iters=5') for option in SMALL]
    train = ['-m', 'mim', 'train', 'mmseg', 'configs/alignzeg_patterns.py', '--gpus', 0, '--work-dir', work_dir]
    done = run([*train, '--resume', '--cfg-options', *options], **cache)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'resumed epoch: 0, iter: 3' in done.stdout and 'metainfo from the resumed' not in done.stdout
    assert (work_dir / 'iter_5.pth').is_file()


def test_checkpoint_of_another_vocabulary_is_refused(demo):
    work_dir, _, cache = demo
    test = ['-m', 'mim', 'test', 'mmseg', 'configs/alignzeg_patterns.py', '--gpus', 0, '--work-dir', work_dir / 'no']
    test += ['--checkpoint', work_dir / 'iter_3.pth', '--cfg-options', 'model.text.templates=single']
    done = run(test, **cache)
    line = "`templates`: the checkpoint has 'vild', the model 'single'"
    assert done.returncode != 0 and line in done.stdout + done.stderr
