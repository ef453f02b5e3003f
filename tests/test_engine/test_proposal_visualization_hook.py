"""A real runner tests scenes of the embedded world; what is pictured equals what the model predicts."""

import itertools
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.registry import HOOKS, MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import seg_data_to_instance_data

from mmseg_alignzeg.datasets.patterns import CLASSES, UNSEEN_CLASSES, draw_scene
from mmseg_alignzeg.engine import ProposalVisualizationHook
from mmseg_alignzeg.engine import proposal_visualization_hook as hook_module
from mmseg_alignzeg.engine.proposal_visualization_hook import embed, sample_classes
from mmseg_alignzeg.visualization.inspection import (
    find_corrections,
    inspect_image,
    matched_features,
    original_image,
)

RUN = itertools.count()
SEEN = torch.tensor([name not in UNSEEN_CLASSES for name in CLASSES])


@pytest.fixture
def cfg():
    cfg = Config.fromfile('configs/alignzeg_patterns.py')
    cfg.model.text = dict(templates='single')
    cfg.model.decode_head.num_queries = 24
    cfg.test_dataloader.update(num_workers=0, batch_size=2)
    cfg.test_dataloader.dataset.length = 3
    return cfg


@pytest.fixture
def model(cfg):
    """An untrained model whose PBC corrects about half of the proposals, and whose background is silent."""
    model = MODELS.build(cfg.model).eval()
    proposals = model.extract_feat(torch.randn(1, 3, 128, 128))
    model.question.bias_correction.gamma = model.class_indicator(proposals.feats).sigmoid().median().item()
    return model


@pytest.fixture
def make_runner(cfg, model, tmp_path):
    def make(hook, model=model):
        name = f'pictures {next(RUN)}'  # visualizers of one name would be one
        return Runner(
            model=model,
            work_dir=str(tmp_path),
            # As `mim test` does it: training is described, and never built.
            train_dataloader=dict(dataset=dict(type='NoSuchDataset')),
            train_cfg=cfg.train_cfg,
            optim_wrapper=cfg.optim_wrapper,
            test_dataloader=cfg.test_dataloader,
            test_cfg=dict(type='TestLoop'),
            test_evaluator=cfg.test_evaluator,
            visualizer={**cfg.visualizer, 'name': name},
            custom_hooks=[dict(type='VocabularyHook'), hook],
            default_scope='mmseg',
            experiment_name=name,
        )

    return make


@pytest.fixture
def drawn(monkeypatch):
    """Arguments of the drawing functions, in place of the pictures."""
    calls = dict(predictions_picture=[], corrections_picture=[], features_picture=[])
    for name, arguments in calls.items():

        def record(*args, arguments=arguments):
            arguments.append(args)
            return np.zeros((4, 4, 3), dtype=np.uint8)

        monkeypatch.setattr(hook_module, name, record)
    return calls


def scene(cfg, index):
    """Input, labels and sample of a test scene, as the loader gives them, without the loader."""
    image, labels = draw_scene(cfg.test_dataloader.dataset.seed, index)
    labels = torch.from_numpy(labels.astype(np.int64))
    sample = SegDataSample(gt_sem_seg=PixelData(data=labels[None]), metainfo=dict(ori_shape=(128, 128)))
    return image, torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1), labels, sample


def run_model(model, inputs, sample, question=None):
    data = model.data_preprocessor(dict(inputs=[inputs], data_samples=[sample]))
    return model.predict(**data, question=question)[0].pred_sem_seg.data[0]


def test_pictured_predictions_are_those_of_the_model(cfg, model, make_runner, drawn):
    make_runner(dict(type='ProposalVisualizationHook', num_images=2)).test()
    assert len(drawn['predictions_picture']) == 2
    differ = []
    for index, (image, maps, vocabulary, palette) in enumerate(drawn['predictions_picture']):
        pixels, inputs, labels, sample = scene(cfg, index)
        assert np.array_equal(image, pixels)
        assert vocabulary.unseen_classes == UNSEEN_CLASSES and len(palette) == len(CLASSES)
        without = run_model(model, inputs, sample, model.question.without_correction())
        expected = [labels, without, run_model(model, inputs, sample)]
        assert [heading for heading, _ in maps] == ['ground truth', 'without PBC', 'with PBC']
        for (_, shown), wanted in zip(maps, expected, strict=True):
            assert np.array_equal(shown, torch.where(labels == 255, len(CLASSES), wanted).numpy())
        differ.append(bool((maps[1][1] != maps[2][1]).any()))
    assert any(differ)


