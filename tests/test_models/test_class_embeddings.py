import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmseg.registry import MODELS
from safetensors.numpy import save_file

from alignzeg.apis import AlignZegInferencer
from alignzeg.apis.banks import Banks
from alignzeg.benchmark.flops import measure
from alignzeg.exchange.plain_config import plain_config
from mmseg_alignzeg.datasets.patterns import CLASSES, draw_scene
from mmseg_alignzeg.models import CLIPSource, EmbeddingBank, TextBank
from mmseg_alignzeg.models.class_embeddings import build_text_bank, read_embeddings

CONFIG = 'configs/alignzeg_patterns.py'
NAMES = ('red stripes', 'Blue Dots', 'sky')
SOURCE = CLIPSource('tiny_clip', None)


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=-1).numpy()


def write(path, embeds, names):
    if path.suffix == '.npy':
        np.save(path, embeds)
        path.with_suffix('.txt').write_text('\n'.join(names))
    elif path.suffix == '.npz':
        np.savez(path, embeddings=embeds, names=np.array(names))
    else:
        save_file({'embeddings': embeds}, path, {'names': json.dumps(names)})
    return path


@pytest.mark.parametrize('suffix', ['.npy', '.npz', '.safetensors'])
@pytest.mark.parametrize('dtype', ['float16', 'float64'])
def test_rows_are_found_by_name_in_every_format(tmp_path, suffix, dtype):
    embeds = unit(3, 64).astype(dtype)
    path = write(tmp_path / f'file{suffix}', embeds, NAMES)
    bank = EmbeddingBank(SOURCE, str(path), ['another'])
    found = bank(['sky', 'blue  dots', 'red stripes', 'sky'])
    assert found.shape == (4, 1, 64) and found.dtype == torch.float32
    expected = embeds[[2, 1, 0, 2]].astype('float64')
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-6)


def test_several_rows_are_a_prompt_ensemble_or_compete(tmp_path):
    embeds = unit(3, 5, 64)
    path = str(write(tmp_path / 'file.npz', embeds, NAMES))
    mean = EmbeddingBank(SOURCE, path, [])(NAMES)
    expected = embeds.mean(axis=1)
    np.testing.assert_allclose(mean[:, 0], expected / np.linalg.norm(expected, axis=1)[:, None], atol=1e-6)
    np.testing.assert_allclose(EmbeddingBank(SOURCE, path, [], combine='max')(NAMES), embeds, atol=1e-6)
    with pytest.raises(ValueError, match="combine='first' must be one of"):
        EmbeddingBank(SOURCE, path, [], combine='first')


def test_without_names_the_order_is_that_of_the_classes(tmp_path):
    np.save(tmp_path / 'file.npy', unit(3, 64))
    bank = EmbeddingBank(SOURCE, f'{tmp_path}/file.npy', NAMES)
    assert torch.equal(bank(['sky'])[0], bank.embeds[2])
    with pytest.raises(ValueError, match=r'has 3 classes, but there are 2 names: give them in file\.txt beside it'):
        EmbeddingBank(SOURCE, f'{tmp_path}/file.npy', NAMES[:2])


def changed(index, value):
    embeds = unit(3, 64)
    embeds[index] = value
    return embeds


@pytest.mark.parametrize(
    ('embeds', 'names', 'message'),
    [
        (unit(3, 32), NAMES, 'rows of 32 dimensions, but tiny_clip compares 64'),
        (unit(4, 64), NAMES, 'has 4 classes, but there are 3 names'),
        (unit(64), NAMES, r'has float32 \(64,\); expected C × D'),
        (unit(3, 0), NAMES, 'expected C × D or C × S × D'),
        ((9 * unit(3, 64)).astype(int), NAMES, 'has int64'),
        (3 * unit(3, 64), NAMES, r'the norm of row 0 \(red stripes\) is not 1 \(3\)'),
        (changed(1, 0), NAMES, r'row 1 \(Blue Dots\) is not 1 \(0\)'),
        (changed((2, 5), np.nan), NAMES, r'row 2 \(sky\) is not finite'),
        (changed((1, 5), np.inf), NAMES, r'row 1 \(Blue Dots\) is not finite'),
        (unit(3, 64), ('a', 'b', 'a'), "two rows named 'a'"),
    ],
)
def test_faults_are_named(tmp_path, embeds, names, message):
    with pytest.raises(ValueError, match=message) as caught:
        EmbeddingBank(SOURCE, str(write(tmp_path / 'file.npz', embeds, names)), [])
    assert '\n' not in str(caught.value)


