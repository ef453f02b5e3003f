"""The Python interface, on the trained model of the embedded world."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmseg.registry import MODELS
from PIL import Image

from alignzeg.apis import AlignZegInferencer, Failure, Prediction, prediction
from alignzeg.apis.banks import Banks
from alignzeg.apis.hints import PROBES
from mmseg_alignzeg.datasets.patterns import CLASSES, UNSEEN_CLASSES, draw_scene
from mmseg_alignzeg.models import answer, inference, text_bank
from mmseg_alignzeg.models.tiling import Tiling

WORDS = ['red stripes', 'sky 🌊', 'Blue  Checks']


@pytest.fixture(scope='module')
def shipped():
    return AlignZegInferencer(device='cpu')


@pytest.fixture
def inferencer(shipped):
    """A copy without text embeddings, so that tests do not lean on each other."""
    fresh = copy.copy(shipped)
    fresh.model = copy.copy(shipped.model)
    fresh.model.text_bank = text_bank.TextBank(shipped.model.text_bank.source, 'vild')
    fresh._banks = Banks(fresh.model.text_bank)
    return fresh


@pytest.fixture(scope='module')
def scene():
    return draw_scene(1, 0)


def normalised(image):
    """(1, 3, H, W) by CLIP's mean and deviation; the sides are whole patches already."""
    pixels = (image - np.array([122.7709, 116.7460, 104.0937])) / np.array([68.5005, 66.6322, 70.3232])
    return torch.from_numpy(pixels).float().permute(2, 0, 1)[None]


@pytest.fixture
def pictures(tmp_path):
    """A folder with three pictures of different sizes, one broken and a text file that is called .jpg."""
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for i, size in enumerate([(128, 128), (160, 100), (128, 128)]):
        Image.fromarray(draw_scene(1, i)[0]).resize(size).save(folder / f'{i}.png')
    whole = (folder / '0.png').read_bytes()
    (folder / '0_cut.png').write_bytes(whole[: len(whole) // 2])
    (folder / '1_text.jpg').write_text('no picture')
    return folder


def test_the_shipped_model_labels_a_scene(shipped, scene):
    image, labels = scene
    result = shipped(image)[0]
    known = labels != 255
    assert (result.labels[known] == labels[known]).mean() > 0.9
    assert isinstance(result, Prediction) and result.name == 'array 0' and result.labels.dtype == np.uint8
    assert result.classes == CLASSES and result.unseen == UNSEEN_CLASSES
    assert (result.image == image).all() and result.notes == () and result.proposals is None
    shares = result.shares()
    assert list(shares) == list(CLASSES) and sum(shares.values()) == pytest.approx(1)
    assert shares['blue stripes'] == pytest.approx((result.labels == CLASSES.index('blue stripes')).mean())


@pytest.mark.parametrize('size', [(128, 128), (200, 90), (70, 300)])
def test_labels_are_those_of_the_test_pipeline(shipped, size, tmp_path):
    path = str(tmp_path / 'image.png')
    Image.fromarray(draw_scene(1, 3)[0]).resize(size).save(path)
    steps = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(512, 128), keep_ratio=True)]
    packed = Compose([*steps, dict(type='PackSegInputs')])(dict(img_path=path))
    with torch.no_grad():
        expected = shipped.model.test_step(pseudo_collate([packed]))[0].pred_sem_seg.data
    result = shipped(path, return_datasamples=True)[0]
    assert torch.equal(result.pred_sem_seg.data, expected) and expected.shape == (1, size[1], size[0])
    assert result.classes == CLASSES and result.unseen_classes == UNSEEN_CLASSES and result.img_path == path


def test_a_folder_is_done_although_some_of_it_is_broken(inferencer, pictures):
    one_by_one = list(inferencer.stream(pictures))
    together = inferencer(pictures, batch_size=4)
    for results in (one_by_one, together):
        assert [result.name for result in results] == [str(file) for file in sorted(pictures.iterdir())]
        assert [type(result) for result in results] == [Prediction, Failure, Prediction, Failure, Prediction]
        assert results[1].message.startswith('cannot be read: ')
        assert results[3].message == 'is not an image that Pillow can read (10 bytes)'
    for alone, batched in zip(one_by_one[::2], together[::2], strict=True):
        assert np.array_equal(alone.labels, batched.labels)
    assert isinstance(inferencer(pictures, return_datasamples=True)[1], Failure)
    with pytest.raises(ValueError, match=r'1_text.jpg: .* \(10 bytes\) \(and 1 more\)$'):
        inferencer([pictures / '1_text.jpg', pictures / '0_cut.png'])