def test_corrections_equal_a_loop_over_proposals(cfg, model, make_runner, drawn):
    make_runner(dict(type='ProposalVisualizationHook', num_images=3, num_proposals=4)).test()
    assert drawn['corrections_picture']
    wanted = []
    for index in range(3):
        _, inputs, _, sample = scene(cfg, index)
        images = model.data_preprocessor(dict(inputs=[inputs], data_samples=[sample]))['inputs']
        with torch.no_grad():
            proposals = model.extract_feat(images)
            scores = model.classify(proposals, model.text_bank(CLASSES, 'cpu'))[0]
            indicator = model.class_indicator(proposals.feats)[0].sigmoid()
        masks = F.interpolate(proposals.mask_logits, size=(128, 128), mode='bilinear')[0].sigmoid() > 0.5
        rows = []
        for n in range(len(scores)):
            corrected = scores[n].clone()
            if indicator[n] > model.question.bias_correction.gamma:
                corrected[:-1][SEEN] = scores.min()
            probs = [logits.exp() / logits.exp().sum() for logits in (scores[n], corrected)]
            before, after = (int(p[:-1].argmax()) for p in probs)
            if before != after and masks[n].any():
                rows.append((masks[n], indicator[n], before, after, probs[0][before], probs[1][after]))
        rows.sort(key=lambda row: -int(row[0].sum()))
        if rows:
            wanted.append(rows[:4])
    assert len(drawn['corrections_picture']) == len(wanted)
    for (_, corrections, _, _, gamma), rows in zip(drawn['corrections_picture'], wanted, strict=True):
        assert gamma == model.question.bias_correction.gamma and len(corrections) == len(rows)
        for found, (mask, value, before, after, prob_before, prob_after) in zip(corrections, rows, strict=True):
            assert (found.mask != mask.numpy()).mean() < 1e-3 and (found.before, found.after) == (before, after)
            assert SEEN[before] and not SEEN[after]
            numbers = (found.indicator, found.prob_before, found.prob_after)
            assert numbers == pytest.approx((value.item(), prob_before.item(), prob_after.item()), abs=1e-5)


def test_an_image_without_a_corrected_proposal_has_one_picture(model, make_runner, drawn):
    model.question.bias_correction.gamma = 1.0
    make_runner(dict(type='ProposalVisualizationHook', num_images=1)).test()
    assert len(drawn['predictions_picture']) == 1 and not drawn['corrections_picture']


def test_masks_without_a_pixel_are_left_out(cfg, model):
    _, inputs, _, sample = scene(cfg, 0)
    found = inspect_image(model, inputs, sample)
    assert find_corrections(found, SEEN, 24)
    found.masks = torch.full_like(found.masks, -1.0)
    assert find_corrections(found, SEEN, 24) == []


@pytest.mark.parametrize('change', [dict(bias_correction=None), dict(decoder=dict(type='OracleDecoder'))])
def test_without_pbc_there_is_one_prediction(cfg, make_runner, drawn, change):
    model = MODELS.build({**cfg.model, **change})
    make_runner(dict(type='ProposalVisualizationHook', num_images=1), model).test()
    ((_, maps, _, _),) = drawn['predictions_picture']
    _, inputs, labels, sample = scene(cfg, 0)
    assert [heading for heading, _ in maps] == ['ground truth', 'prediction'] and not drawn['corrections_picture']
    assert np.array_equal(maps[1][1][labels != 255], run_model(model, inputs, sample)[labels != 255])


def test_inspecting_leaves_the_model_alone(cfg, model):
    before, (_, inputs, _, sample) = model.question, scene(cfg, 0)
    inspect_image(model, inputs, sample)
    assert model.question is before


