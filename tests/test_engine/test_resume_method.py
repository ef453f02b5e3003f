"""The method, resumed and without the stop, to the bit: in one process, after kill -9, and in two processes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from resuming import COMPARED, outcome, same, train

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1', 'PATH': f'{BIN}{os.pathsep}{os.environ["PATH"]}'}


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
    """A folder for all runs: six images of 48 × 40 with bands of two classes, every third without any label."""
    root = tmp_path_factory.mktemp('shared')
    for i in range(6):
        labels = np.repeat(np.array([0, 1, 1, 255] if i % 3 else [255] * 4, dtype=np.uint8), 12)[None].repeat(40, 0)
        image = np.random.default_rng(i).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        for folder, values in (('images', image), ('labels', labels)):
            (root / folder).mkdir(exist_ok=True)
            Image.fromarray(values).save(root / folder / f'{i}.png')
    return root


def method(data, root, workers):
    """AlignZeg in the small, on its embedded world or on folders with the augmentation of the full-size configs."""
    cfg = Config.fromfile(ROOT / f'configs/{"alignzeg_patterns" if data == "patterns" else "_base_/folders_tiny"}.py')
    if data == 'patterns':
        cfg.val_dataloader.dataset.length = 2
    else:
        names = dict(classes=['sky', 'road', 'car'], unseen_classes=['car'])
        files = dict(data_root=str(root), img_suffix='.png', seg_map_suffix='.png', label_classes=names['classes'])
        files['data_prefix'] = dict(img_path='images', seg_map_path='labels')
        cfg.model.update(names)
        cfg.train_dataloader.dataset.update(files, metainfo=dict(classes=['sky', 'road'], unseen_classes=[]))
        cfg.val_dataloader.dataset.update(files, metainfo=names, indices=2)
        cfg.train_dataloader.dataset.pipeline.insert(4, dict(type='DropUnlabelled'))
    cfg.model.text = dict(templates='single')
    cfg.model.criterion.num_points = 64
    cfg.train_dataloader.update(batch_size=2, num_workers=workers, persistent_workers=workers > 0)
    cfg.val_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.train_cfg.update(max_iters=2, val_interval=1)
    cfg.param_scheduler = [dict(type='PolyLR', power=0.9, begin=0, end=2, by_epoch=False)]
    cfg.default_hooks.checkpoint.interval = 1
    return cfg


FIRST = {}  # of all numbers of workers


@pytest.mark.attack('resume: another result than without the stop')
@pytest.mark.parametrize(
    ('data', 'workers'),
    [
        ('folders', 0),
        ('folders', 2),
        pytest.param('folders', 1, marks=pytest.mark.slow),
        pytest.param('patterns', 1, marks=pytest.mark.slow),
    ],
)
def test_the_method_goes_on_as_if_it_had_not_stopped(shared, tmp_path, monkeypatch, data, workers):
    monkeypatch.setenv('MMSEG_ALIGNZEG_CACHE', str(shared / 'cache'))
    cfg = method(data, shared, workers)
    train(cfg, tmp_path / 'whole')
    expected = FIRST.setdefault(data, outcome(tmp_path / 'whole'))
    assert same(outcome(tmp_path / 'whole'), expected)
    train(cfg, tmp_path / 'resumed', tmp_path / 'whole/iter_1.pth')
    assert same(outcome(tmp_path / 'resumed'), expected)


@pytest.mark.slow
def test_validation_does_not_change_the_training(shared, tmp_path, monkeypatch):
    monkeypatch.setenv('MMSEG_ALIGNZEG_CACHE', str(shared / 'cache'))
    often, never = (method('folders', shared, 0) for _ in range(2))
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator'):
        never[key] = None
    results = []
    for cfg, name in ((often, 'often'), (never, 'never')):
        train(cfg, tmp_path / name, **({'train_cfg.val_interval': 1} if cfg is often else {}))
        results.append(outcome(tmp_path / name))
    assert all(same(results[0][key], results[1][key]) for key in COMPARED)
    assert 'val/hIoU' in results[0]['histories'] and 'val/hIoU' not in results[1]['histories']


@pytest.mark.slow
@pytest.mark.attack('resume: kill -9 of a training at a random moment')
def test_kill_9_at_random_moments_changes_nothing(shared, tmp_path, record_property):
    cfg = method('folders', shared, 2)
    cfg.train_cfg.update(max_iters=30, val_interval=7)
    cfg.param_scheduler[0].end = 30
    cfg.default_hooks.checkpoint.interval = 3
    cfg.dump(tmp_path / 'config.py')
    chance, kills = random.Random(0), 0

    def command(work_dir, *arguments):
        log = (tmp_path / f'{work_dir}.log').open('a')
        return subprocess.Popen(
            [BIN / 'mim', 'train', 'mmseg', 'config.py', '--gpus', '0', '--work-dir', work_dir, *arguments],
            cwd=tmp_path,
            env={**ENVIRONMENT, 'MMSEG_ALIGNZEG_CACHE': str(shared / 'cache')},
            stdout=log,
            stderr=log,
            start_new_session=True,  # so that all of it can be killed at once
        )

    whole = command('whole')
    assert whole.wait(400) == 0, (tmp_path / 'whole.log').read_text()[-3000:]
    for _ in range(20):
        process = command('killed', *(['--resume'] if kills else []))
        newest = max(checkpoints(tmp_path / 'killed'), default=0)
        while process.poll() is None and max(checkpoints(tmp_path / 'killed'), default=0) <= newest:
            time.sleep(0.1)
        try:
            process.wait(chance.uniform(0, 3))
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    record_property('tries', kills)
    assert process.returncode == 0 and kills > 0, (tmp_path / 'killed.log').read_text()[-3000:]
    assert same(outcome(tmp_path / 'killed', 30), outcome(tmp_path / 'whole', 30))


def checkpoints(work_dir):
    """Numbers of the iterations that are on disk."""
    return [int(file.stem.removeprefix('iter_')) for file in work_dir.glob('iter_*.pth')]


TWO = """
import sys
from pathlib import Path
import torch.distributed as dist
from mmengine.config import Config
import mmseg_alignzeg
from mmseg_alignzeg.engine.random_state import random_state
from resuming import outcome, same, train

