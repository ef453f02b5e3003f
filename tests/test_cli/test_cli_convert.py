"""The converter as a user runs it: as a process, and where only the arguments matter, in this one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from alignzeg.cli import main

ROOT = Path(__file__).parents[2]


def run(*arguments):
    command = [sys.executable, '-m', 'alignzeg', 'convert', *map(str, arguments)]
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
    (line,) = done.stderr.splitlines()
    assert line.startswith('alignzeg: error: there is no folder /nowhere/VOC2012: ') and 'VOCtrainval_11-May' in line


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


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['ade847', '.', '--workers', '0'], "expected a number of at least 1, got '0'"),
        (['coco_stuff', '.', '--sbd', 'x'], 'unrecognized arguments: --sbd x'),
        (['cityscapes', '.'], "invalid choice: 'cityscapes'"),
        (['voc'], 'required: ROOT'),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_code:
        main(['convert', *arguments])
    assert exit_code.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize('dataset', ['voc', 'coco_stuff', 'context59', 'context459', 'ade847', 'msrc', 'ccp'])
def test_every_dataset_misses_its_originals(dataset, tmp_path, capsys):
    assert main(['convert', dataset, str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert (
        error.startswith('alignzeg: error: There is no ') and str(tmp_path.parent) in error and error.count('\n') == 1
    )
