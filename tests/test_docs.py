"""The pages of docs: the example with mmseg runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from PIL import Image

from alignzeg.apis import AlignZegInferencer
from alignzeg.exchange import load_weights
from mmseg_alignzeg.datasets.patterns import draw_scene
from mmseg_alignzeg.models.clip_source import ASSETS

ROOT = Path(__file__).parents[1]


@pytest.fixture
def clone(tmp_path):
    """What the example of docs/mmseg.md needs: configs, a checkpoint with the shipped weights, and a scene."""
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    model = MODELS.build(Config.fromfile('configs/alignzeg_patterns.py').model)
    load_weights(model, ASSETS / 'patterns/model.safetensors')
    identity = model.checkpoint_identity()
    meta = {'alignzeg': identity, 'dataset_meta': {'classes': identity['classes'], 'palette': [[9, 9, 9]] * 20}}
    (tmp_path / 'work_dirs/demo').mkdir(parents=True)
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, tmp_path / 'work_dirs/demo/iter_1000.pth')
    (tmp_path / 'alignzeg_demo/scenes').mkdir(parents=True)
    Image.fromarray(draw_scene(2, 4)[0]).resize((200, 160)).save(tmp_path / 'alignzeg_demo/scenes/scene_4.png')
    return tmp_path


def test_the_example_with_mmseg_runs_in_a_new_process_and_equals_our_inferencer(clone):
    code = (ROOT / 'docs/mmseg.md').read_text().partition('```python\n')[2].partition('```')[0]
    environment = {**os.environ, 'PYTHONWARNINGS': 'ignore'}
    code += "\nimport numpy\nnumpy.save('labels.npy', labels)\n"
    done = subprocess.run([sys.executable, '-c', code], cwd=clone, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    inferencer = AlignZegInferencer(device='cpu')
    scene = clone / 'alignzeg_demo/scenes/scene_4.png'
    np.testing.assert_array_equal(
        np.asarray(Image.open(clone / 'results/pred/00000000_pred.png')), inferencer(scene)[0].labels
    )
    two = inferencer(scene, classes=['red grid', 'green checks'])[0]
    np.testing.assert_array_equal(np.load(clone / 'labels.npy'), two.labels)
    assert (clone / 'overlay.png').stat().st_size and (clone / 'results/vis/scene_4.png').stat().st_size
