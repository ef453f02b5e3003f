"""Which towers, settings, weights and normalisations are accepted."""

import json

import open_clip
import pytest
from tower_worlds import add_towers, saved_clip

from mmseg_alignzeg.models import CLIPSource, build_tower
from mmseg_alignzeg.models.towers import FAMILIES, with_statistics


@pytest.fixture(scope='module', autouse=True)
def _small_towers(tmp_path_factory):
    add_towers(tmp_path_factory.mktemp('towers'))


@pytest.mark.parametrize(
    ('name', 'settings', 'message'),
    [
        ('probe', dict(tail_layers=1), r'tail_layers=1 does not fit small_probe: set it to 0: it has no class token'),
        ('eva02', dict(tail_layers=0), 'tail_layers=0 does not fit small_eva02: set it to at least 1'),
        ('probe', dict(tap_layer=5), 'small_probe has 4 layers; tap_layer=5 and tail_layers=0'),
        ('convnext', dict(tap_layer=5), 'tap_layer=5 must be a stage, 1 to 4'),
        ('convnext', dict(num_prompts=20), 'num_prompts=20 must be 0'),
    ],
)
def test_settings_that_do_not_fit(name, settings, message):
    with pytest.raises(ValueError, match=message):
        build_tower(CLIPSource(f'small_{name}', None), **settings)


@pytest.mark.parametrize(
    'model_name', ['RN50', 'coca_ViT-B-32', 'ViT-H-14-CLIPA', 'ViTamin-B', 'MobileCLIP-B', 'PE-Core-B-16']
)
def test_unsupported_towers_are_refused_before_anything_is_loaded(model_name, monkeypatch):
    monkeypatch.setattr(CLIPSource, 'load_vision', lambda _: pytest.fail('it was loaded'))
    with pytest.raises(ValueError, match=f'The vision tower of {model_name} is not supported; supported are'):
        build_tower(CLIPSource(model_name, None))


@pytest.mark.parametrize(
    ('model_name', 'family'),
    [
        *[(name, 'ViTTower') for name in ('ViT-B-32', 'ViT-L-14-336-quickgelu', 'ViT-H-14', 'ViT-bigG-14')],
        *[(name, 'RotaryTower') for name in ('EVA01-g-14', 'EVA02-B-16', 'EVA02-L-14-336', 'EVA02-E-14-plus')],
        *[
            (name, 'AttentionPoolTower')
            for name in ('ViT-B-16-SigLIP', 'ViT-SO400M-14-SigLIP2', 'ViT-L-16-SigLIP2-512')
        ],
        *[(name, 'ConvNeXtTower') for name in ('convnext_base', 'convnext_large_d_320', 'convnext_xxlarge')],
    ],
)
def test_families_of_open_clip(model_name, family):
    fitting = [each.__name__ for each in FAMILIES if each.fits(CLIPSource(model_name, None).architecture['vision_cfg'])]
    assert fitting == [family]


def test_weights_of_another_tower(tmp_path):
    for name in ('vit', 'probe'):
        saved_clip(name, tmp_path / f'{name}.safetensors')
    for name, other in (('eva02', 'vit'), ('vit', 'probe'), ('probe', 'vit'), ('convnext', 'probe')):
        with pytest.raises(ValueError, match=f'{other}.safetensors .*small_{name}') as caught:
            build_tower(CLIPSource(f'small_{name}', str(tmp_path / f'{other}.safetensors')))
        assert '\n' not in str(caught.value)


@pytest.mark.parametrize(('key', 'size'), [('context_length', 64), ('vocab_size', 9)])
def test_texts_of_another_length_are_refused(key, size, tmp_path):
    """open_clip would resize the positions without a message."""
    saved_clip('vit', tmp_path / 'clip.safetensors')
    other = json.loads(json.dumps(open_clip.get_model_config('small_vit')))
    other['text_cfg'][key] = size
    (tmp_path / 'small_text.json').write_text(json.dumps(other))
    open_clip.add_model_config(tmp_path / 'small_text.json')
    with pytest.raises(ValueError, match='holds no weights of small_text: size mismatch'):
        CLIPSource('small_text', str(tmp_path / 'clip.safetensors')).load_full()


def test_a_missing_tokenizer_is_one_line(monkeypatch):
    def offline(_):
        raise OSError('We could not connect\nto the hub')

    monkeypatch.setattr(open_clip, 'get_tokenizer', offline)
    with pytest.raises(FileNotFoundError, match=r'ViT-B-16-SigLIP2 .*OSError.* huggingface.co/timm/ViT-B-16') as caught:
        CLIPSource('ViT-B-16-SigLIP2', None).load_tokenizer()
    assert '\n' not in str(caught.value)


OPENAI = [122.7709, 116.746, 104.0937], [68.5005, 66.6322, 70.3232]
HALF = [127.5] * 3, [127.5] * 3


@pytest.mark.parametrize(
    ('model_name', 'pretrained', 'expected'),
    [
        ('tiny_clip', 'embedded', OPENAI),
        ('ViT-B-16-quickgelu', 'openai', OPENAI),
        ('ViT-B-16-SigLIP2', 'webli', HALF),
        ('ViT-B-16-SigLIP2', 'file.safetensors', HALF),
        ('ViT-B-16-SigLIP2', None, HALF),
        ('ViT-L-14', 'openai', OPENAI),
        ('ViT-L-14', 'laion2b_s32b_b82k', HALF),
        ('ViT-L-14', None, OPENAI),
        ('small_vit', None, OPENAI),
    ],
)
def test_normalisation_is_that_of_the_weights(model_name, pretrained, expected):
    preprocessor = with_statistics(dict(type='SegDataPreProcessor', size=(8, 8)), CLIPSource(model_name, pretrained))
    assert (preprocessor['mean'], preprocessor['std']) == expected and preprocessor['size'] == (8, 8)
    given = dict(preprocessor, mean=tuple(expected[0]))
    assert with_statistics(given, CLIPSource(model_name, pretrained)) == given


def test_normalisation_of_another_tower_is_refused():
    config = dict(type='SegDataPreProcessor', mean=OPENAI[0], std=OPENAI[1])
    with pytest.raises(ValueError, match=r'ViT-B-16-SigLIP2 was trained with mean=\[127\.5, .*: delete both'):
        with_statistics(config, CLIPSource('ViT-B-16-SigLIP2', 'webli'))
    with pytest.raises(ValueError, match='delete both'):
        with_statistics(dict(config, std=None), CLIPSource('ViT-B-16', None))
    with pytest.raises(ValueError, match='ViT-L-14 in a file may need one of 2 normalisations'):
        with_statistics(dict(type='SegDataPreProcessor'), CLIPSource('ViT-L-14', 'clip.safetensors'))
    assert with_statistics(config, CLIPSource('ViT-L-14', 'clip.safetensors')) == config
    own = dict(config, mean=[1.0, 2.0, 3.0])  # of an architecture that open_clip has no weights of
    assert with_statistics(own, CLIPSource('small_vit', None)) == own
