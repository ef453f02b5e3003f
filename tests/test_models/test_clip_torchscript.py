"""OpenAI's TorchScript archives against torch's and open_clip's own readers."""

import copy
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from open_clip.model import build_model_from_openai_state_dict
from small_clip import same, small_clip

from mmseg_alignzeg.models import CLIPSource
from mmseg_alignzeg.models.clip_torchscript import read_torchscript
from mmseg_alignzeg.models.clip_weights import read_clip


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    return small_clip(tmp_path_factory.mktemp('configs'))


def archive(model, path, half):
    """Write an archive as OpenAI's: with buffers that are no weights, and partly in float16."""
    model = copy.deepcopy(model)
    del model.context_length
    model.register_buffer('input_resolution', torch.tensor(32))
    model.register_buffer('context_length', torch.tensor(9))
    inputs = torch.randn(1, 3, 32, 32), torch.ones(1, 9, dtype=torch.long)
    traced = torch.jit.trace(model, inputs, check_trace=False, strict=False)
    if half:
        traced.visual.half()
    torch.jit.save(traced, path)


@pytest.mark.parametrize('half', [False, True])
def test_torchscript_is_what_torch_and_open_clip_read(small, tmp_path, half):
    path = tmp_path / 'ViT.pt'
    archive(small, path, half)
    weights = read_clip(path)
    assert weights.format == 'OpenAI TorchScript' and weights.quick_gelu is True
    own = torch.jit.load(path).state_dict()
    assert (torch.float16 in {value.dtype for value in own.values()}) is half
    same(weights.state, {name: own[name] for name in small.state_dict()})
    own = {name: value for name, value in own.items() if name != 'attn_mask'}  # OpenAI's archives have none
    theirs = build_model_from_openai_state_dict(own, cast_dtype=torch.float32).float()
    images = torch.randn(2, 3, 32, 32)
    source = CLIPSource('small', str(path))
    torch.testing.assert_close(source.load_vision()[0](images), theirs.encode_image(images), rtol=1e-5, atol=1e-5)
    tokens = torch.randint(0, 50, (2, 9))
    torch.testing.assert_close(source.load_full().encode_text(tokens), theirs.encode_text(tokens), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match='trained with QuickGELU, but the architecture has GELU'):
        CLIPSource('small-gelu', str(path)).load_vision()


def test_a_scripted_module_is_read_too(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Sequential(torch.nn.Conv2d(2, 3, 2)))
    torch.jit.save(torch.jit.script(model), tmp_path / 'a.pt')
    same(read_torchscript(tmp_path / 'a.pt')[0], model.state_dict())


class Evil:
    def __reduce__(self):
        return Path.touch, (Path('evil_was_here'),)


def with_pickle(data):
    def edit(entries):
        return {name: data if name.endswith('data.pkl') else value for name, value in entries.items()}

    return edit


def short_data(entries):
    first = next(name for name in entries if '/data/' in name)
    return {**entries, first: entries[first][:-4]}


TORCHSCRIPT_DAMAGES = {
    'a call': with_pickle(pickle.dumps(Evil(), 2)),
    'getattr': with_pickle(b'cbuiltins\ngetattr\n.'),
    'no module': with_pickle(pickle.dumps({'weight': 1}, 2)),
    'a huge index': with_pickle(b'\x80\x02Nr\xff\xff\xff\x7f.'),
    'a cut pickle': lambda entries: with_pickle(next(v for k, v in entries.items() if 'data.pkl' in k)[:-40])(entries),
    'short data': short_data,
    'no data': lambda entries: {name: value for name, value in entries.items() if '/data/' not in name},
}


@pytest.mark.attack('CLIP weights: hostile TorchScript')
@pytest.mark.parametrize('damage', TORCHSCRIPT_DAMAGES)
def test_a_hostile_archive_is_refused_and_not_run(small, tmp_path, damage, monkeypatch):
    archive(small, tmp_path / 'whole.pt', half=False)
    with zipfile.ZipFile(tmp_path / 'whole.pt') as whole:
        entries = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(tmp_path / 'hostile.pt', 'w') as hostile:
        for name, value in TORCHSCRIPT_DAMAGES[damage](entries).items():
            hostile.writestr(name, value)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r'hostile\.pt is not a readable CLIP state dict') as caught:
        read_clip(tmp_path / 'hostile.pt')
    assert '\n' not in str(caught.value) and not Path('evil_was_here').exists()