rank, root = int(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group('gloo', init_method=f'file://{root}/meeting', rank=rank, world_size=2)
cfg = Config.fromfile(root / 'config.py')
train(cfg, root / 'whole', launcher='pytorch')
own = random_state()
train(cfg, root / 'resumed', root / 'whole/iter_1.pth', launcher='pytorch')
assert same(random_state(), own)
states = outcome(root / 'whole')['process_states']
assert same(outcome(root / 'resumed'), outcome(root / 'whole'))
assert len(states) == 2 and not same(*states) and same(states[rank]['random'], own)
print('agreed')
"""


@pytest.mark.slow
@pytest.mark.attack('resume: another result than without the stop')
def test_two_processes_go_on_as_if_they_had_not_stopped(shared, tmp_path):
    cfg = method('folders', shared, 1)
    cfg.merge_from_dict({'randomness.diff_rank_seed': True, 'train_dataloader.batch_size': 1})
    cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)  # of a CPU
    cfg.dump(tmp_path / 'config.py')
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get('PYTHONPATH')]))
    workers = [
        subprocess.Popen(
            [sys.executable, '-c', TWO, str(rank), str(tmp_path)],
            env={**ENVIRONMENT, 'PYTHONPATH': path, 'LOCAL_RANK': '0', 'MMSEG_ALIGNZEG_CACHE': str(shared / 'cache')},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for worker in workers:
        out, error = worker.communicate(timeout=500)
        assert worker.returncode == 0 and out.endswith('agreed\n'), error[-3000:]
