import inspect
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from alignzeg.apis import AlignZegInferencer
from alignzeg.apis.trained_models import load_model
from alignzeg.cli import main
from alignzeg.exchange import onnx as exchange_onnx
from alignzeg.exchange import save_weights
from mmseg_alignzeg.datasets.patterns import CLASSES, draw_scene
from mmseg_alignzeg.models import AlignZeg
from mmseg_alignzeg.vocabulary import Vocabulary

CONFIG = 'configs/alignzeg_patterns.py'


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / 'weights.safetensors'
    save_weights(load_model(None, None)[0], path)
    return str(path)


def test_a_folder_predicts_as_its_checkpoint(checkpoint, tmp_path, capsys):
    out = tmp_path / 'model'
    arguments = ['export', CONFIG, '--checkpoint', checkpoint, '--format', 'safetensors', '--out', str(out)]
    assert main(arguments) == 0
    assert f'alignzeg predict IMAGES --model {out}' in capsys.readouterr().out
    image = draw_scene(2, 0)[0]
    results = [AlignZegInferencer(*model)(image)[0].labels for model in ((str(out),), (CONFIG, checkpoint))]
    assert np.array_equal(*results)
    assert main(arguments) == 2 and 'config.json exists already' in capsys.readouterr().err
    assert main([*arguments, '--overwrite']) == 0


def test_onnx_gets_its_words_and_is_compared(tmp_path, capsys, monkeypatch):
    real = inspect.signature(exchange_onnx.export_onnx)
    asked, compared = [], []

    def export(*args, **kwargs):
        asked.append(real.bind(*args, **kwargs).arguments)
        return SimpleNamespace(vocabulary=Vocabulary(tuple(asked[-1]['classes'])))

    def compare(path, inferencer, images, **settings):
        compared.append((images, settings))
        return [0.99876, 0.98]

    monkeypatch.setattr(exchange_onnx, 'export_onnx', export)
    monkeypatch.setattr(exchange_onnx, 'compare_onnx', compare)
    out, photo = tmp_path / 'model.onnx', tmp_path / 'photo.png'
    Image.new('RGB', (40, 30)).save(photo)
    torn = tmp_path / 'torn.png'
    torn.write_bytes(photo.read_bytes()[:50])
    words = ['--classes', 'red stripes, blue checks', '--gamma', '0.5', '--no-pbc', '--compare', str(torn), str(photo)]
    assert main(['export', '--format', 'onnx', '--out', str(out), *words]) == 0
    agreed = '98.94% of the labels are those of `predict` (2 pictures, least 98.00%)'
    told = capsys.readouterr()
    assert told.out == f'{out}: 2 words; {agreed}\n' and f'not compared: {torn} cannot be read' in told.err
    assert main(['export', '--format', 'onnx', '--out', str(out), '--compare', str(torn)]) == 2
    assert '--compare names no picture that can be read' in capsys.readouterr().err and len(asked) == 1
    model = asked[0].pop('model')
    assert isinstance(model, AlignZeg) and next(model.parameters()).device.type == 'cpu'
    settings = dict(gamma=0.5, pbc=False)
    assert asked[0] == dict(classes=['red stripes', 'blue checks'], path=out, input_scale=(512, 128), **settings)
    assert compared == [([str(photo)], settings)]
    out.touch()
    assert main(['export', '--format', 'onnx', '--out', str(out)]) == 2
    assert 'model.onnx exists already' in capsys.readouterr().err
    assert main(['export', '--format', 'onnx', '--out', str(out), '--overwrite']) == 0
    assert asked[1]['classes'] == CLASSES and asked[1]['pbc'] is True
    shapes = {image.shape[:2] for image in compared[1][0]}  # of several sizes and ratios, if none are given
    assert len(shapes) > 3 and (360, 480) in shapes
    capsys.readouterr()
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    assert main(['export', '--format', 'onnx', '--out', str(out), '--overwrite']) == 0
    assert 'not compared with `predict`: pip install onnxruntime' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('text', 'message'),
    [('model = dict(', 'cannot be read: '), ('x = 1', 'has no `model`'), ('model = dict(type="No")', 'No')],
)
@pytest.mark.parametrize('command', [['export', '--format', 'safetensors'], ['predict', 'p.png', '--model']])
def test_a_faulty_config_is_one_line(checkpoint, tmp_path, capsys, command, text, message):
    config = tmp_path / 'config.py'
    config.write_text(text)
    Image.new('RGB', (9, 9)).save(tmp_path / 'p.png')
    command = [str(tmp_path / part) if part == 'p.png' else part for part in command]
    arguments = [*command, str(config), '--checkpoint', checkpoint, '--out', str(tmp_path / 'out')]
    assert main(arguments) == 2
    told = capsys.readouterr().err.splitlines()
    assert message in told[-1] and told[-1].startswith('alignzeg: error: ') and 'Traceback' not in ''.join(told)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--format', 'safetensors'], 'safetensors are written from a config and its checkpoint'),
        ([CONFIG, '--format', 'safetensors'], 'needs its weights'),
        (['--checkpoint', 'a.pth', '--format', 'onnx'], 'the checkpoint a.pth needs the config'),
        ([CONFIG, '--checkpoint', 'README.md', '--format', 'safetensors', '--classes', 'a'], '--format onnx only'),
        ([CONFIG, '--checkpoint', 'no.pth', '--format', 'safetensors'], "no checkpoint 'no.pth'"),
        (['nowhere', '--format', 'onnx'], "'nowhere' does not exist"),
        (['--format', 'onnx', '--classes', 'a,,b'], 'word 2 of 3 is empty'),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, capsys, arguments, message):
    assert main(['export', *arguments, '--out', str(tmp_path / 'out')]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count('\n') == 1 and captured.out == ''
    assert not (tmp_path / 'out').exists()
