"""The exported predictor: in PyTorch it is the model, in onnxruntime it is the exported predictor."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from alignzeg.exchange import load_pretrained
from alignzeg.exchange.onnx import FixedVocabularyPredictor, compare_onnx, export_onnx
from mmseg_alignzeg import models
from mmseg_alignzeg.datasets.patterns import draw_scene

SHIPPED = Path(models.__file__).parents[1] / 'assets' / 'patterns'
WORDS = ['red dots', 'blue stripes', 'a green grid', 'yellow zigzags', 'red stripes']  # two seen


@pytest.fixture
def trained():
    return load_pretrained(SHIPPED)


@pytest.fixture
def small():
    """As few layers as there can be, with random weights: an exporter takes its time for each."""
    cfg = Config.fromfile('configs/alignzeg_patterns.py').model
    cfg.text = dict(templates='single')
    cfg.clip.update(tap_layer=1, tail_layers=1, skip_bridge=True)
    cfg.image_encoder.depth = 1
    return MODELS.build(cfg)


def scenes(count, height=128, width=128):
    """(count, 3, height, width) uint8 RGB."""
    return torch.stack([torch.from_numpy(draw_scene(2, i)[0][:height, :width].copy()) for i in range(count)]).movedim(
        3, 1
    )


def predicted(model, images):
    """Labels and scores of mmseg's own way: BGR images through the data preprocessor, then `predict`."""
    model.return_scores = True
    results = [model.test_step({'inputs': [image.flip(0)], 'data_samples': [SegDataSample()]})[0] for image in images]
    return (
        torch.stack([result.pred_sem_seg.data[0] for result in results]),
        torch.stack([result.seg_logits.data for result in results]),
    )


def agree(found, expected):
    assert torch.allclose(found[1], expected[1], atol=1e-5)
    assert (found[0] == expected[0]).float().mean() > 0.9999


@pytest.mark.parametrize('pbc', [True, False])
@pytest.mark.parametrize('size', [(128, 128), (75, 100)])  # whole patches, and not
def test_the_module_is_the_model(trained, pbc, size):
    images = scenes(4, *size)
    trained.set_test_classes(WORDS)
    found = FixedVocabularyPredictor(trained, WORDS, pbc=pbc, scores=True)(images)
    if not pbc:
        trained.question = trained.question.without_correction()
    agree(found, predicted(trained, images))


def test_an_ensemble_is_exported(small, tmp_path):
    views = [dict(), dict(scale=0.75, flip='horizontal')]
    small.decoder = MODELS.build(dict(type='EnsembleDecoder', views=views))
    images = scenes(2, 64, 96)
    small.set_test_classes(WORDS)
    predictor = FixedVocabularyPredictor(small, WORDS, scores=True)
    agree(predictor(images), predicted(small, images))
    predictor = export_onnx(small, WORDS, tmp_path / 'views.onnx', (64, 96), scores=True)
    found = compare_onnx(tmp_path / 'views.onnx', predictor, images)
    assert found.labels > 0.999 and found.scores < 1e-4


def test_gamma_and_unseen_names_are_those_asked_for(trained):
    images = scenes(4)
    found = FixedVocabularyPredictor(trained, WORDS, gamma=0.05, scores=True, unseen=['blue stripes'])(images)
    assert not torch.allclose(found[1], FixedVocabularyPredictor(trained, WORDS, scores=True)(images)[1], atol=1e-2)
    trained.set_test_classes(WORDS, unseen=['blue stripes'])
    trained.question = replace(trained.question, bias_correction=models.PredictiveBiasCorrection(0.05))
    agree(found, predicted(trained, images))


def test_calibration_and_other_backgrounds_are_exported_too(trained):
    stacking = models.CalibratedStacking(0.2)
    trained.question = replace(trained.question, calibration=stacking, background_at_test='ignore')
    trained.set_test_classes(WORDS)
    agree(FixedVocabularyPredictor(trained, WORDS, scores=True)(scenes(2)), predicted(trained, scenes(2)))


