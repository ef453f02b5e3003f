"""A checkpoint is data at every entry point: neither its pickle nor the configs within it are ever run."""

import http.server
import os
import shutil
import threading
import zipfile
from functools import partial
from pathlib import Path

import mmengine.runner
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.model import BaseModule
from mmseg.apis import MMSegInferencer, init_model
from mmseg.registry import MODELS
from PIL import Image
from toy_training import Line, Numbers, Rising, toy_runner

from alignzeg.apis import AlignZegInferencer
from alignzeg.apis.trained_models import build_trained
from alignzeg.cli import main
from alignzeg.exchange import load_weights
from mmseg_alignzeg.datasets.patterns import draw_scene
from mmseg_alignzeg.engine import read_checkpoint
from mmseg_alignzeg.models.clip_source import CLIPSource

CONFIG = 'configs/alignzeg_patterns.py'


@pytest.fixture(autouse=True)
def _careless_libraries(monkeypatch):
    """``torch.load`` without ``weights_only=True`` runs pickles here, as it does in a fork of MMEngine."""
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Checkpoints of a toy training, and of the embedded world's model."""
    folder = tmp_path_factory.mktemp('trained')
    toy_runner(folder / 'toy', 2).train()
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(CONFIG).model)
    meta = {'alignzeg': model.checkpoint_identity(), 'dataset_meta': {'classes': ['cat'], 'palette': [[0, 0, 0]]}}
    content = {'state_dict': model.state_dict(), 'meta': meta, 'message_hub': {}}
    torch.save(content, folder / 'model.pth')
    return folder / 'toy/iter_2.pth', folder / 'model.pth'


class Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture(params=['pickle', 'old pickle', 'config'])
def bombs(request, trained, tmp_path):
    """The two checkpoints with code that makes the folder ``ran``, and whether reading them must fail."""
    paths = []
    for path in trained:
        content = torch.load(path, weights_only=True)
        if request.param == 'config':
            code = f'__import__("os").mkdir({str(tmp_path / "ran")!r})\nmodel = dict()'
            content['meta'].update(config=code, cfg=code)
            content['message_hub'].setdefault('runtime_info', {})['cfg'] = code
        else:
            content['meta']['note'] = Code(tmp_path / 'ran')
        (tmp_path / 'bombs').mkdir(exist_ok=True)
        paths.append(tmp_path / 'bombs' / path.name)
        torch.save(content, paths[-1], _use_new_zipfile_serialization=request.param != 'old pickle')
    return *paths, request.param != 'config'


def auto_resume(toy, _, folder):
    work_dir = folder / 'run'
    work_dir.mkdir()
    shutil.copy(toy, work_dir / 'iter_2.pth')
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'iter_2.pth'))
    toy_runner(work_dir, 3, resume=True).train()


def resume_from(toy, _, folder):
    toy_runner(folder / 'run', 3, load_from=str(toy), resume=True).train()


def load_from(toy, _, folder):
    toy_runner(folder / 'run', 1, load_from=str(toy)).train()


def test_loop(toy, model, folder):
    loader = dict(dataset=Numbers(), batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False))
    tested = dict(test_dataloader=loader, test_cfg=dict(type='TestLoop'), test_evaluator=Evaluator(Rising()))
    toy_runner(folder / 'run', load_from=str(toy), **tested).test()


def load_checkpoint(toy, *_):
    mmengine.runner.load_checkpoint(Line(), str(toy))


def pretrained_part(toy, *_):
    BaseModule(init_cfg=dict(type='Pretrained', checkpoint=str(toy))).init_weights()


def web_address(toy, _, folder):
    torch.hub.set_dir(folder / 'hub')
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=toy.parent)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            mmengine.runner.load_checkpoint(Line(), f'http://127.0.0.1:{server.server_port}/{toy.name}')
        finally:
            server.shutdown()


def mmseg_init_model(_, model, __):
    init_model(CONFIG, str(model), device='cpu')


def mmseg_inferencer(_, model, __):
    MMSegInferencer(CONFIG, weights=str(model), device='cpu')


def inferencer(_, model, __):
    AlignZegInferencer(CONFIG, model, device='cpu')


def weights(_, model, __):
    load_weights(MODELS.build(Config.fromfile(CONFIG).model), model)


def clip_weights(_, model, __):
    CLIPSource('tiny_clip', str(model)).load_vision()


def clip_text_weights(_, model, __):
    CLIPSource('tiny_clip', str(model)).load_full()


def predict(_, model, folder):
    Image.fromarray(draw_scene(2, 0)[0]).save(folder / 'scene.png')
    arguments = ['--model', CONFIG, '--checkpoint', str(model), '--out', str(folder / 'out')]
    assert main(['predict', str(folder / 'scene.png'), *arguments]) == 0