def test_pictures_are_read_when_it_is_their_turn(inferencer, pictures):
    results = inferencer.stream(pictures)
    next(results)
    (pictures / '2.png').unlink()
    assert list(results)[-1].message == 'no longer exists'


def test_the_text_tower_reads_a_vocabulary_once(inferencer, scene, monkeypatch):
    calls = []
    embed = text_bank.embed_classes
    monkeypatch.setattr(text_bank, 'embed_classes', lambda *args: calls.append(args[2:4]) or embed(*args))
    monkeypatch.setattr(text_bank.TextBank, '_store', staticmethod(lambda *_: None))  # no help from the disk
    inferencer([scene[0]] * 2, classes=WORDS)
    inferencer(scene[0], classes=WORDS, gamma=0.7, others=True)
    inferencer(scene[0], classes=WORDS, pbc=False)
    words = tuple(' '.join(word.split()) for word in WORDS)
    assert [names for names, _ in calls] == [words, CLASSES, PROBES]  # the last two for hints
    inferencer(scene[0], classes=WORDS, templates='single')
    inferencer(scene[0], classes=WORDS, templates='single', unseen=[])
    assert [len(templates) for _, templates in calls] == [14] * 3 + [1] * 3


def test_a_call_leaves_nothing_behind(inferencer, scene):
    image = scene[0]
    first = inferencer(image)[0]
    before = dict(inferencer.model.__dict__)
    expected = inferencer(image, classes=WORDS, unseen=[], others=True, gamma=0.9, templates='single')[0]
    early = inferencer.stream([image, image], classes=WORDS, unseen=[], others=True, gamma=0.9, templates='single')
    next(early)
    again = inferencer(image)[0]
    assert np.array_equal(first.labels, again.labels) and again.classes == CLASSES
    assert inferencer.model.__dict__ == before
    assert np.array_equal(next(early).labels, expected.labels)


def test_gamma_and_unseen_reach_the_bias_correction(inferencer, scene):
    """With the smallest γ every proposal is corrected: what is seen keeps nothing."""
    image = scene[0]
    unseen = [CLASSES.index(name) for name in UNSEEN_CLASSES]
    plain = inferencer(image, pbc=False)[0]
    assert np.isin(plain.labels, unseen, invert=True).any()
    assert np.isin(inferencer(image, gamma=1e-9)[0].labels, unseen).all()
    assert (inferencer(image, gamma=1e-9, unseen=['blue dots'])[0].labels == CLASSES.index('blue dots')).all()
    assert np.array_equal(inferencer(image, gamma=1.0)[0].labels, plain.labels)  # I never exceeds 1
    assert np.array_equal(inferencer(image, gamma=1e-9, pbc=False)[0].labels, plain.labels)
    same = inferencer(image, gamma=1e-9, classes=[name.upper() for name in CLASSES])[0]
    assert np.isin(same.labels, unseen).all()  # case does not make a word unseen


def test_others_are_pixels_where_no_word_reaches_one_half(inferencer, scene):
    image, model = scene[0], inferencer.model
    with torch.no_grad():
        found = model.extract_feat(normalised(image))
        masks = F.interpolate(found.mask_logits, size=(128, 128), mode='bilinear').sigmoid()
        scores = torch.einsum('nhw,nc->hwc', masks[0], model.class_probs(found)[0])
    expected = torch.where(scores.amax(-1) < 0.5, 20, scores.argmax(-1)).numpy()
    result = inferencer(image, others=True)[0]
    assert result.classes == (*CLASSES, 'others') and result.unseen == UNSEEN_CLASSES
    assert 0.1 < (expected == 20).mean() < 0.9
    assert (result.labels == expected).mean() > 0.999  # the order of sums may tip a pixel