def test_a_model_trained_on_bgr_gets_bgr(trained):
    preprocessor = trained.data_preprocessor
    expected = FixedVocabularyPredictor(trained, WORDS, scores=True)(scenes(1))
    preprocessor.channel_conversion = False
    preprocessor.mean, preprocessor.std = preprocessor.mean.flip(0), preprocessor.std.flip(0)
    with torch.no_grad():  # a network that reads its channels the other way round
        for weight in (trained.image_encoder.vit.patch_embed.proj.weight, trained.clip.visual.conv1.weight):
            weight.copy_(weight.flip(1))
    agree(FixedVocabularyPredictor(trained, WORDS, scores=True)(scenes(1)), expected)


def test_onnxruntime_agrees_with_pytorch(small, tmp_path):
    path = tmp_path / 'new' / 'patterns.onnx'
    predictor = export_onnx(small, WORDS, path, (40, 56), gamma=0.25, scores=True)
    images = scenes(3, 40, 56)
    agreement = compare_onnx(path, predictor, images)
    assert agreement.labels >= 0.999 and agreement.scores < 1e-4
    # The comparison itself can fail, and the correction is in the graph.
    other = FixedVocabularyPredictor(small, WORDS, pbc=False, scores=True)
    assert compare_onnx(path, other, images).scores > 1e-3

    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    (given,), (labels, scores) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape[1:]) == ('images', 'tensor(uint8)', [3, 40, 56])
    assert (labels.name, labels.type, labels.shape[1:]) == ('labels', 'tensor(int64)', [40, 56])
    assert (scores.name, scores.type, scores.shape[1:]) == ('scores', 'tensor(float)', [5, 40, 56])
    assert session.run(['labels'], {'images': images[:1].numpy()})[0].shape == (1, 40, 56)  # another batch size

    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata['classes']) == WORDS
    assert json.loads(metadata['unseen_classes']) == ['red dots', 'a green grid', 'yellow zigzags']
    assert json.loads(metadata['input_size']) == [40, 56]
    assert json.loads(metadata['identity']) == small.checkpoint_identity()
    assert metadata['gamma'] == '0.25'

    graph = onnx.load(path).graph
    assert list(path.parent.iterdir()) == [path]  # one file
    weights = sum(int(torch.tensor(tensor.dims).prod()) for tensor in graph.initializer)
    image_side = sum(param.numel() for param in small.parameters())
    assert weights < 1.5 * image_side  # the text tower alone would be 2.4 million more


@pytest.mark.parametrize(
    ('change', 'arguments', 'message'),
    [
        ({}, dict(classes=[]), 'vocabulary is empty'),
        ({}, dict(classes=['a', 'a']), r"names \['a'\] more than once"),
        ({}, dict(unseen=['cat']), r"`unseen_classes` names \['cat'\]"),
        ({}, dict(gamma=1.5), r'gamma=1.5 is outside \[0, 1\]'),
        ({}, dict(gamma=0.3, pbc=False), 'gamma=0.3 .*pbc=False'),
        ({}, dict(size=(0, 64)), r'size=\(0, 64\) must be \(height, width\)'),
        (dict(class_indicator=None), dict(gamma=0.3), 'gamma=0.3 .*φ_bc'),
        (dict(data_preprocessor=torch.nn.Identity()), {}, 'no `data_preprocessor` with mean and std'),
    ],
)
def test_what_cannot_be_exported(trained, tmp_path, change, arguments, message):
    for name, value in change.items():
        setattr(trained, name, value)
    with pytest.raises(ValueError, match=message):
        export_onnx(trained, **{'classes': WORDS, 'path': tmp_path / 'x.onnx', 'size': (64, 64), **arguments})
    assert not list(tmp_path.glob('*.onnx'))


def test_only_plain_float32_models(trained, tmp_path):
    with pytest.raises(ValueError, match='Only a float32 model on the CPU'):
        export_onnx(trained.half(), WORDS, tmp_path / 'x.onnx')
    cfg = Config.fromfile('configs/alignzeg_patterns.py').model
    oracle = MODELS.build({**cfg, 'decoder': dict(type='OracleDecoder')})
    with pytest.raises(ValueError, match='OracleDecoder'):
        export_onnx(oracle, WORDS, tmp_path / 'x.onnx')


def test_without_the_extra(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    with pytest.raises(ImportError, match=r"pip install 'mmseg_alignzeg\[export\]'"):
        export_onnx(trained, WORDS, tmp_path / 'x.onnx')