@pytest.mark.attack('class embeddings: hostile files')
@pytest.mark.parametrize('suffix', ['.npy', '.npz', '.safetensors'])
def test_unreadable_files(tmp_path, suffix):
    path = tmp_path / f'file{suffix}'
    with pytest.raises(FileNotFoundError, match='No class embeddings'):
        read_embeddings(path)
    path.write_bytes(b'torn')
    with pytest.raises(ValueError, match='is not a readable file of class embeddings'):
        read_embeddings(path, NAMES)
    with pytest.raises(ValueError, match=r'must be a \.npy, \.npz or \.safetensors file'):
        read_embeddings(path.rename(tmp_path / 'file.csv'), NAMES)


@pytest.mark.attack('class embeddings: hostile files')
def test_pickled_arrays_are_refused(tmp_path):
    objects = np.array([[object()]])
    np.save(tmp_path / 'file.npy', objects, allow_pickle=True)
    np.savez(tmp_path / 'file.npz', embeddings=unit(1, 64), names=np.array(['a', None], object))
    for name in ('file.npy', 'file.npz'):
        with pytest.raises(ValueError, match=r'is not a readable file of class embeddings .*pickle'):
            read_embeddings(tmp_path / name, NAMES)


def test_a_file_that_should_have_names_and_has_none(tmp_path):
    save_file({'embeddings': unit(2, 64)}, tmp_path / 'file.safetensors')
    with pytest.raises(ValueError, match='metadata has no `names`'):
        read_embeddings(tmp_path / 'file.safetensors', NAMES)


@pytest.fixture
def trained(tmp_path):
    """The shipped model with the same embeddings from a file."""
    inferencer = AlignZegInferencer(device='cpu')
    embeds = inferencer.model.text_bank(CLASSES)[:, 0].numpy()
    path = write(tmp_path / 'file.npz', embeds[::-1], CLASSES[::-1])
    inferencer.model.text_bank = EmbeddingBank(CLIPSource('tiny_clip', 'embedded'), str(path), CLASSES)
    inferencer._banks = Banks(inferencer.model.text_bank)
    return inferencer


def test_a_model_predicts_as_with_the_text_tower(trained, monkeypatch):
    image = draw_scene(2, 0)[0]
    expected = AlignZegInferencer(device='cpu')(image)[0].labels
    monkeypatch.setattr(CLIPSource, 'load_full', lambda self: pytest.fail('the text tower was built'))
    assert np.array_equal(trained(image)[0].labels, expected)
    few = trained.without_text_cache()(image, classes=['Red Dots', 'blue grid'])[0]
    assert few.labels.max() <= 1
    with pytest.raises(ValueError, match=r'file\.npz has no embedding of zebra, gnu; it has 20 names'):
        trained(image, classes=['zebra', 'red dots', 'gnu'])
    with pytest.raises(ValueError, match="templates='vild' needs the text tower"):
        trained(image, templates='vild')


def test_a_config_names_the_file(tmp_path, monkeypatch):
    path = str(write(tmp_path / 'file.npy', unit(20, 2, 64), CLASSES))
    cfg = Config.fromfile(CONFIG)
    cfg.model.text = dict(embeddings=path, combine='max')
    model = MODELS.build(cfg.model)
    monkeypatch.setattr(CLIPSource, 'load_full', lambda self: pytest.fail('the text tower was built'))
    assert measure(model, (64, 64)).text is None
    assert model.text_bank(CLASSES).shape == (20, 2, 64) and model.checkpoint_identity()['templates'] == 'file'
    with pytest.raises(ValueError, match=r'text\.embeddings. is not allowed in an exchanged model'):
        plain_config(cfg)
    cfg.model.text = dict(embeddings=path, names=dict(source='cleaned'))
    with pytest.raises(ValueError, match=r'`text\.names` and `text\.cache_dir` are for the text tower'):
        MODELS.build(cfg.model)
    cfg.model.text = dict(embeddings=None, templates='single')
    assert isinstance(MODELS.build(cfg.model).text_bank, TextBank)


def test_drawn_prototypes_are_nearly_orthogonal_and_belong_to_their_names():
    bank = build_text_bank(SOURCE, NAMES, {'templates': None, 'drawn': True})
    words = ['sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign symbol', 'fence', 'car', 'bicyclist']
    rows = bank(words)[:, 0]
    cosines = (rows @ rows.t()).numpy()
    np.testing.assert_allclose(cosines.diagonal(), 1, atol=1e-6)
    assert np.abs(cosines - np.eye(len(words))).max() < 0.5  # of the tiny CLIP's embeddings, the smallest is 0.97
    assert bank(words) is bank(words)  # not computed in every step
    assert bank(['road', 'sky'])[:, 0].equal(rows[[3, 0]]) and bank(['Sky']).equal(bank(['sky']))
    with pytest.raises(ValueError, match=r"`text.drawn` allows no other setting, got \['templates'\]"):
        build_text_bank(SOURCE, NAMES, {'templates': 'vild', 'drawn': True})