def test_proposals_hold_pixels_and_are_sorted(inferencer, scene, monkeypatch):
    image, model = scene[0], inferencer.model
    with torch.no_grad():
        found = model.extract_feat(normalised(image))
        masks = F.interpolate(found.mask_logits, size=(128, 128), mode='bilinear')[0] > 0
        probs, labels = model.class_probs(found)[0].max(dim=1)
        indicator = model.class_indicator(found.feats)[0].sigmoid()
    order = [n for n in probs.argsort(descending=True).tolist() if masks[n].any()]
    proposals = inferencer(image, proposals=True)[0].proposals
    assert len(proposals) == len(order) > 5
    for proposal, n in zip(proposals, order, strict=True):
        assert (proposal.mask == masks[n].numpy()).mean() > 0.999 and proposal.mask.any()
        assert proposal.label == CLASSES[labels[n]]
        assert proposal.score == pytest.approx(float(probs[n]), abs=1e-5)
        assert proposal.unseen_score == pytest.approx(float(indicator[n]), abs=1e-5)
    monkeypatch.setattr(prediction, 'MASK_BYTES', 3 * 128 * 128)
    short = inferencer(image, proposals=True)[0]
    assert [p.score for p in short.proposals] == [p.score for p in proposals[:3]]
    assert short.notes == (f'{len(order) - 3} more proposals are left out: their masks would take too much memory',)


def test_proposals_cost_nothing_when_nobody_asks(inferencer, scene, monkeypatch):
    def refuse(*_):
        raise AssertionError('masks were made')

    monkeypatch.setattr(prediction, 'binary_masks', refuse)
    assert inferencer(scene[0])[0].proposals is None
    with pytest.raises(AssertionError, match='masks were made'):
        inferencer(scene[0], proposals=True)


def test_sizes_from_one_pixel_to_a_long_strip(inferencer):
    dot = inferencer(np.full((1, 1, 3), 200, np.uint8))[0]
    assert dot.labels.shape == (1, 1) and dot.notes == ()
    for size in ((12000, 40), (1, 12000)):
        strip = inferencer(np.zeros((*size, 3), np.uint8))[0]
        assert strip.labels.shape == size
        inputs = {(12000, 40): '2 × 512', (1, 12000): '512 × 1'}[size]
        assert strip.notes == (f'scaled from {size[1]} × {size[0]} to {inputs} pixels for the model',)


def test_labels_of_a_large_picture_are_drawn_smaller(inferencer, scene, monkeypatch):
    image = np.asarray(Image.fromarray(scene[0]).resize((300, 200)))
    fine = inferencer(image)[0]
    monkeypatch.setattr(prediction, 'DRAWN_PIXELS', 200 * 300 // 4)
    coarse = inferencer(image, proposals=True)[0]
    assert coarse.labels.shape == (200, 300)
    assert coarse.notes[-1] == 'labels drawn at 150 × 100 pixels and enlarged'
    assert all(proposal.mask.shape == (200, 300) for proposal in coarse.proposals)
    blocks = coarse.labels.reshape(100, 2, 150, 2)
    assert (blocks == blocks[:, :1, :, :1]).all()
    assert (coarse.labels == fine.labels).mean() > 0.95
    assert coarse.shares() == pytest.approx(
        {name: float((coarse.labels == i).mean()) for i, name in enumerate(CLASSES)}
    )


def test_no_full_size_scores_are_made(inferencer, monkeypatch):
    """The largest tensor of a stripe stays as small as inference.py says, whatever the picture."""
    sizes = []
    scores = answer.Answer._scores

    def watched(self, masks, columns):
        found = scores(self, masks, columns)
        sizes.append(max(found.numel(), *(part.numel() for part in masks)))
        return found

    monkeypatch.setattr(answer.Answer, '_scores', watched)
    inferencer(np.zeros((900, 1000, 3), np.uint8))
    assert len(sizes) > 5 and max(sizes) <= inference.STRIPE_ELEMENTS['cpu']


def test_windows_keep_the_size_of_a_large_picture(inferencer):
    """Scenes side by side: scaled down, their patterns are lost; in windows, they are those of each scene."""
    scenes = [draw_scene(1, i)[0] for i in range(4)]
    large = np.concatenate([np.concatenate(scenes[:2], axis=1), np.concatenate(scenes[2:], axis=1)])
    assert max(large.shape) > min(inferencer.input_scale)
    apart = [result.labels for result in inferencer(scenes)]
    expected = np.concatenate([np.concatenate(apart[:2], axis=1), np.concatenate(apart[2:], axis=1)])
    result = inferencer(large, windows=(128, 128))[0]
    assert (result.labels == expected).mean() > 0.999 and not result.notes
    assert (inferencer(large)[0].labels == expected).mean() < 0.9
    blended = inferencer(large, windows=[128, 64])[0].labels
    assert 0.8 < (blended == expected).mean() < 1


@pytest.mark.parametrize('windows', [640, (640,), (640, 0), (64, 128), (1.5, 1), ('640', '480'), (640, 70)])
def test_windows_are_checked(inferencer, windows):
    with pytest.raises(ValueError, match=r'[Ww]indows'):
        inferencer(np.zeros((9, 9, 3), np.uint8), windows=windows)


def test_proposals_are_those_of_whole_images(inferencer):
    with pytest.raises(ValueError, match='whole images'):
        inferencer(np.zeros((9, 9, 3), np.uint8), windows=(64, 48), proposals=True)


@pytest.mark.parametrize('dtype', ['bf16', 'fp16'])
def test_half_precision_agrees(inferencer, scene, dtype):
    expected = inferencer(scene[0])[0].labels
    inferencer.dtype = dtype
    labels = inferencer(scene[0])[0].labels
    assert 0.9 < (labels == expected).mean()


def test_more_than_255_words(inferencer, scene):
    names = [f'thing {i}' for i in range(300)]
    result = inferencer(scene[0], classes=[*names, *CLASSES], templates='single')[0]
    assert result.labels.dtype == np.uint16 and result.labels.max() >= 300


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(classes=[]), '`classes` is empty'),
        (dict(classes=['cat', 'Others'], others=True), "`classes` .*'others'"),
        (dict(gamma=0), r'gamma=0 must be in \(0, 1\].*pbc=False'),
        (dict(gamma=1.5), 'gamma=1.5 must be in'),
        (dict(gamma=float('nan')), 'gamma=nan must be in'),
        (dict(gamma='0.3'), "gamma='0.3' must be in"),
        (dict(templates='nice'), "Unknown template set 'nice'"),
        (dict(batch_size=0), 'batch_size=0 must be a whole number'),
        (dict(unseen=['owl']), '`unseen` names owl'),
    ],
)
def test_arguments_are_checked_before_anything_is_read(inferencer, scene, arguments, message):
    with pytest.raises(ValueError, match=message):
        inferencer.stream(scene[0], **arguments)


