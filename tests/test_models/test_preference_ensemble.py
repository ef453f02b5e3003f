"""The score for proposals and the ensemble of views, alone and in the segmentor."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_alignzeg.models import PreferenceLoss, Proposals, View, preference_ensemble
from mmseg_alignzeg.models.inference import predict_scores, semantic_stripes
from mmseg_alignzeg.models.preference_ensemble import ViewProposals, merged_stripes
from mmseg_alignzeg.models.preference_head import mask_statistics
from mmseg_alignzeg.models.proposals import Window

CLASSES = ['cat', 'dog', 'sky', 'grass']
TRAINED = dict(preference=dict(type='PreferenceHead'), preference_loss=dict(type='PreferenceLoss'))


def build(model_type='PreferenceAlignZeg', seed=0, **options):
    cfg = Config.fromfile('configs/alignzeg_patterns.py').model
    cfg.update(type=model_type, classes=CLASSES, unseen_classes=['dog'], templates='single')
    cfg.criterion.num_points = 256
    cfg.clip.pretrained = None
    cfg.decode_head.num_queries = options.pop('num_queries', 8)
    cfg.class_indicator.top_k = 4
    cfg.update(options)
    torch.manual_seed(seed)
    return MODELS.build(cfg)


def ensemble(*views, weighting='uniform', **options):
    return MODELS.build(dict(type='PreferenceEnsemble', views=list(views), weighting=weighting, **options))


def batch():
    torch.manual_seed(5)
    labels = torch.randint(0, 3, (2, 1, 2, 2)).repeat_interleave(32, 2).repeat_interleave(32, 3)
    labels[:, :, :8] = 255
    return torch.randn(2, 3, 64, 64), [SegDataSample(gt_sem_seg=PixelData(data=image)) for image in labels]


# ---------------------------------------------------------------------- the score


def test_mask_statistics_by_hand():
    logits = torch.tensor([[[2.0, 0.5], [-0.5, -3.0]], [[-2.0, -2.0], [-2.0, -2.0]]])

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    area = (sigmoid(2) + sigmoid(0.5) + sigmoid(-0.5) + sigmoid(-3)) / 4
    expected = [[area, (sigmoid(2) + sigmoid(0.5)) / 2, 1 / 3], [sigmoid(-2), 0, 0]]
    torch.testing.assert_close(mask_statistics(logits), torch.tensor(expected))


def test_score_reads_directions_and_masks_and_sends_nothing_back():
    head = MODELS.build(dict(type='PreferenceHead', embed_dim=6, hidden_dim=5))
    feats, masks = torch.randn(2, 3, 6, requires_grad=True), torch.randn(2, 3, 4, 4, requires_grad=True)
    scores = head(feats, masks)
    scores.sum().backward()
    assert scores.shape == (2, 3) and feats.grad is None and masks.grad is None
    assert all(param.grad.abs().sum() > 0 for param in head.parameters())
    torch.testing.assert_close(head(9 * feats, masks), scores)
    assert not torch.allclose(head(feats, masks + 1), scores) and not torch.allclose(head(-feats, masks), scores)


# ---------------------------------------------------------------------- merging


def brute_force(views, height, width, temperature=1.0, bias=None):
    """Pixel by pixel, proposal by proposal."""
    num_classes = views[0].class_probs.shape[1]
    masks = [F.interpolate(v.mask_logits[None], size=(height, width), mode='bilinear')[0].sigmoid() for v in views]
    merged = torch.zeros(num_classes, height, width)
    for y in range(height):
        for x in range(width):
            preferred = []
            for view, mask in zip(views, masks, strict=True):
                weights = [float(mask[n, y, x] * view.class_probs[n].sum()) for n in range(len(mask))]
                scores = [0.0] * len(mask) if view.preference is None else view.preference.tolist()
                preferred.append(sum(w * r for w, r in zip(weights, scores, strict=True)) / sum(weights))
            shares = [math.exp(r / temperature) for r in preferred]
            for share, view, mask in zip(shares, views, masks, strict=True):
                for n in range(len(mask)):
                    merged[:, y, x] += share / sum(shares) * mask[n, y, x] * view.class_probs[n]
    return merged if bias is None else merged + bias[:, None, None]


def random_views(scored):
    probs = torch.rand(3, 4, 6).softmax(dim=-1)[..., :-1]  # the last column was the background
    grids = [torch.randn(4, 4, 6), torch.randn(4, 3, 5), torch.randn(4, 5, 7)]
    scores = torch.randn(3, 4) if scored else [None] * 3
    return [ViewProposals(*view) for view in zip(grids, probs, scores, strict=True)]


def merge(views, height=9, width=11, **options):
    window = Window(0, 0, 1, 1, (height, width))
    return torch.cat([scores.clone() for _, scores in merged_stripes(views, window, **options)]).permute(2, 0, 1)


@pytest.mark.parametrize('scored', [False, True])
@pytest.mark.parametrize('temperature', [1.0, 0.3])
def test_merging_by_brute_force(scored, temperature):
    views, bias = random_views(scored), torch.randn(5)
    expected = brute_force(views, 9, 11, temperature, bias)
    torch.testing.assert_close(merge(views, temperature=temperature, class_bias=bias), expected)


def test_stripes_of_merged_views_cover_the_image(monkeypatch):
    views, window, rows = random_views(scored=True), Window(0, 0, 1, 1, (9, 11)), []
    whole = merge(views)
    monkeypatch.setattr(preference_ensemble, 'semantic_stripes', partial(semantic_stripes, max_elements=200))
    for stripe, scores in merged_stripes(views, window):
        rows.append((stripe.start, stripe.stop))
        torch.testing.assert_close(scores.permute(2, 0, 1), whole[:, stripe])
    assert rows == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 9)]  # 200 // (11 · max(4 proposals, 5 classes and 2 more))


def test_only_differences_of_scores_count_and_a_clear_one_decides():
    views = random_views(scored=True)
    plain = merge(views)
    for view in views:
        view.preference = view.preference + 5
    torch.testing.assert_close(merge(views), plain)
    views[1].preference = views[1].preference + 1000
    torch.testing.assert_close(merge(views), merge([ViewProposals(views[1].mask_logits, views[1].class_probs)]))
    unscored = [ViewProposals(view.mask_logits, view.class_probs) for view in views]
    torch.testing.assert_close(merge(views, temperature=1e9), merge(unscored))


# ---------------------------------------------------------------------- the segmentor at test


def test_the_image_alone_is_the_prediction_without_ensemble():
    model = build(return_scores=True, calibration=dict(type='CalibratedStacking', constant=0.1)).eval()
    plain = build('AlignZeg', return_scores=True, calibration=dict(type='CalibratedStacking', constant=0.1)).eval()
    model.ensemble = ensemble(dict())
    images = torch.randn(2, 3, 77, 101)
    metainfo = dict(ori_shape=(60, 70), img_padding_size=(0, 5, 0, 7), flip=True, flip_direction='horizontal')
    for samples in (lambda: None, lambda: [SegDataSample(metainfo=metainfo) for _ in images]):
        for ours, theirs in zip(model.predict(images, samples()), plain.predict(images, samples()), strict=True):
            assert torch.equal(ours.seg_logits.data, theirs.seg_logits.data)
            assert torch.equal(ours.pred_sem_seg.data, theirs.pred_sem_seg.data)
    assert torch.equal(model.encode_decode(images, [{}, {}]), plain.encode_decode(images, [{}, {}]))
    model.return_scores = False
    assert 'seg_logits' not in model.predict(images)[0]


@pytest.mark.parametrize(('flip', 'axis'), [('horizontal', -1), ('vertical', -2)])
def test_a_flipped_view_lays_its_masks_back(flip, axis):
    """The input is no multiple of the stride: padding is at the other side of the flipped view."""
    model = build().eval()
    images = torch.randn(1, 3, 70, 90)
    padded = F.pad(images, (0, 6, 0, 10))
    by_hand = model.encode_decode(padded.flip(axis), [{}]).flip(axis)[:, :, :70, :90]
    model.ensemble = ensemble(dict(flip=flip))
    flipped = model.encode_decode(images, [{}])
    torch.testing.assert_close(flipped, by_hand)
    model.ensemble = None
    plain = model.encode_decode(images, [{}])
    assert not torch.allclose(plain, flipped)
    model.ensemble = ensemble(dict(), dict(flip=flip))
    torch.testing.assert_close(model.encode_decode(images, [{}]), (plain + flipped) / 2)


@pytest.mark.parametrize(('scale', 'size'), [(0.75, (48, 64)), (1.4, (96, 112))])
def test_a_view_at_another_scale(scale, size):
    """64 × 80 times the scale, to whole strides of 16."""
    model = build().eval()
    images = torch.randn(1, 3, 64, 80)
    masks, probs = model._forward(F.interpolate(images, size=size, mode='bilinear', antialias=True))
    by_hand = predict_scores(masks[0], probs[0], Window(0, 0, 1, 1, (64, 80)))
    model.ensemble = ensemble(dict(scale=scale))
    torch.testing.assert_close(model.encode_decode(images, [{}])[0], by_hand)


@torch.no_grad()
def test_preferred_views_by_brute_force():
    model = build(**TRAINED, return_scores=True).eval()
    model.preference.steps += 1
    model.ensemble = ensemble(dict(), dict(flip='vertical'), weighting='preference')
    images = torch.randn(1, 3, 32, 32)
    views = []
    for axes in ((), (2,)):
        proposals = model.extract_feat(images.flip(axes))
        scores = 30 * model.preference(proposals.feats, proposals.mask_logits)
        views.append(ViewProposals(proposals.mask_logits.flip(axes)[0], model.class_probs(proposals)[0], scores[0]))
    plain, scored = [merge(views, 32, 32), brute_force(views, 32, 32)]
    model.ensemble.temperature = 1 / 30
    result = model.predict(images)[0]
    torch.testing.assert_close(result.seg_logits.data, scored)
    torch.testing.assert_close(plain, scored)
    assert torch.equal(result.pred_sem_seg.data[0], result.seg_logits.data.argmax(dim=0))
    model.ensemble.weighting = 'uniform'
    assert not torch.allclose(model.predict(images)[0].seg_logits.data, scored, atol=1e-4)


def test_a_score_that_was_never_trained_is_refused():
    model = build(**TRAINED)
    model.ensemble = ensemble(dict(), weighting='preference')
    images = torch.randn(1, 3, 32, 32)
    loaded = model.load_state_dict(build('AlignZeg').state_dict(), strict=False)  # a checkpoint without score
    assert all(name.startswith('preference.') for name in loaded.missing_keys) and loaded.missing_keys
    with pytest.raises(ValueError, match='never trained, or the checkpoint holds none'):
        model.eval().predict(images)
    model.ensemble = ensemble(dict())
    assert model.predict(images)[0].pred_sem_seg.data.shape == (1, 32, 32)
    trained = build(**TRAINED).train()
    trained.loss(*batch())
    model.load_state_dict(trained.state_dict(), strict=True)
    model.ensemble = ensemble(dict(), weighting='preference')
    assert model.predict(images)[0].pred_sem_seg.data.shape == (1, 32, 32)


# ---------------------------------------------------------------------- the segmentor in training


def gradients(model):
    torch.manual_seed(1)
    losses = model.train().loss(*batch())
    sum(losses.values()).backward()
    return losses, {name: param.grad for name, param in model.named_parameters() if param.grad is not None}


def test_without_its_parts_it_is_the_published_method():
    method, model = build('AlignZeg'), build()
    torch.testing.assert_close(dict(model.named_parameters()), dict(method.named_parameters()), rtol=0, atol=0)
    (expected, expected_grads), state = gradients(method), torch.get_rng_state()
    losses, grads = gradients(model)
    assert losses == expected and torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(grads, expected_grads, rtol=0, atol=0)


def test_the_score_changes_no_weight_and_no_gradient_of_the_segmentor():
    method, model = build('AlignZeg'), build(**TRAINED)
    weights = dict(model.named_parameters())
    assert all(torch.equal(param, weights[name]) for name, param in method.named_parameters())
    expected, expected_grads = gradients(method)
    losses, grads = gradients(model)
    own = {name: grads.pop(name) for name in list(grads) if name.startswith('preference.')}
    assert len(own) == 3 and all(grad.abs().sum() > 0 for grad in own.values())
    torch.testing.assert_close(grads, expected_grads, rtol=0, atol=0)
    assert 0 < losses.pop('loss_preference').item() < 50 and losses == expected


def test_steps_of_descent_order_the_scores():
    """Two versions of an image, always the same: the head has to learn which is the better."""
    head = MODELS.build(dict(type='PreferenceHead', embed_dim=8))
    loss = MODELS.build(dict(type='PreferenceLoss', medium_from=0, loss_weight=1.0))
    feats, masks, ious = torch.randn(3, 5, 8), torch.randn(3, 5, 4, 4), torch.rand(3, 5)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        value = loss(head(feats, masks), ious, 0)
        value.backward()
        optimizer.step()
    assert value.item() < 0.1
    assert torch.equal(head(feats, masks).argmax(dim=0), ious.argmax(dim=0))


@pytest.mark.parametrize('flip', [None, 'vertical'])
def test_matched_proposals_are_measured_mask_by_mask(flip):
    model = build(**TRAINED).train()
    first, second = torch.zeros(2, 64, 64)
    first[:, :32], second[:32, 40:] = 1, 1
    masks = torch.full((1, 8, 64, 64), -5.0)
    masks[0, 3] = torch.where(second > 0, 5.0, -5.0)  # perfect
    masks[0, 6, :48, :32] = 5.0  # three quarters of the first
    own = masks if flip is None else masks.flip(2)  # what the model sees in that view
    proposals = Proposals(own, torch.randn(1, 8, model.clip.embed_dim), F.normalize(torch.randn(1, 8, 3), dim=-1))
    model.extract_feat = lambda images: proposals
    model.classify = lambda found, classes: torch.zeros(1, 8, 4)
    target = InstanceData(labels=torch.tensor([0, 2]), masks=torch.stack([first, second]).long())
    scores, ious = model.judge(torch.zeros(1, 3, 64, 64), [target], View(flip=flip))
    assert ious.tolist() == pytest.approx([0.75, 1.0])
    torch.testing.assert_close(scores, model.preference(proposals.feats, masks)[0, [6, 3]])


def test_versions_differ_by_their_noise_alone():
    model = build(**TRAINED).train()
    model.decode_head.image_drop = 0.999
    target = InstanceData(labels=torch.tensor([0]), masks=torch.ones(1, 64, 64).long())
    images, rng = torch.randn(1, 3, 64, 64), torch.get_rng_state()
    scores = []
    for trains in (True, False):
        torch.set_rng_state(rng)
        scores.append(model.train(trains).judge(images, [target], View())[0])
        assert model.decode_head.training == trains
    torch.testing.assert_close(*scores)


def test_versions_are_looked_at_in_their_views():
    model = build(**TRAINED)
    model.preference_loss = PreferenceLoss(views=[dict(), dict(scale=0.75), dict(scale=1.5, flip='horizontal')])
    shapes, extract = [], model.extract_feat
    model.extract_feat = lambda images: shapes.append(tuple(images.shape[2:])) or extract(images)
    losses, _ = gradients(model)
    assert shapes == [(64, 64), (64, 64), (48, 48), (96, 96)] and losses['loss_preference'] > 0


def test_interval_skips_the_extra_passes():
    model = build(**TRAINED)
    model.preference_loss.interval = 2
    seen, extract = [], model.extract_feat
    model.extract_feat = lambda images: seen.append(torch.is_grad_enabled()) or extract(images)
    losses, grads = gradients(model)
    assert seen == [True, False, False, False] and losses['loss_preference'] > 0
    seen.clear()
    model.zero_grad()
    losses, grads = gradients(model)
    assert seen == [True] and losses['loss_preference'].item() == 0
    assert all(torch.equal(grad, torch.zeros_like(grad)) for name, grad in grads.items() if 'preference' in name)
    assert model.state_dict()['preference.steps'].item() == 2


def test_curriculum_goes_on_with_the_checkpoint():
    steps = []

    class Spy(PreferenceLoss):
        def __call__(self, scores, ious, step):
            steps.append(step)
            return super().__call__(scores, ious, step)

    model = build(**TRAINED)
    model.preference_loss = Spy(interval=3)
    state = model.state_dict()
    state['preference.steps'] = torch.tensor(41)
    model.load_state_dict(state)
    for _ in range(3):
        model.train().loss(*batch())
    assert steps == [42] and model.preference.steps == 44


@pytest.mark.parametrize('labels', [torch.full((1, 48, 48), 255), torch.arange(9).reshape(1, 3, 3)])
def test_batches_without_labels_and_with_more_masks_than_proposals(labels):
    labels = labels if labels.shape[1] == 48 else labels.repeat_interleave(16, 1).repeat_interleave(16, 2)
    model = build(**TRAINED, classes=[f'class {i}' for i in range(9)], unseen_classes=[], num_queries=2).train()
    losses = model.loss(torch.randn(1, 3, 48, 48), [SegDataSample(gt_sem_seg=PixelData(data=labels))])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(param.grad is not None and param.grad.isfinite().all() for param in model.preference.parameters())
    assert labels.min() == 0 or losses['loss_preference'].item() == 0


def test_autocast():
    model = build(**TRAINED).train()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model.loss(*batch())
        sum(losses.values()).backward()
        model.eval().ensemble = ensemble(dict(), dict(flip='horizontal'), weighting='preference')
        result = model.predict(torch.randn(1, 3, 64, 64))
    assert losses['loss_preference'].dtype == torch.float32 and losses['loss_preference'].isfinite()
    assert result[0].pred_sem_seg.data.shape == (1, 64, 64)


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(views=[]), '`views` is empty'),
        (dict(views='flip'), "views='flip' must be a list of dicts"),
        (dict(views=['flip']), r"views=\['flip'\] must be a list of dicts"),
        (dict(views=[dict(rotate=90)]), r"unknown argument\(s\) \['rotate'\]: these are known: \['flip', 'scale'\]"),
        (dict(views=[dict(flip='diagonal')]), "flip='diagonal' of a view must be one of"),
        (dict(views=[dict(scale=3)]), r'scale=3 of a view is outside \[0.5, 2.0\]'),
        (dict(views=[dict(scale=0.4)]), r'scale=0.4 of a view is outside'),
        (dict(views=[dict()], weighting='best'), r"weighting='best' must be one of \['preference', 'uniform'\]"),
        (dict(views=[dict()], temperature=0), 'temperature=0 must be a finite number above 0'),
    ],
)
def test_bad_ensembles_get_one_clear_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        MODELS.build(dict(type='PreferenceEnsemble', **arguments))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(ensemble=dict(type='PreferenceEnsemble', views=[dict()])), "weighting='preference' needs the score"),
        (dict(preference_loss=dict(type='PreferenceLoss')), '`preference_loss` trains the score of `preference`'),
    ],
)
def test_parts_that_need_a_score_are_refused_without(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
