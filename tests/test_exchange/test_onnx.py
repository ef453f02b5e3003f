"""The exported predictor: in PyTorch it is the model, in onnxruntime it is what `predict` gives."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from PIL import Image, UnidentifiedImageError
from safetensors.torch import save_file

from alignzeg.apis import AlignZegInferencer
from alignzeg.apis.banks import Banks
from alignzeg.apis.image_files import Source, read_rgb
from alignzeg.apis.prediction import DRAWN_PIXELS
from alignzeg.exchange import load_pretrained, onnx_runner
from alignzeg.exchange.onnx import (
    OLDEST,
    FixedVocabularyPredictor,
    can_export,
    compare_onnx,
    export_onnx,
    visible_weights,
)
from mmseg_alignzeg import models
from mmseg_alignzeg.datasets.patterns import CLASSES, draw_scene
from mmseg_alignzeg.models.inference import linear_weights

exports = pytest.mark.skipif(not can_export(), reason=f'ONNX export needs torch {OLDEST}')
SHIPPED = Path(models.__file__).parents[1] / 'assets' / 'patterns'
WORDS = ['red dots', 'blue stripes', 'a green grid', 'yellow zigzags', 'red stripes']  # two seen


@pytest.fixture
def trained():
    return load_pretrained(SHIPPED)


def small_config():
    cfg = Config.fromfile('configs/alignzeg_patterns.py').model
    cfg.text = dict(templates='single')
    cfg.clip.update(tap_layer=1, tail_layers=1, skip_bridge=True)
    cfg.image_encoder.depth = 1
    return cfg


@pytest.fixture
def small():
    """As few layers as there can be, with random weights: an exporter takes its time for each."""
    return MODELS.build(small_config()).eval()


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


def module(images, *args, **kwargs):
    """Labels and scores of the module at the size of the images."""
    return FixedVocabularyPredictor(*args, scores=True, **kwargs)(images, torch.tensor(images.shape[2:]))


def agree(found, expected):
    assert torch.allclose(found[1], expected[1], atol=1e-5)
    assert (found[0] == expected[0]).float().mean() > 0.9999


@pytest.mark.parametrize('pbc', [True, False])
@pytest.mark.parametrize('size', [(128, 128), (75, 100)])  # whole patches, and not
def test_the_module_is_the_model(trained, pbc, size):
    images = scenes(4, *size)
    trained.set_test_classes(WORDS)
    found = module(images, trained, WORDS, pbc=pbc)
    if not pbc:
        trained.question = trained.question.without_correction()
    agree(found, predicted(trained, images))


@exports
def test_an_ensemble_is_exported(small, tmp_path):
    views = [dict(), dict(scale=0.75, flip='horizontal')]
    small.decoder = MODELS.build(dict(type='EnsembleDecoder', views=views))
    images = scenes(2, 64, 96)
    small.set_test_classes(WORDS)
    agree(module(images, small, WORDS), predicted(small, images))
    export_onnx(small, WORDS, tmp_path / 'views.onnx', (96, 64), scores=True)
    session = onnx_runner.load(tmp_path / 'views.onnx')
    assert session.get_inputs()[0].shape == ['batch', 3, 64, 64]  # the sizes of resized views are rounded
    square = images[:, :, :, :64]
    found = session.run(None, {'images': square.numpy(), 'size': np.array([64, 64])})
    with torch.no_grad():
        agree(list(map(torch.from_numpy, found)), module(square, small, WORDS))


@pytest.mark.parametrize(('out', 'grid', 'extent'), [(90, 12, 1.0), (7, 5, 0.83), (1, 1, 0.4), (3, 40, 0.99)])
def test_weights_are_those_of_the_inferencer(out, grid, extent):
    expected = linear_weights(out, grid, 0, extent, torch.empty(0))
    torch.testing.assert_close(visible_weights(out, grid, extent), expected, rtol=0, atol=1e-6)


def test_gamma_and_unseen_names_are_those_asked_for(trained):
    images = scenes(4)
    found = module(images, trained, WORDS, gamma=0.05, unseen=['blue stripes'])
    assert not torch.allclose(found[1], module(images, trained, WORDS)[1], atol=1e-2)
    trained.set_test_classes(WORDS, unseen=['blue stripes'])
    trained.question = replace(trained.question, bias_correction=models.PredictiveBiasCorrection(0.05))
    agree(found, predicted(trained, images))


def test_calibration_and_other_backgrounds_are_exported_too(trained):
    stacking = models.CalibratedStacking(0.2)
    trained.question = replace(trained.question, calibration=stacking, background_at_test='ignore')
    trained.set_test_classes(WORDS)
    agree(module(scenes(2), trained, WORDS), predicted(trained, scenes(2)))


def test_a_model_trained_on_bgr_gets_bgr(trained):
    preprocessor = trained.data_preprocessor
    expected = module(scenes(1), trained, WORDS)
    for name in {'channel_conversion', '_channel_conversion'} & vars(preprocessor).keys():
        setattr(preprocessor, name, False)
    preprocessor.mean, preprocessor.std = preprocessor.mean.flip(0), preprocessor.std.flip(0)
    with torch.no_grad():  # a network that reads its channels the other way round
        for weight in (trained.image_encoder.vit.patch_embed.proj.weight, trained.clip.visual.conv1.weight):
            weight.copy_(weight.flip(1))
    agree(module(scenes(1), trained, WORDS), expected)


@exports
def test_a_graph_gives_what_predict_gives(tmp_path):
    """The class embeddings are from a file; those of a text tower are in the graph of the ensemble."""
    names = [*dict.fromkeys([*CLASSES, *WORDS])]
    rows = torch.nn.functional.normalize(torch.randn(len(names), 64), dim=1)
    save_file({'embeddings': rows}, tmp_path / 'rows.safetensors', {'names': json.dumps(names)})
    cfg = small_config()
    cfg.text = dict(embeddings=str(tmp_path / 'rows.safetensors'))
    small = MODELS.build(cfg).eval()
    path, scale = tmp_path / 'new' / 'patterns.onnx', (160, 64)
    predictor = export_onnx(small, WORDS, path, scale, gamma=0.25, scores=True)
    inferencer = AlignZegInferencer()
    inferencer.model, inferencer.input_scale, inferencer._banks = small, scale, Banks(small.text_bank)
    # Kept, enlarged, reduced by less and by more than half, one row, and more pixels than are drawn.
    shapes = [(64, 96), (20, 31), (90, 111), (360, 480), (1, 40), (1900, 2300)]
    noise = np.random.default_rng(0).integers(0, 256, (2500, 2500, 3), np.uint8)
    pictures = [noise[:height, :width] for height, width in shapes]
    assert np.prod(shapes[-1]) > DRAWN_PIXELS
    assert min(compare_onnx(path, inferencer, pictures, gamma=0.25)) > 0.9999
    assert min(compare_onnx(path, inferencer, pictures[:1], pbc=False)) < 0.999  # the comparison can fail

    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    (images, size), (labels, scores) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == ('images', 'tensor(uint8)', ['batch', 3, 'height', 'width'])
    assert (size.name, size.type, size.shape) == ('size', 'tensor(int64)', [2])
    assert (labels.name, labels.type, labels.shape) == ('labels', 'tensor(int64)', ['batch', 'rows', 'columns'])
    assert (scores.name, scores.type, scores.shape) == ('scores', 'tensor(float)', ['batch', 5, 'rows', 'columns'])
    batch = scenes(3, 40, 56)
    found = session.run(None, {'images': batch.numpy(), 'size': np.array([80, 112])})
    with torch.no_grad():
        agree(list(map(torch.from_numpy, found)), predictor(batch, torch.tensor([80, 112])))

    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata['classes']) == WORDS
    assert json.loads(metadata['unseen_classes']) == ['red dots', 'a green grid', 'yellow zigzags']
    assert json.loads(metadata['input_scale']) == [160, 64]
    assert json.loads(metadata['drawn_pixels']) == DRAWN_PIXELS
    assert json.loads(metadata['identity']) == small.checkpoint_identity()
    assert metadata['gamma'] == '0.25'

    graph = onnx.load(path).graph
    constants = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer]
    asked = rows[[names.index(word) for word in WORDS]].numpy()
    assert any(
        array.size == asked.size and np.allclose(np.sort(array, None), np.sort(asked, None)) for array in constants
    )
    assert list(path.parent.iterdir()) == [path]  # one file
    weights = sum(int(torch.tensor(tensor.dims).prod()) for tensor in graph.initializer)
    image_side = sum(param.numel() for param in small.parameters())
    assert weights < 1.5 * image_side  # the text tower alone would be 2.4 million more


def test_the_runner_reads_pictures_as_predict_does(tmp_path):
    grey = np.arange(0, 60000, 1000, dtype=np.uint16).reshape(6, 10)
    rgba = np.random.default_rng(0).integers(0, 256, (6, 10, 4), np.uint8)
    turned = Image.fromarray(rgba[:, :, :3])
    turned.getexif()[274] = 6
    turned.save(tmp_path / 'turned.jpg', exif=turned.getexif())
    Image.fromarray(grey).save(tmp_path / 'grey.png')
    Image.fromarray(rgba).save(tmp_path / 'rgba.png')
    for file in tmp_path.iterdir():
        assert np.array_equal(onnx_runner.read(str(file)), read_rgb(Source(str(file)))), file
    (tmp_path / 'photo.jpg').write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n')
    with pytest.raises(UnidentifiedImageError):
        onnx_runner.read(str(tmp_path / 'photo.jpg'))


@pytest.mark.parametrize('pbc', [True, False])
def test_pbc_of_a_graph_is_that_of_predict(trained, pbc):
    """For each setting of the model itself: on, switched off, and without φ_bc."""
    inferencer = AlignZegInferencer()
    images = scenes(2)
    for change in (dict(), dict(question=replace(trained.question, bias_correction=None)), dict(class_indicator=None)):
        for model in (trained, inferencer.model):
            for name, value in change.items():
                setattr(model, name, value)
        found = module(images, trained, WORDS, pbc=pbc)[0]
        expected = inferencer([image.permute(1, 2, 0).numpy() for image in images], WORDS, pbc=pbc)
        assert all((f.numpy() == e.labels).mean() > 0.9999 for f, e in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ('change', 'arguments', 'message'),
    [
        ({}, dict(classes=[]), 'vocabulary is empty'),
        ({}, dict(classes=['a', 'a']), r"names \['a'\] more than once"),
        ({}, dict(unseen=['cat']), r"`unseen_classes` names \['cat'\]"),
        ({}, dict(gamma=1.5), r'gamma=1.5 is outside \[0, 1\]'),
        ({}, dict(input_scale=(0, 64)), r'input_scale=\(0, 64\) must be \(long, short\)'),
        (dict(class_indicator=None), dict(gamma=0.3), 'gamma=0.3 .*φ_bc'),
        (dict(data_preprocessor=torch.nn.Identity()), {}, 'no `data_preprocessor` with mean and std'),
    ],
)
def test_what_cannot_be_exported(trained, tmp_path, change, arguments, message):
    for name, value in change.items():
        setattr(trained, name, value)
    with pytest.raises(ValueError, match=message):
        export_onnx(trained, **{'classes': WORDS, 'path': tmp_path / 'x.onnx', 'input_scale': (64, 64), **arguments})
    assert not list(tmp_path.glob('*.onnx'))


def test_only_plain_float32_models(trained, tmp_path):
    with pytest.raises(ValueError, match='Only a float32 model on the CPU'):
        export_onnx(trained.half(), WORDS, tmp_path / 'x.onnx', (64, 64))
    cfg = Config.fromfile('configs/alignzeg_patterns.py').model
    oracle = MODELS.build({**cfg, 'decoder': dict(type='OracleDecoder')})
    with pytest.raises(ValueError, match='OracleDecoder'):
        export_onnx(oracle, WORDS, tmp_path / 'x.onnx', (64, 64))


def test_without_the_extra(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    with pytest.raises(ImportError, match=r"pip install 'mmseg_alignzeg\[export\]'"):
        export_onnx(trained, WORDS, tmp_path / 'x.onnx', (64, 64))
