"""The converter as a user runs it: as a process, and where only the arguments matter, in this one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

ROOT = Path(__file__).parents[2]


def run(*arguments):
    command = [sys.executable, 'tools/convert_dataset.py', *map(str, arguments)]
    environment = {**os.environ, 'PYTHONWARNINGS': 'ignore'}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


def write_png(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, dtype=np.uint8)).save(path)


def test_all_done_then_all_skipped(tmp_path):
    write_png(tmp_path / 'annotations/val2017/1.png', [[0, 12], [181, 255]])
    done = run('coco_stuff', tmp_path, '--workers', 1, '--out', tmp_path / 'out')
    assert done.returncode == 0 and '1 done, 0 skipped, 0 failed' in done.stdout, done.stderr
    target = tmp_path / 'out/annotations/val2017/1_labelTrainIds.png'
    assert np.asarray(Image.open(target)).tolist() == [[0, 11], [170, 255]]
    again = run('coco_stuff', tmp_path, '--out', tmp_path / 'out')
    assert again.returncode == 0 and '0 done, 1 skipped, 0 failed' in again.stdout


def test_a_missing_root():
    done = run('voc', '/nowhere/VOC2012')
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        'There is no folder /nowhere/VOC2012: pass the folder VOC2012 of VOCtrainval_11-May-2012.tar.'
    ]


def test_some_failed(tmp_path):
    (tmp_path / 'trainval').mkdir()
    savemat(tmp_path / 'trainval/a.mat', {'LabelMap': np.array([[1, 459]], dtype=np.uint16)})
    savemat(tmp_path / 'trainval/b.mat', {'LabelMap': np.array([[1, 460]], dtype=np.uint16)})
    (tmp_path / 'val.txt').write_text('a\nb\n')
    done = run('context459', tmp_path, '--val-list', tmp_path / 'val.txt')
    assert done.returncode == 1
    assert f'FAILED {tmp_path}/trainval/b.mat: the file contains label values' in done.stdout
    assert '1 done, 0 skipped, 1 failed' in done.stdout and 'Traceback' not in done.stderr
    folder = tmp_path / 'annotations_detectron2/pc459_val'
    assert [path.name for path in folder.iterdir()] == ['a.tif']


@pytest.fixture(scope='module')
def script(load_tool):
    return load_tool('convert_dataset')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['ade847', '/nowhere', '--workers', '0'], "expected a number of at least 1, got '0'"),
        (['coco_stuff', '/nowhere', '--sbd', 'x'], 'unrecognized arguments: --sbd x'),
        (['cityscapes', '/nowhere'], "invalid choice: 'cityscapes'"),
        (['voc'], 'required: ROOT'),
    ],
)
def test_wrong_arguments(script, arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_code:
        script.main(arguments)
    assert exit_code.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize('dataset', ['voc', 'coco_stuff', 'context59', 'context459', 'ade847', 'msrc', 'ccp'])
def test_every_dataset_misses_its_originals(script, dataset, tmp_path, capsys):
    assert script.main([dataset, str(tmp_path / 'nowhere')]) == 2
    error = capsys.readouterr().err
    assert error.startswith('There is no folder ') and str(tmp_path) in error and error.count('\n') == 1
