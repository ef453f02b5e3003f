"""Upload to and download from a stand-in of the Hugging Face Hub, on this machine."""

import shutil
import socket

import huggingface_hub
import pytest
import torch
import yaml
from hub_stand_in import running_hub

from alignzeg.apis import AlignZegInferencer
from alignzeg.exchange import find_pretrained, load_pretrained, model_card, push_to_hub
from mmseg_alignzeg.datasets.patterns import draw_scene
from mmseg_alignzeg.models import CLIPSource
from mmseg_alignzeg.models.clip_source import ASSETS

SHIPPED = ASSETS / 'patterns'


@pytest.fixture
def hub(monkeypatch, tmp_path):
    constants = huggingface_hub.constants
    with running_hub() as (hub, address):
        monkeypatch.setattr(constants, 'ENDPOINT', address)
        monkeypatch.setattr(
            constants, 'HUGGINGFACE_CO_URL_TEMPLATE', address + '/{repo_id}/resolve/{revision}/{filename}'
        )
        monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
        monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', True, raising=False)  # older clients lack it
        monkeypatch.setattr('huggingface_hub.hf_api.api.endpoint', address)
        yield hub


def is_private(hub):
    """Whether the new repository is private, in the words of older and newer clients."""
    return hub.created.get('private') is True or hub.created.get('visibility') == 'private'


def test_a_model_goes_to_the_hub_and_back(hub):
    address = push_to_hub(SHIPPED, 'org/patterns', token='hf_secret', license='apache-2.0')
    assert address.endswith('/org/patterns/commit/' + 'c' * 40)
    assert is_private(hub) and hub.created['organization'] == 'org' and 'Bearer hf_secret' in hub.tokens
    assert sorted(hub.files) == ['README.md', 'config.json', 'model.safetensors']
    assert hub.files['model.safetensors'] == (SHIPPED / 'model.safetensors').read_bytes()
    assert b'hf_secret' not in b''.join(hub.files.values())
    loaded, shipped = load_pretrained('org/patterns', download=True), load_pretrained(SHIPPED)
    assert torch.equal(loaded.fusion.weight, shipped.fusion.weight)


def test_the_model_card():
    _, metadata, text = model_card(SHIPPED, 'org/patterns', 'apache-2.0').split('---\n', 2)
    metadata = yaml.safe_load(metadata)
    assert metadata['pipeline_tag'] == 'image-segmentation' and metadata['license'] == 'apache-2.0'
    assert "find_pretrained('org/patterns', download=True)" in text and 'labels of 12 classes' in text
    seen, unseen = text.split('- unseen in training:')
    assert '`red dots`' in unseen and '`red dots`' not in seen and '`red stripes`' in seen


@pytest.mark.attack('network: files that were not to be uploaded')
def test_the_card_of_the_folder_is_used_and_other_files_stay_here(hub, tmp_path):
    shutil.copytree(SHIPPED, tmp_path / 'model')
    (tmp_path / 'model/README.md').write_text('my card')
    (tmp_path / 'model/notes.txt').write_text('private')
    push_to_hub(tmp_path / 'model', 'org/patterns', public=True, token='t')
    assert hub.files['README.md'] == b'my card' and 'notes.txt' not in hub.files and not is_private(hub)


@pytest.mark.attack('network: a connection during a prediction')
def test_a_prediction_with_a_model_folder_connects_to_nothing(monkeypatch):
    connections = []
    for owner, name in ((socket.socket, 'connect'), (socket.socket, 'connect_ex'), (socket, 'getaddrinfo')):
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: connections.append(args))
    AlignZegInferencer(SHIPPED, device='cpu')(draw_scene(2, 4)[0], classes=['red dots', 'green checks'])
    assert not connections


def test_a_failed_upload_is_one_line(hub, tmp_path):
    hub.broken = 'refuse'
    with pytest.raises(ConnectionError, match=r"^'org/patterns' could not be uploaded.*403.*token") as caught:
        push_to_hub(SHIPPED, 'org/patterns', token='t')
    assert '\n' not in str(caught.value)
    with pytest.raises(ValueError, match=r"'patterns'.*expected 'org/name'"):
        push_to_hub(SHIPPED, 'patterns', token='t')
    with pytest.raises(FileNotFoundError, match=r'has no config.json'):
        push_to_hub(tmp_path, 'org/patterns', token='t')


def test_a_download_that_is_cut_off_is_one_line(hub, monkeypatch):
    push_to_hub(SHIPPED, 'org/patterns', token='t')
    hub.broken = 'cut'
    monkeypatch.setattr('time.sleep', lambda seconds: None)  # the hub's client tries again
    with pytest.raises(FileNotFoundError, match=r"^'org/patterns' could not be downloaded") as caught:
        find_pretrained('org/patterns', download=True)
    assert '\n' not in str(caught.value)


class SilentError(Exception):
    """A time-out without text that is not an OSError, as those of httpx."""


@pytest.mark.parametrize('error', [SilentError(), TimeoutError('timed out'), SilentError('read\nsecond line')])
def test_time_outs_of_every_kind_are_one_line(monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(huggingface_hub, 'snapshot_download', fail)
    with pytest.raises(FileNotFoundError, match=r"^'org/x' could not be downloaded.*: .+\.$") as caught:
        find_pretrained('org/x', download=True)
    assert '\n' not in str(caught.value) and 'second' not in str(caught.value)
    monkeypatch.setattr('open_clip.download_pretrained', fail)
    with pytest.raises(FileNotFoundError, match=r'^CLIP weights .* could not be downloaded') as caught:
        CLIPSource('ViT-B-16-quickgelu', 'openai').weights  # noqa: B018
    assert '\n' not in str(caught.value)
