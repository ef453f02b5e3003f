import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from alignzeg.cli import main
from mmseg_alignzeg.models import CLIPSource
from mmseg_alignzeg.models.clip_facts import Tower, fitting_models, joint_dimension, text_tower, vision_tower
from mmseg_alignzeg.models.clip_source import ASSETS, untrained

EMBEDDED = ASSETS / 'tiny_clip/tiny_clip.safetensors'


def test_a_converted_file_is_the_same_tower(tmp_path, capsys):
    state, out = load_file(EMBEDDED), tmp_path / 'out/clip.safetensors'
    given = tmp_path / 'clip.pt'
    torch.save({'state_dict': {f'module.{name}': value.float() for name, value in state.items()}}, given)
    assert main(['clip', str(given), '--out', str(out)]) == 0
    told = dict(line.split('  ', 1) for line in capsys.readouterr().out.splitlines() if '  ' in line)
    assert told['open_clip models'].strip() == 'tiny_clip' and 'float32' in told['format']
    assert 'patch 8, 64 × 64 pixels' in told['vision'] and 'context 77' in told['text']
    sources = [CLIPSource('tiny_clip', path) for path in (str(given), str(out), 'embedded')]
    assert {source.identity for source in sources} == {f'tiny_clip:{told["identity"].strip()}'}
    written = load_file(out)
    assert written.keys() == state.keys() and torch.equal(written['visual.proj'], state['visual.proj'].float())
    assert main(['clip', str(given), '--out', str(out)]) == 2 and 'exists already' in capsys.readouterr().err
    assert main(['clip', str(given), '--out', str(out), '--overwrite']) == 0


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['missing.pt'], 'missing.pt does not exist'),
        (['README.md'], 'README.md is not a readable CLIP state dict'),
        ([str(EMBEDDED), '--out', 'clip.pt'], 'must end with .safetensors'),
    ],
)
def test_what_cannot_be_read_or_written(arguments, message, capsys):
    assert main(['clip', *arguments]) == 2
    assert message in capsys.readouterr().err


def test_weights_that_are_something_else(tmp_path, capsys):
    save_file({'weight\n': torch.zeros(2)}, tmp_path / 'other.safetensors')
    assert main(['clip', str(tmp_path / 'other.safetensors')]) == 2
    told = capsys.readouterr().err
    assert 'it has no `logit_scale`' in told and told.count('\n') == 1


@pytest.mark.parametrize(
    ('name', 'vision', 'text', 'joint', 'fitting'),
    [
        ('ViT-B-32', ('ViT', 12, 768, 32, 224), (12, 512, 77), 512, {'ViT-B-32', 'ViT-B-32-quickgelu'}),
        ('ViT-B-16-SigLIP', ('timm ViT', 12, 768, 16, 224), (12, 768, 64), 768, {'ViT-B-16-SigLIP'}),
    ],
)
def test_the_architecture_is_found_from_shapes(name, vision, text, joint, fitting):
    with torch.device('meta'):
        state = untrained(name).state_dict()
    tower = vision_tower(state)
    assert (tower.kind, tower.layers, tower.width, tower.patch, tower.image_size) == vision
    tower = text_tower(state)
    assert (tower.layers, tower.width, tower.context) == text
    assert joint_dimension(state) == joint and set(fitting_models(state)) == fitting
    quick = {found for found in fitting if open_clip.get_model_config(found).get('quick_gelu')}
    assert set(fitting_models(state, quick_gelu=True)) == quick


def test_other_towers_are_counted_only():
    state = {'visual.layer1.0.conv1.weight': torch.zeros(2, 3), 'logit_scale': torch.zeros(())}
    assert vision_tower(state) == Tower('ResNet or another tower', None, None, 6)
    assert text_tower(state) == Tower('none', None, None, 0) and fitting_models(state) == []