def export(_, model, folder):
    assert main(['export', CONFIG, '--checkpoint', str(model), '--format', 'safetensors', '--out', str(folder)]) == 0


ENTRIES_OF_CODE = [
    auto_resume,
    resume_from,
    load_from,
    test_loop,
    load_checkpoint,
    pretrained_part,
    web_address,
    mmseg_init_model,
    mmseg_inferencer,
    inferencer,
    weights,
    clip_weights,
    clip_text_weights,
    predict,
    export,
]
test_loop.__test__ = False


@pytest.mark.attack('checkpoints: code in a pickle or config')
@pytest.mark.parametrize('entry', ENTRIES_OF_CODE, ids=lambda entry: entry.__name__)
def test_no_code_runs(entry, bombs, tmp_path):
    toy, model, must_fail = bombs
    try:
        entry(toy, model, tmp_path)
    except Exception as error:
        assert must_fail or entry in (mmseg_inferencer, clip_weights, clip_text_weights), error
    else:
        assert not must_fail
    assert not (tmp_path / 'ran').exists()


@pytest.mark.attack('checkpoints: code in a pickle or config')
def test_no_code_runs_in_the_analysis(bombs, tmp_path):
    _, model, must_fail = bombs
    if must_fail:
        with pytest.raises(ValueError, match='is not a checkpoint that'):
            build_trained(Config.fromfile(CONFIG), model)
    else:
        build_trained(Config.fromfile(CONFIG), model)
    assert not (tmp_path / 'ran').exists()


def test_the_code_would_run(bombs, tmp_path):
    content = torch.load(bombs[0], weights_only=False)
    if not bombs[2]:
        Config.fromstring(content['meta']['config'], '.py')
    assert (tmp_path / 'ran').exists()


def compressed(path):
    with zipfile.ZipFile(path) as archive:
        content = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data + bytes(100_000_000 if name.endswith('/0') else 0))


def laughter():
    value = ['ha'] * 10
    for _ in range(20):
        value = [value] * 10
    return value


def deep():
    value = 1
    for _ in range(50):
        value = {'x': value}
    return value


HOSTILE = {
    'a list': [1],
    'weights a list': {'state_dict': [1]},
    'weights with numbers for names': {'state_dict': {1: torch.zeros(1)}},
    'meta a text': {'state_dict': {}, 'meta': 'x'},
    'a laugh of 10 ** 21 entries': {'state_dict': {}, 'meta': {'x': laughter()}},
    'deep': {'state_dict': {}, 'meta': deep()},
    'a tensor of a terabyte': {'state_dict': {'x': torch.zeros(1).expand(1 << 38)}},
    'tensors of a terabyte together': {'state_dict': {f'{i}': torch.zeros(1).expand(1 << 24) for i in range(9)}},
    'a tensor of nothing': {'state_dict': {'x': torch.zeros(1 << 20, device='meta')}},
    'a sparse tensor': {'state_dict': {'x': torch.zeros(2, 2).to_sparse()}},
}


@pytest.mark.attack('checkpoints: hostile content')
@pytest.mark.parametrize('content', HOSTILE.values(), ids=HOSTILE)
def test_content_that_is_no_checkpoint(content, tmp_path):
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r'x\.pth is not a checkpoint that') as caught:
        read_checkpoint(tmp_path / 'x.pth')
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


@pytest.mark.attack('checkpoints: hostile content')
@pytest.mark.parametrize(
    'identity',
    [
        5,
        [],
        {1: 2},
        {'classes': 7},
        {'classes': torch.arange(3)},
        {'clip': torch.arange(3)},
        {'x' * 10**6: 'y' * 10**6},
    ],
    ids=range(7),
)
def test_identities_of_other_kinds(identity, trained, tmp_path):
    content = torch.load(trained[1], weights_only=True)
    content['meta']['alignzeg'] = identity
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r'x\.pth (does not record|and the model differ)') as caught:
        load_weights(MODELS.build(Config.fromfile(CONFIG).model), tmp_path / 'x.pth')
    assert str(caught.value).isprintable() and len(str(caught.value)) < 2000


@pytest.mark.attack('checkpoints: hostile content')
def test_an_archive_that_grows(trained, tmp_path):
    shutil.copy(trained[0], tmp_path / 'x.pth')
    compressed(tmp_path / 'x.pth')
    assert (tmp_path / 'x.pth').stat().st_size < 2_000_000
    with pytest.raises(ValueError, match='its data are compressed'):
        read_checkpoint(tmp_path / 'x.pth')


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    for path in (tmp_path, tmp_path / 'pipe', tmp_path / 'none', Path('/dev/zero')):
        with pytest.raises(FileNotFoundError, match='There is no checkpoint'):
            read_checkpoint(path)
