"""The analysis: a pass over three scenes as a real process, the same from its file, and what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from alignzeg.cli import main

ROOT = Path(__file__).parents[2]
CONFIG = 'configs/alignzeg_patterns.py'
SMALL = ['test_dataloader.dataset.length=4', 'test_dataloader.num_workers=0', 'model.text.templates=single']
NUMBERS = ('images', 'base', 'rows', 'masks', 'indicator', 'confusion', 'left_out')


@pytest.fixture
def analyze(monkeypatch, capsys):
    """Run the command in this process: its exit code and its output."""
    monkeypatch.setenv('COLUMNS', '120')

    def run(*arguments, options=()):
        code = main(['analyze', *map(str, arguments), '--cfg-options', *SMALL, *options])
        captured = capsys.readouterr()
        return code, captured.err if code else captured.out

    return run


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    model = MODELS.build({**Config.fromfile(CONFIG).model, 'text': {'templates': 'single'}})
    path = tmp_path_factory.mktemp('analysis') / 'random.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {'alignzeg': model.checkpoint_identity()}}, path)
    return path


@pytest.fixture(scope='module')
def done(checkpoint):
    arguments = [CONFIG, checkpoint, '--limit', 3, '--gammas', 0.45, 0.5, '--constants', 0.1, '--cfg-options', *SMALL]
    process = subprocess.run(
        [sys.executable, '-m', 'alignzeg', 'analyze', *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONWARNINGS': 'ignore'},
    )
    assert process.returncode == 0, process.stdout + process.stderr[-3000:]
    return process


def test_one_pass_writes_a_report_with_all_parts(done, checkpoint):
    folder = checkpoint.parent / 'analysis'
    assert {path.name for path in folder.iterdir()} == {'report.html', 'analysis.json', 'curves.csv', 'proposals.npz'}
    result = json.loads((folder / 'analysis.json').read_text())
    settings = [(row['gamma'], row['constant'], row['oracle'], row['own']) for row in result['rows']]
    assert settings == [
        (None, 0, False, False),
        (0.3, 0, False, True),
        (0.45, 0, False, False),
        (0.5, 0, False, False),
        (None, 0.1, False, False),
        (0.3, 0.1, False, False),
        (None, 0, True, False),
    ]
    assert result['images'] == 3 and result['about']['images'] == '3 of 4'
    assert result['about']['checkpoint'] == 'random.pth' and str(ROOT) not in (folder / 'report.html').read_text()
    assert 0 <= result['indicator']['auroc'] <= 1
    assert 'oracle classes' in done.stdout and 'report.html' in done.stdout


def test_the_file_gives_the_same_numbers_and_other_curves(analyze, done, checkpoint, tmp_path):
    source = checkpoint.parent / 'analysis/proposals.npz'
    arguments = [CONFIG, checkpoint, '--from', source, '--out', tmp_path, '--constants', 0.1, '--gammas']
    assert analyze(*arguments, 0.45, 0.5)[0] == 0
    ours, theirs = (json.loads((folder / 'analysis.json').read_text()) for folder in (tmp_path, source.parent))
    assert {key: ours[key] for key in NUMBERS} == {key: theirs[key] for key in NUMBERS}
    assert analyze(*arguments, 0.9, options=['model.bias_correction.gamma=0.7'])[0] == 0
    rows = json.loads((tmp_path / 'analysis.json').read_text())['rows']
    assert [row['gamma'] for row in rows] == [None, 0.7, 0.9, None, 0.7, None] and rows[1]['own']
    assert {path.name for path in tmp_path.iterdir()} == {'report.html', 'analysis.json', 'curves.csv'}


def test_a_model_without_indicator_and_data_without_unseen_classes(analyze, checkpoint, tmp_path):
    options = [
        'model.class_indicator=None',
        'model.bias_correction=None',
        'test_dataloader.dataset.metainfo.unseen_classes=[]',
    ]
    code, output = analyze(CONFIG, checkpoint, '--limit', 2, '--out', tmp_path, '--no-proposals', options=options)
    assert code == 0, output
    result = json.loads((tmp_path / 'analysis.json').read_text())
    assert len(result['left_out']) == 2 and all(sentence in output for sentence in result['left_out'])
    assert not (tmp_path / 'proposals.npz').exists() and 'γ' not in output


def test_a_random_clip_is_the_first_thing_said(analyze, checkpoint, tmp_path):
    identity = {'clip': 'tiny_clip:random', 'templates': 'single'}
    given = changed(checkpoint, tmp_path, lambda content: content['meta']['alignzeg'].update(identity))
    code, output = analyze(
        CONFIG, given, '--limit', 1, '--out', tmp_path, '--no-proposals', options=['model.clip.pretrained=None']
    )
    assert code == 0 and 'random CLIP, not results' in output, output
    page = (tmp_path / 'report.html').read_text()
    assert 0 < page.find('CLIP has random weights') < page.find('<table')


def changed(checkpoint, tmp_path, how):
    content = torch.load(checkpoint, weights_only=True)
    how(content)
    torch.save(content, tmp_path / 'changed.pth')
    return tmp_path / 'changed.pth'


@pytest.mark.parametrize(
    ('case', 'message'),
    [
        ('absent', 'does not exist'),
        ('vocabulary', "`templates`: the checkpoint has 'vild', the model 'single'"),
        ('weights', "'fusion.bias'"),
        ('text', 'is not a checkpoint that'),
        ('other proposals', 'another checkpoint (SHA-256'),
        ('gamma', 'gamma=1.5 is outside [0, 1]'),
        ('empty', 'The test set is empty'),
    ],
)
def test_errors_are_one_line(analyze, done, checkpoint, tmp_path, case, message):
    given, arguments, options = checkpoint, ['--out', tmp_path], []
    if case == 'absent':
        given = tmp_path / 'absent.pth'
    elif case == 'vocabulary':
        given = changed(checkpoint, tmp_path, lambda content: content['meta']['alignzeg'].update(templates='vild'))
    elif case == 'weights':
        given = changed(checkpoint, tmp_path, lambda content: content['state_dict'].pop('fusion.bias'))
    elif case == 'text':
        given = tmp_path / 'text.pth'
        given.write_text('no checkpoint')
    elif case == 'other proposals':
        given = changed(checkpoint, tmp_path, lambda content: content.update(more=1))
        arguments += ['--from', checkpoint.parent / 'analysis/proposals.npz']
    elif case == 'empty':
        options = ['test_dataloader.dataset.indices=0']
    else:
        arguments += ['--gammas', '1.5']
    code, output = analyze(CONFIG, given, *arguments, options=options)
    (line,) = [line for line in output.splitlines() if line.startswith('alignzeg: ')]
    assert code == 2 and message in line and 'Traceback' not in output


def test_the_file_holds_no_objects(done, checkpoint):
    with np.load(checkpoint.parent / 'analysis/proposals.npz', allow_pickle=False) as file:
        assert int(json.loads(str(file['meta']))['count']) == 3
        assert file['0000002/masks_0'].dtype == np.float32