def test_inspecting_changes_neither_sample_nor_random_state(cfg, model):
    _, inputs, labels, sample = scene(cfg, 0)
    keys, state = sorted(sample.all_keys()), torch.get_rng_state()
    found = inspect_image(model, inputs, sample)
    first = matched_features(model, found, labels, seed=1)
    assert torch.equal(torch.get_rng_state(), state) and sorted(sample.all_keys()) == keys
    torch.rand(5)
    second = matched_features(model, found, labels, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_only_images_with_an_unseen_class(cfg, make_runner, drawn):
    unseen = [CLASSES.index(name) for name in UNSEEN_CLASSES]
    wanted = [i for i in range(3) if np.isin(draw_scene(cfg.test_dataloader.dataset.seed, i)[1], unseen).any()]
    assert 0 < len(wanted) < 3
    make_runner(dict(type='ProposalVisualizationHook', unseen_only=True)).test()
    pixels = [draw_scene(cfg.test_dataloader.dataset.seed, i)[0] for i in wanted]
    shown = [args[0] for args in drawn['predictions_picture']]
    assert len(shown) == len(pixels) and all(np.array_equal(a, b) for a, b in zip(shown, pixels, strict=True))


def test_files_of_the_local_backend(make_runner, tmp_path):
    make_runner(dict(type='ProposalVisualizationHook', num_images=2, num_proposals=2)).test()
    files = {path.name: path for path in tmp_path.rglob('vis_image/*.png')}
    names = {f'test_000{i}_{i}_{kind}_0.png' for i in range(2) for kind in ('predictions', 'corrections')}
    assert set(files) == names
    picture = cv2.imread(str(files['test_0001_1_predictions_0.png']))[..., ::-1]
    image = draw_scene(2, 1)[0].repeat(3, 0).repeat(3, 1)
    assert np.array_equal(picture[39 : 39 + 384, 13 : 13 + 384], image)


def test_map_has_the_features_that_matching_gives(cfg, model, make_runner, drawn, monkeypatch):
    given = []
    monkeypatch.setattr(hook_module, 'embed', lambda *args: given.append(args) or np.zeros((len(args[0]), 2)))
    runner = make_runner(dict(type='ProposalVisualizationHook', num_images=0, tsne=True, tsne_classes=3, seed=7))
    runner.test()
    features, labels = [], []
    for index in range(3):
        _, inputs, _, sample = scene(cfg, index)
        data = model.data_preprocessor(dict(inputs=[inputs], data_samples=[sample]))
        with torch.no_grad():
            proposals = model.extract_feat(data['inputs'])
            scores = model.classify(proposals, model.text_bank(CLASSES, 'cpu'))
        (target,) = targets = seg_data_to_instance_data(255, data['data_samples'])
        torch.manual_seed(7)
        (match,) = model.criterion.matcher(scores, proposals.mask_logits, targets)
        for proposal, number in zip(match.proposals, match.targets, strict=True):
            features.append(proposals.cls_feats[0, proposal].numpy())
            labels.append(int(target.labels[number]))
    kept = sample_classes(np.array(labels), SEEN.numpy(), 3, 7)
    assert sum(bool(SEEN[label]) for label in kept) == 3
    ((shown, seed),) = given
    ((points, shown_labels, _),) = drawn['features_picture']
    order = [i for i, label in enumerate(labels) if label in kept]
    assert seed == 7 and len(points) == len(order) and not drawn['predictions_picture']
    assert shown_labels.tolist() == [labels[i] for i in order]
    np.testing.assert_allclose(shown, np.stack([features[i] for i in order]), atol=1e-5)


def test_labels_of_a_resized_image_are_matched_on_the_input(cfg, model):
    _, inputs, labels, sample = scene(cfg, 0)
    whole = matched_features(model, inspect_image(model, inputs, sample), labels, seed=0)
    sample.set_metainfo(dict(ori_shape=(256, 256)))
    found = inspect_image(model, inputs, sample)
    large = matched_features(model, found, labels.repeat_interleave(2, 0).repeat_interleave(2, 1), seed=0)
    assert found.labels.shape == (256, 256) and all(torch.equal(a, b) for a, b in zip(whole, large, strict=True))


def test_sampled_classes_are_of_both_kinds():
    labels, seen = np.array([0, 0, 2, 3, 5, 6, 7]), np.arange(8) < 4
    assert sample_classes(labels, seen, 5, 0) == [0, 2, 3, 5, 6, 7]
    lots = [sample_classes(labels, seen, 1, seed) for seed in range(20)]
    assert all(lot[0] in (0, 2, 3) and lot[1] in (5, 6, 7) for lot in lots) and len(set(map(tuple, lots))) > 1
    assert sample_classes(labels, seen, 1, 3) == lots[3]


def test_t_sne_keeps_clusters_apart_and_repeats_itself():
    pytest.importorskip('sklearn')
    generator = np.random.default_rng(0)
    features = generator.normal(size=(24, 8)).astype(np.float32) / 20 + np.repeat(np.eye(2, 8), 12, axis=0)
    points = embed(features.astype(np.float32), 0)
    assert points.shape == (24, 2) and np.array_equal(points, embed(features.astype(np.float32), 0))
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert ((distances.argmin(axis=1) < 12) == (np.arange(24) < 12)).all()
    assert embed(features[:5].astype(np.float32), 0).shape == (5, 2)


def test_missing_scikit_learn_is_said_at_the_start(make_runner, monkeypatch):
    for name in [name for name in sys.modules if name.split('.')[0] == 'sklearn']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'sklearn', None)
    runner = make_runner(dict(type='ProposalVisualizationHook', tsne=True))
    with pytest.raises(ImportError, match='pip install scikit-learn') as error:
        runner.test()
    assert '\n' not in str(error.value)
    runner.call_hook('after_test_epoch', metrics={})  # nothing was begun
    make_runner(dict(type='ProposalVisualizationHook')).call_hook('before_test')  # without a map it is not needed