def test_devices_and_types_that_are_not_there(monkeypatch):
    with pytest.raises(ValueError, match=r"dtype='int8' must be one of \['fp32', 'fp16', 'bf16'\]"):
        AlignZegInferencer(dtype='int8')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    with pytest.raises(ValueError, match=r"device='cuda' .* 0 CUDA device"):
        AlignZegInferencer(device='cuda')
    with pytest.raises(ValueError, match="device='abacus'"):
        AlignZegInferencer(device='abacus')


@pytest.fixture
def toy(tmp_path):
    """A small untrained model as a config and a checkpoint, and what it was made of."""
    cfg = Config.fromfile('configs/alignzeg_patterns.py')
    cfg.model.decode_head.num_queries = 4
    cfg.model.class_indicator.top_k = 2
    cfg.dump(tmp_path / 'toy.py')
    save(cfg, tmp_path / 'toy.pth')
    return cfg


def save(cfg, path):
    model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(alignzeg=model.checkpoint_identity())), path)


def test_a_config_with_its_checkpoint(toy, tmp_path, scene):
    inferencer = AlignZegInferencer(tmp_path / 'toy.py', str(tmp_path / 'toy.pth'), device='cpu')
    assert inferencer.input_scale == (512, 128)  # the training images, as the pipeline has no resize
    assert inferencer(scene[0], proposals=True)[0].labels.shape == (128, 128)
    toy.test_dataloader.dataset.pipeline.insert(1, dict(type='ResizeShortestEdge', scale=(64, 96), max_size=200))
    toy.dump(tmp_path / 'resized.py')
    assert tuple(AlignZegInferencer(tmp_path / 'resized.py', tmp_path / 'toy.pth').input_scale) == (200, 64)


def test_a_model_without_indicator(toy, tmp_path, scene):
    toy.model.update(class_indicator=None, bias_correction=None)
    toy.dump(tmp_path / 'plain.py')
    save(toy, tmp_path / 'plain.pth')
    inferencer = AlignZegInferencer(tmp_path / 'plain.py', tmp_path / 'plain.pth')
    with pytest.raises(ValueError, match=r'gamma=0.3 needs φ_bc'):
        inferencer(scene[0], gamma=0.3)
    result = inferencer(scene[0], proposals=True)[0]
    assert all(proposal.unseen_score is None for proposal in result.proposals)


