"""Every place that MMEngine loads from is read as data, and models that others published load."""

import argparse
import operator
import os
import shlex
import subprocess
import sys

import mmengine.runner.checkpoint as mmengine_checkpoint
import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint
from toy_training import Line, toy_runner

from mmseg_alignzeg.engine import checkpoint_sources, read_checkpoint

HUBS = ['open-mmlab://m', 'openmmlab://m', 'mmcls://m', 'modelzoo://m', 'torchvision://m']
STORES = ['s3://b/m.pth', 'cluster:s3://b/m.pth', 'petrel://b/m.pth']


class Code:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture(params=['web', 'home'])
def places(request, tmp_path, monkeypatch):
    """All hubs and stores hold one file: ``file``, which tests write."""
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    file = tmp_path / 'm.pth'
    fetched = []

    def fetch(address, path, progress):
        fetched.append(address)
        with open(path, 'wb') as target:
            target.write(file.read_bytes())

    monkeypatch.setattr(torch.hub, 'download_url_to_file', fetch)
    address = {'m': 'https://example.org/m.pth' if request.param == 'web' else 'm.pth'}
    for name in ('get_external_models', 'get_mmcls_models', 'get_torchvision_models'):
        monkeypatch.setattr(mmengine_checkpoint, name, lambda: address)

    class Store:
        def get(self, path):
            return file.read_bytes()

    monkeypatch.setattr(checkpoint_sources, 'get_file_backend', lambda *_, **__: Store())
    return file, fetched


def test_no_loader_of_mmengine_is_left():
    assert {loader.__module__ for loader in CheckpointLoader._schemes.values()} == {checkpoint_sources.__name__}


@pytest.mark.attack('checkpoints: code from a hub or store')
@pytest.mark.parametrize('place', [*HUBS, *STORES])
def test_no_code_comes_from_a_hub_or_store(place, places, tmp_path):
    content = {'state_dict': {'backbone.x': torch.ones(1)}, 'meta': {'config': '1 / 0', 'cfg': '1 / 0'}}
    torch.save(content, places[0])
    loaded = CheckpointLoader.load_checkpoint(place)
    assert loaded.get('meta', {}) == {}
    assert list(loaded['state_dict']) == (['x'] if place == 'mmcls://m' else ['backbone.x'])
    assert len(places[1]) <= 1
    (tmp_path / 'hub/checkpoints/m.pth').unlink(missing_ok=True)
    torch.save({**content, 'note': Code(tmp_path / 'ran')}, places[0])
    with pytest.raises(ValueError, match='is not a checkpoint that'):
        CheckpointLoader.load_checkpoint(place)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('place', ['pavi://m', 'mmcls://nothing', 'torchvision://nothing'])
def test_what_cannot_be_checked_is_refused_in_one_line(place, monkeypatch):
    monkeypatch.setattr(mmengine_checkpoint, 'get_torchvision_models', dict)
    with pytest.raises(ValueError, match=place) as caught:
        CheckpointLoader.load_checkpoint(place)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize('rank', [0, 1])
def test_rank_0_fetches_and_the_others_wait(rank, tmp_path, monkeypatch):
    steps = []

    def fetch(address, path, progress):
        steps.append('fetch')
        torch.save({'state_dict': {}}, path)

    def barrier():
        steps.append('barrier')
        if rank == 1:
            (tmp_path / 'checkpoints').mkdir()
            torch.save({'state_dict': {}}, tmp_path / 'checkpoints/m.pth')

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', fetch)
    monkeypatch.setattr(checkpoint_sources, 'barrier', barrier)
    monkeypatch.setattr(checkpoint_sources, 'get_rank', lambda: rank)
    assert CheckpointLoader.load_checkpoint('https://example.org/m.pth') == {'state_dict': {}}
    assert steps == (['fetch', 'barrier'] if rank == 0 else ['barrier'])


# ---------------------------------------------------------------- what others published


@pytest.fixture
def published(tmp_path):
    """A checkpoint of MMEngine's own hook, which holds its log history and NumPy's numbers as Python objects."""
    runner = toy_runner(tmp_path / 'run', 2)
    runner._hooks = [hook for hook in runner._hooks if type(hook).__name__ != 'SafeCheckpointHook']
    runner.message_hub.update_info('best_score', np.float64(0.5))
    runner.train()
    path = tmp_path / 'run/iter_2.pth'
    with pytest.raises(Exception, match=r'HistoryBuffer|Unsupported|not an allowed'):
        torch.load(path, weights_only=True)
    return path


def test_a_published_model_loads_without_its_history(published):
    content = read_checkpoint(published)
    assert content['message_hub']['log_scalars'] == {} and 'best_score' not in content['message_hub']['runtime_info']
    assert content['meta']['iter'] == 2
    expected = torch.load(published, weights_only=False)['state_dict']
    model = Line()
    load_checkpoint(model, str(published))
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name])


def test_a_training_goes_on_from_a_published_model(published, tmp_path):
    runner = toy_runner(tmp_path / 'on', 4, load_from=str(published), resume=True)
    runner.train()
    assert runner.iter == 4


@pytest.mark.attack('checkpoints: code beside a log history')
def test_a_log_history_runs_nothing(tmp_path):
    class Attribute:
        """Is ``getattr(HistoryBuffer, '__init__')`` when it is unpickled as code."""

        def __reduce__(self):
            return getattr, (HistoryBuffer, '__init__')

    class Called:
        """Calls what is not a function of the list."""

        def __reduce__(self):
            return operator.methodcaller, ('__call__', Attribute(), 1)

    class History:
        def __reduce__(self):
            return HistoryBuffer, ([Code(tmp_path / 'ran')],)

    for value in (Called(), History(), np.array([Code(tmp_path / 'ran')], object)):
        torch.save({'state_dict': {'x': torch.ones(1)}, 'message_hub': {'x': value}}, tmp_path / 'x.pth')
        with pytest.raises(ValueError, match='is not a checkpoint that'):
            read_checkpoint(tmp_path / 'x.pth')
    assert not (tmp_path / 'ran').exists()
    torch.save({'state_dict': {}, 'message_hub': {'x': Attribute()}}, tmp_path / 'x.pth')
    assert read_checkpoint(tmp_path / 'x.pth')['message_hub'] == {}


@pytest.mark.parametrize('key', ['state_dict', 'optimizer'])
def test_no_weight_is_left_out(key, tmp_path):
    torch.save({'state_dict': {}, key: {'x': np.ones(3)}}, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=f"its '{key}'"):
        read_checkpoint(tmp_path / 'x.pth')


def test_the_advice_for_other_files_works(tmp_path):
    torch.save({'state_dict': {'x': torch.ones(2)}, 'args': argparse.Namespace(a=1)}, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='python -c') as caught:
        read_checkpoint(tmp_path / 'x.pth')
    assert str(caught.value).isprintable()
    command = shlex.split(str(caught.value)[str(caught.value).index('python -c') :])
    subprocess.run([sys.executable, *command[1:3]], cwd=tmp_path, check=True)
    assert read_checkpoint(tmp_path / 'weights.pth')['state_dict']['x'].tolist() == [1, 1]