def test_too_few_points_for_a_map_are_said(make_runner, drawn, monkeypatch):
    pytest.importorskip('sklearn')
    runner, lines = make_runner(dict(type='ProposalVisualizationHook', tsne=True, tsne_classes=0)), []
    monkeypatch.setattr(runner.logger, 'warning', lines.append)
    runner.test()
    assert not drawn['features_picture']
    assert any('it has 0 matched proposals and needs 5' in str(line) for line in lines)


def fake_runner(model, palette=None):
    """The few attributes of a runner that the hook reads at the start."""
    lines = []
    logger = SimpleNamespace(warning=lines.append)
    visualizer = SimpleNamespace(dataset_meta=dict(palette=palette))
    return SimpleNamespace(model=model, logger=logger, visualizer=visualizer, lines=lines)


def batch_of(cfg, index=0):
    _, inputs, _, sample = scene(cfg, index)
    output = SegDataSample(pred_sem_seg=PixelData(data=torch.zeros(1, 128, 128).long()))
    return dict(inputs=[inputs], data_samples=[sample]), [output]


@pytest.mark.parametrize('rank', [0, 1])
def test_the_first_process_draws_a_wrapped_model(cfg, model, drawn, monkeypatch, rank):
    monkeypatch.setattr(hook_module, 'is_main_process', lambda: rank == 0)
    shown = []
    runner = fake_runner(torch.nn.DataParallel(model), [[0, 0, 0]] * 30)
    runner.visualizer.add_image = lambda name, picture, step: shown.append((name, step))
    runner.test_loop, runner._train_loop = SimpleNamespace(fp16=False), dict(type='IterBasedTrainLoop')
    hook = ProposalVisualizationHook()
    hook.before_test(runner)
    hook.after_test_iter(runner, 0, *batch_of(cfg))
    hook.after_test_epoch(runner)
    wanted = [('test_0000_image_predictions', 0), ('test_0000_image_corrections', 0)]
    assert shown == (wanted if rank == 0 else []) and not runner.lines
    if rank == 0:
        assert len(drawn['predictions_picture'][0][3]) == len(CLASSES)


def test_other_models_are_left_alone(cfg):
    hook = HOOKS.build(dict(type='ProposalVisualizationHook', tsne=True))
    runner = fake_runner(torch.nn.Linear(2, 2))
    hook.before_test(runner)
    hook.after_test_iter(runner, 0, *batch_of(cfg))
    hook.after_test_epoch(runner)
    assert runner.lines == ['ProposalVisualizationHook draws nothing: the model is a Linear, not an AlignZeg.']


def test_data_without_colours_and_negative_numbers_are_refused(model):
    with pytest.raises(ValueError, match=r'has 0 colours for 20 classes.*`palette`'):
        ProposalVisualizationHook().before_test(fake_runner(model))
    with pytest.raises(ValueError, match='num_images=-1 must be at least 0'):
        ProposalVisualizationHook(num_images=-1)


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', None])
def test_image_is_drawn_as_it_was(direction):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    given = image[..., ::-1]  # BGR
    if direction:
        given = np.flip(given, 1 if direction == 'horizontal' else 0)
    inputs = torch.from_numpy(np.ascontiguousarray(given)).permute(2, 0, 1)
    metainfo = dict(ori_shape=(20, 30), flip=bool(direction), flip_direction=direction)
    assert np.array_equal(original_image(inputs, metainfo, bgr=True), image)
    assert np.array_equal(original_image(inputs, metainfo, bgr=False), image[..., ::-1])
    padded = F.pad(inputs, (0, 7, 0, 5))
    metainfo['img_padding_size'] = (0, 7, 0, 5)
    assert np.array_equal(original_image(padded, metainfo, bgr=True), image)


def test_a_resized_image_gets_its_size_back():
    ramp = np.tile(np.linspace(0, 250, 20), (10, 1))
    image = np.stack([ramp, 250 - ramp, np.full_like(ramp, 80)], axis=-1).astype(np.uint8)
    inputs = torch.from_numpy(image[..., ::-1].repeat(4, 0).repeat(4, 1).copy()).permute(2, 0, 1)
    shown = original_image(inputs, dict(ori_shape=(10, 20)), bgr=True)
    assert shown.shape == image.shape and np.abs(shown.astype(int) - image).max() <= 2