def test_bias_correction_that_the_config_left_out(toy, tmp_path, scene):
    toy.model.bias_correction = None
    toy.dump(tmp_path / 'late.py')
    inferencer = AlignZegInferencer(tmp_path / 'late.py', tmp_path / 'toy.pth')
    usual = AlignZegInferencer(tmp_path / 'toy.py', tmp_path / 'toy.pth')  # γ = 0.3
    assert np.array_equal(inferencer(scene[0])[0].labels, usual(scene[0], pbc=False)[0].labels)
    assert np.array_equal(inferencer(scene[0], gamma=0.3)[0].labels, usual(scene[0])[0].labels)


def test_names_of_a_file_do_not_stand_in_the_way_of_other_words(toy, tmp_path, scene):
    (tmp_path / 'names.txt').write_text('blue dots: azure polka dots\n')
    toy.model.text = dict(toy.model.get('text', {}), names=dict(source=str(tmp_path / 'names.txt')))
    toy.dump(tmp_path / 'named.py')
    inferencer = AlignZegInferencer(tmp_path / 'named.py', tmp_path / 'toy.pth')
    assert inferencer(scene[0], classes=['cat', 'dog'])[0].classes == ('cat', 'dog')
    assert inferencer(scene[0])[0].classes == CLASSES


def test_models_and_weights_that_do_not_go_together(toy, tmp_path):
    config, weights = tmp_path / 'toy.py', tmp_path / 'toy.pth'
    with pytest.raises(ValueError, match=r"toy.pth' need the config .*, as in Align"):
        AlignZegInferencer(weights=weights)
    with pytest.raises(ValueError, match=r'toy.pth is neither a config .*weights'):
        AlignZegInferencer(weights)
    with pytest.raises(
        ValueError, match=r"The config .*toy.py needs weights: AlignZegInferencer\('toy.py', 'weights.pth'\)"
    ):
        AlignZegInferencer(config)
    with pytest.raises(FileNotFoundError, match="'nowhere' does not exist: give a config"):
        AlignZegInferencer('nowhere')
    with pytest.raises(FileNotFoundError, match=r'gone\.pth'):
        AlignZegInferencer(config, tmp_path / 'gone.pth')
    with pytest.raises(FileNotFoundError, match=r'has no config\.json'):
        AlignZegInferencer(tmp_path)
    with pytest.raises(ValueError, match=r'toy.pth'):
        AlignZegInferencer(tmp_path, weights)
    toy.model.decoder = dict(type='OracleDecoder')
    toy.dump(tmp_path / 'oracle.py')
    with pytest.raises(ValueError, match='OracleDecoder'):
        AlignZegInferencer(tmp_path / 'oracle.py', weights)


def test_an_ensemble_is_served(inferencer, scene):
    views = [dict(), dict(scale=0.875), dict(scale=1.125)]
    inferencer.model.decoder = MODELS.build(dict(type='EnsembleDecoder', views=views))
    result = inferencer(scene[0], proposals=True)[0]
    plain = copy.copy(inferencer)
    plain.model = copy.copy(inferencer.model)
    plain.model.decoder = MODELS.build(dict(type='SemanticDecoder'))
    alone = plain(scene[0], proposals=True)[0]
    with torch.no_grad():
        (answer,) = inferencer.model.predict(normalised(scene[0]))
    assert np.array_equal(result.labels, answer.pred_sem_seg.data[0].numpy())
    assert (result.labels != alone.labels).any()
    shown = zip(result.proposals, alone.proposals, strict=True)  # proposals are those of the image itself
    assert all(np.array_equal(ours.mask, theirs.mask) and ours.score == theirs.score for ours, theirs in shown)


def test_windows_are_blended(inferencer, scene):
    inferencer.model.tiling = Tiling((64, 96), (48, 48))
    result = inferencer(scene[0])[0]
    with torch.no_grad():
        (answer,) = inferencer.model.predict(normalised(scene[0]))
    assert np.array_equal(result.labels, answer.pred_sem_seg.data[0].numpy())
    with pytest.raises(ValueError, match='whole images'):
        inferencer(scene[0], proposals=True)


def test_weights_of_another_vocabulary_or_clip_are_refused(toy, tmp_path):
    checkpoint = torch.load(tmp_path / 'toy.pth', weights_only=True)
    checkpoint['meta']['alignzeg'].update(classes=['cat', 'dog'], clip='ViT-B-16:0')
    torch.save(checkpoint, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=r'`classes`: .*; `clip`: ') as caught:
        AlignZegInferencer(tmp_path / 'toy.py', tmp_path / 'other.pth')
    assert '\n' not in str(caught.value)
