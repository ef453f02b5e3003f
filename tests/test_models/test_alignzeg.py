"""The segmentor as a whole, on the embedded CLIP's architecture with random weights."""

import copy
import itertools
import operator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_alignzeg.models import CalibratedStacking, PredictiveBiasCorrection, TextBank
from mmseg_alignzeg.models.losses import mask, matching, sampling
from mmseg_alignzeg.models.losses.targets import checked_targets

CLASSES = ['cat', 'dog', 'sky', 'grass']


@pytest.fixture
def cfg():
    cfg = Config.fromfile('configs/alignzeg_patterns.py')
    cfg.model.update(classes=CLASSES, unseen_classes=['dog'], text=dict(templates='single'))
    cfg.model.criterion.num_points = 256
    cfg.model.clip.pretrained = None
    cfg.model.decode_head.num_queries = 8
    cfg.model.class_indicator.top_k = 4
    return cfg


def sample(labels, **metainfo):
    return SegDataSample(gt_sem_seg=PixelData(data=labels[None]), metainfo=metainfo)


def batch(num_classes=3, size=64):
    labels = torch.randint(0, num_classes, (2, 2, 2)).repeat_interleave(size // 2, 1).repeat_interleave(size // 2, 2)
    labels[:, :8] = 255
    return torch.randn(2, 3, size, size), [sample(image) for image in labels]


def test_bias_correction_spares_no_alias_of_a_seen_class(cfg):
    model = MODELS.build({**cfg.model, 'classes': ['couch', 'car'], 'unseen_classes': ['car']})
    model.set_test_classes(['Sofa ', 'car', 'tree', 'couch'])
    assert model.question.seen.tolist() == [True, False, False, True]
    model.set_test_classes(['sofa', 'tree'], unseen=['sofa'])
    assert model.question.seen.tolist() == [False, True]


def test_loss_has_every_term_of_equation_8(cfg):
    model = MODELS.build(cfg.model).train()
    losses = model.loss(*batch())
    assert set(losses) == {'loss_ce', 'loss_bce', 'loss_dice', 'loss_vir', 'loss_reg', 'loss_bc'}
    assert all(loss.isfinite() for loss in losses.values())


def cheapest(cost):
    """The proposals of all G masks with the lowest total cost, by trying all orders; ``cost`` is (N, G)."""
    orders = itertools.permutations(range(len(cost)), cost.shape[1])
    return min(orders, key=lambda order: float(cost[order, range(len(order))].sum()))


@pytest.mark.parametrize('balanced', [False, True])
def test_the_terms_of_equation_8_by_hand(cfg, monkeypatch, balanced):
    """Plain loops over proposals and masks; masks are compared at the centre of each of their cells."""
    cfg.model.class_indicator.balanced = balanced
    model = MODELS.build(cfg.model).train()
    labels = torch.tensor([[[0, 1], [1, 2]], [[2, 2], [0, 0]], [[0, 0], [0, 255]]])  # 3, 2 and 1 classes
    samples = [sample(image.repeat_interleave(32, 0).repeat_interleave(32, 1)) for image in labels]
    inputs = torch.randn(3, 3, 64, 64)
    proposals = model.extract_feat(inputs)
    # A random CLIP hardly tells proposals apart, and large mask logits would decide the matching alone.
    proposals.feats = torch.randn_like(proposals.feats)
    proposals.cls_feats = F.normalize(torch.randn_like(proposals.cls_feats), dim=-1)
    proposals.mask_logits = 0.1 * proposals.mask_logits
    model.extract_feat = lambda inputs: proposals  # image_drop is random
    height, width = proposals.mask_logits.shape[2:]
    rows, columns = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    grid = torch.stack(torch.meshgrid(columns, rows, indexing='xy'), dim=-1).reshape(1, -1, 2)
    monkeypatch.setattr(matching, 'sample', lambda masks, _: sampling.sample(masks, grid.expand(len(masks), -1, -1)))
    asked = []
    monkeypatch.setattr(
        mask, 'uncertain_points', lambda logits, count: asked.append(count) or grid.expand(len(logits), -1, -1)
    )
    model.criterion.feature_expansion._draw = lambda size, device: (0.3, torch.arange(size).roll(1))
    losses = model.loss(inputs, samples)
    assert asked == [256]

    embeds = model.text_bank(('cat', 'sky', 'grass'))
    scores = model.classify(proposals, embeds)  # (3, 8, 4)
    matched, mask_losses, positives, negatives, ce, weights, others = [], [], [], [], [], [], []
    for image, own in enumerate(labels):
        present = [label for label in (0, 1, 2) if (own == label).any()]
        truth = own.repeat_interleave(height // 2, 0).repeat_interleave(width // 2, 1)
        bce, dice = torch.zeros(8, len(present)), torch.zeros(8, len(present))
        for n in range(8):
            logits = proposals.mask_logits[image, n]
            for g, label in enumerate(present):
                wanted = (truth == label).float()
                bce[n, g] = F.binary_cross_entropy_with_logits(logits, wanted)
                share = logits.sigmoid()
                dice[n, g] = 1 - (2 * (share * wanted).sum() + 1) / (share.sum() + wanted.sum() + 1)
        cost = 5 * bce + 5 * dice
        probs = scores[image].softmax(dim=1)[:, present]
        chosen = cheapest(cost - 2 * probs)
        others.append(cheapest(0.4 * cost - 5 * probs) != chosen)
        classes = {n: present[g] for g, n in enumerate(chosen)}
        for n in range(8):
            ce.append(F.cross_entropy(scores[image, n], torch.tensor(classes.get(n, 3))))
            weights.append(1.0 if n in classes else 0.1)
            indicator = model.class_indicator(proposals.feats[image, n]).sigmoid()
            if n in classes:
                matched.append((image, n, classes[n]))
                mask_losses.append((bce[n, present.index(classes[n])], dice[n, present.index(classes[n])]))
                positives.append(-(1 - indicator).log())
            elif all(n in cost[:, g].topk(4).indices for g in range(len(present))):
                negatives.append(-indicator.log())
    mean = [sum(terms) / len(mask_losses) for terms in zip(*mask_losses, strict=True)]
    feats = torch.stack([proposals.cls_feats[image, n] for image, n, _ in matched])
    names = torch.stack([embeds[label, 0] for _, _, label in matched])
    virtual, prototypes = (F.normalize(0.3 * x + 0.7 * x.roll(1, 0), dim=-1) for x in (feats, names))
    cosines = torch.cat([virtual @ embeds[:, 0].T, (virtual * prototypes).sum(dim=1, keepdim=True)], dim=1)
    both = [sum(terms) / len(terms) for terms in (positives, negatives)]
    expected = dict(
        loss_ce=2 * sum(map(operator.mul, weights, ce)) / sum(weights),
        loss_bce=5 * mean[0],
        loss_dice=5 * mean[1],
        loss_vir=0.01 * F.cross_entropy(model.clip.logit_scale * cosines, torch.full((len(matched),), 3)),
        loss_reg=losses['loss_reg'],
        loss_bc=sum(both) / 2 if balanced else sum(positives + negatives) / len(positives + negatives),
    )
    order = [label for *_, label in matched]
    assert negatives and order != order[::-1] and any(others)  # wrong orders and swapped weights are seen
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ('part', 'gone'),
    [('feature_expansion', 'loss_vir'), ('background_diversity', 'loss_reg'), ('class_indicator', 'loss_bc')],
)
def test_every_part_can_be_left_out(cfg, part, gone):
    (cfg.model if part == 'class_indicator' else cfg.model.criterion)[part] = None
    cfg.model.bias_correction = None
    model = MODELS.build(cfg.model).train()
    losses = model.loss(*batch())
    assert gone not in losses and len(losses) == 5


def test_masks_can_be_trained_by_the_jaccard_metric_loss(cfg):
    cfg.model.criterion.mask_overlap = 'jaccard'
    losses = MODELS.build(cfg.model).train().loss(*batch())
    assert 'loss_dice' not in losses and 0 < losses['loss_jaccard'] <= cfg.model.criterion.mask_weight
    cfg.model.criterion.mask_overlap = 'focal'
    with pytest.raises(ValueError, match=r"mask_overlap='focal' must be one of \['dice', 'jaccard'\]"):
        MODELS.build(cfg.model)


def test_weights_of_equation_8_scale_their_terms(cfg):
    model = MODELS.build(cfg.model).train()
    inputs, samples = batch()
    torch.manual_seed(1)
    once = model.loss(inputs, samples)
    model.criterion.class_weight *= 3
    model.criterion.mask_weight *= 2
    model.criterion.feature_expansion.loss_weight *= 5
    model.class_indicator.loss_weight *= 7
    torch.manual_seed(1)
    scaled = model.loss(inputs, samples)
    for name, factor in dict(loss_ce=3, loss_bce=2, loss_dice=2, loss_vir=5, loss_bc=7).items():
        torch.testing.assert_close(scaled[name], factor * once[name])


def test_frozen_parameters_have_no_gradient_and_are_not_in_the_optimizer(cfg):
    model = MODELS.build(cfg.model).train()
    sum(model.loss(*batch()).values()).backward()
    trained = {name for name, param in model.named_parameters() if param.requires_grad}
    assert {name for name, param in model.named_parameters() if param.grad is not None} == trained
    assert not any(name.startswith('clip.') for name in trained)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    held = {id(param) for group in optimizer.param_groups for param in group['params']}
    assert held == {id(param) for param in model.parameters() if param.requires_grad}


def test_a_batch_without_labels_trains_a_step(cfg):
    model = MODELS.build(cfg.model).train()
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    samples = [sample(torch.full((64, 64), 255)) for _ in range(2)]
    losses = model.loss(torch.randn(2, 3, 64, 64), samples)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(param.grad.isfinite().all() for param in model.parameters() if param.requires_grad)
    optim_wrapper.step()
    assert all(param.isfinite().all() for param in model.parameters())


@pytest.mark.attack('training: labels of no seen class')
@pytest.mark.parametrize('label', [-300, -1, 3, 254])
def test_labels_that_are_no_seen_class_are_refused(cfg, label):
    model = MODELS.build(cfg.model).train()
    samples = [sample(torch.full((64, 64), value), seg_map_path=f'{value}.png') for value in (2, label)]
    with pytest.raises(ValueError, match=rf'^{label}\.png: a training label is {label}, .* only 3 seen classes'):
        model.loss(torch.randn(2, 3, 64, 64), samples)


@pytest.mark.attack('training: pixels that are not finite')
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_pixels_that_are_not_finite_are_refused(cfg, value):
    inputs, samples = batch()
    samples[1].set_metainfo(dict(img_path='second.tiff'))
    inputs[1, 0, 3, 4] = value
    with pytest.raises(ValueError, match=r'^second\.tiff: 1 .* not finite'):
        MODELS.build(cfg.model).train().loss(inputs, samples)


def test_weights_that_are_not_finite_reach_the_loss(cfg):
    """The matcher says nothing of them: who watches the losses names the term and the images."""
    model = MODELS.build(cfg.model).train()
    torch.nn.init.constant_(model.fusion.weight, float('nan'))
    losses = model.loss(*batch())
    assert losses['loss_ce'].isnan() and losses['loss_bce'].isnan() and losses['loss_reg'].isfinite()


def test_a_batch_without_labels_and_without_a_background_weight_is_zero(cfg):
    cfg.model.criterion.background_weight = 0.0
    model = MODELS.build(cfg.model).train()
    losses = model.loss(torch.randn(1, 3, 64, 64), [sample(torch.full((64, 64), 255))])
    assert losses['loss_ce'].item() == 0 and losses['loss_ce'].requires_grad


def test_more_masks_than_proposals_train_a_step(cfg):
    cfg.model.decode_head.num_queries = 2
    cfg.model.update(classes=[f'class {i}' for i in range(9)], unseen_classes=[])
    labels = torch.arange(9).reshape(3, 3).repeat_interleave(16, 0).repeat_interleave(16, 1)
    images = torch.randn(1, 3, 48, 48)
    losses = MODELS.build(cfg.model).train().loss(images, [sample(labels)])
    assert all(loss.isfinite() for loss in losses.values())
    assert checked_targets(images, [sample(labels)], 9, 255, num_proposals=2).ranks == [(1, 2)]  # means over two masks


def test_checkpoint_leaves_clip_out_and_loads_back(cfg):
    model = MODELS.build(cfg.model)
    state = copy.deepcopy(model.state_dict())
    assert state and not any(name.startswith('clip.') for name in state)
    other = MODELS.build(cfg.model)
    other.clip.load_state_dict({f'visual.{k}': v.clone() for k, v in model.clip.visual.named_parameters()})
    assert other.load_state_dict(state, strict=True).missing_keys == []
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(other.eval()._forward(images)[0], model.eval()._forward(images)[0])


def test_prediction_has_the_original_size_whatever_the_image_size(cfg):
    model = MODELS.build(cfg.model).eval()
    images = torch.randn(1, 3, 77, 101)
    assert model.predict(images)[0].pred_sem_seg.data.shape == (1, 77, 101)
    metainfo = dict(ori_shape=(50, 60), img_padding_size=(0, 5, 0, 7))
    result = model.predict(images, [SegDataSample(metainfo=metainfo)])[0]
    assert result.pred_sem_seg.data.shape == (1, 50, 60) and 'seg_logits' not in result


def test_padding_does_not_show_in_the_result(cfg):
    """What stands in the padding may change features, but the window must show the image alone."""
    model = MODELS.build(cfg.model).eval()
    model.return_scores = True
    images = torch.randn(1, 3, 64, 64)
    whole = model.predict(images)[0].seg_logits.data
    part = model.predict(images, [SegDataSample(metainfo=dict(ori_shape=(48, 32), img_padding_size=(0, 32, 0, 16)))])
    torch.testing.assert_close(part[0].seg_logits.data, whole[:, :48, :32])


@pytest.mark.parametrize('direction', ['horizontal', 'vertical'])
def test_flipped_images_give_results_that_are_turned_back(cfg, direction):
    model = MODELS.build(cfg.model).eval()
    model.return_scores = True
    images = torch.randn(1, 3, 64, 64)
    plain = model.predict(images)[0].seg_logits.data
    metainfo = dict(ori_shape=(64, 64), flip=True, flip_direction=direction)
    turned = model.predict(images, [SegDataSample(metainfo=metainfo)])[0].seg_logits.data
    torch.testing.assert_close(turned, plain.flip(2 if direction == 'horizontal' else 1))


def test_labels_agree_with_scores_and_with_encode_decode(cfg):
    model = MODELS.build(cfg.model).eval()
    images = torch.randn(1, 3, 64, 64)
    labels = model.predict(images)[0].pred_sem_seg.data
    scores = model.encode_decode(images, [{}])
    assert scores.shape == (1, 4, 64, 64) and torch.equal(scores.argmax(dim=1), labels)


def test_semantic_inference_by_brute_force(cfg):
    model = MODELS.build(cfg.model).eval()
    model.question = model.question.without_correction()
    images = torch.randn(1, 3, 64, 64)
    proposals = model.extract_feat(images)
    scores = model.classify(proposals, model.text_bank(CLASSES, 'cpu'))[0]
    probs = scores.exp() / scores.exp().sum(dim=1, keepdim=True)  # softmax over C + 1
    masks = torch.nn.functional.interpolate(proposals.mask_logits, size=(64, 64), mode='bilinear')[0].sigmoid()
    expected = sum(masks[n] * probs[n, :4, None, None] for n in range(8))
    torch.testing.assert_close(model.encode_decode(images, [{}])[0], expected)
    model.question = replace(model.question, background_at_test='ignore')
    expected = sum(masks[n] * scores[n, :4].softmax(0)[:, None, None] for n in range(8))
    torch.testing.assert_close(model.encode_decode(images, [{}])[0], expected)


def test_bias_correction_goes_on_and_off_without_retraining(cfg):
    model = MODELS.build(cfg.model).eval()
    proposals = model.extract_feat(torch.randn(1, 3, 64, 64))
    assert model.choose_correction() is model.question.bias_correction and model.choose_correction(0.0).gamma == 0
    every = PredictiveBiasCorrection(gamma=0.0)  # every proposal is taken for unseen
    corrected = model.class_probs(proposals, replace(model.question, bias_correction=every))
    plain = model.class_probs(proposals, model.question.without_correction())
    assert (corrected[..., 1] > plain[..., 1]).all()
    assert (corrected[..., [0, 2, 3]].sum(dim=-1) < plain[..., [0, 2, 3]].sum(dim=-1)).all()


def test_calibrated_stacking_takes_a_constant_from_seen_scores(cfg):
    cfg.model.update(calibration=dict(type='CalibratedStacking', constant=0.25), test_cfg=dict(return_scores=True))
    model = MODELS.build(cfg.model).eval()
    images = torch.randn(1, 3, 64, 64)
    calibrated = model.predict(images)[0].seg_logits.data
    torch.testing.assert_close(model.encode_decode(images, [{}])[0], calibrated)
    plain = replace(model.question, calibration=None)
    expected = (
        model.predict(images, question=plain)[0].seg_logits.data - 0.25 * torch.tensor([1, 0, 1, 1])[:, None, None]
    )
    torch.testing.assert_close(calibrated, expected)
    strong = replace(model.question, calibration=CalibratedStacking(1000.0))
    assert (model.predict(images, question=strong)[0].pred_sem_seg.data == CLASSES.index('dog')).all()


def test_other_names_at_test_are_seen_if_training_had_them(cfg):
    model = MODELS.build(cfg.model).eval()
    model.set_test_classes(['zebra', 'sky', 'dog'])
    received = {}
    spy = lambda scores, indicator, seen: received.update(seen=seen) or scores  # noqa: E731
    model.question = replace(model.question, bias_correction=spy)
    probs = model.class_probs(model.extract_feat(torch.randn(1, 3, 64, 64)))
    assert probs.shape == (1, 8, 3) and received['seen'].tolist() == [False, True, False]


def test_two_runs_with_one_seed_are_the_same(cfg):
    def curve():
        torch.manual_seed(3)
        model = MODELS.build(cfg.model).train()
        optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        values = []
        for _ in range(3):
            loss = sum(model.loss(*batch()).values())
            optim_wrapper.update_params(loss)
            values.append(loss.item())
        return values

    first = curve()
    assert first == curve() and len(set(first)) == 3


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(classes=[]), 'vocabulary is empty'),
        (dict(classes=['cat', '', 'sky']), r'no name at position\(s\) \[1\]'),
        (dict(classes=['cat', 'cat', 'dog']), r"names \['cat'\] more than once"),
        (dict(unseen_classes=['zebra']), r"names \['zebra'\], which are not among the 4 classes"),
        (dict(unseen_classes=CLASSES), 'All 4 classes are unseen'),
        (dict(text=dict(templates='vlid')), "Unknown template set 'vlid'"),
        (dict(bias_correction=dict(type='PredictiveBiasCorrection', gamma=2)), r'gamma=2 is outside \[0, 1\]'),
        (dict(class_indicator=None), '`bias_correction` needs the indicator'),
        (dict(test_cfg=dict(scores=True)), "'scores': True"),
        (dict(test_cfg=dict(background_at_test='drop')), "background_at_test='drop' must be"),
        (dict(decode_head=dict(type='MRPEHead', bias_heads=2)), 'bias_heads=2 .*3'),
    ],
)
def test_bad_configs_get_one_clear_line(cfg, change, message):
    model = {**cfg.model.to_dict(), **change}
    with pytest.raises(ValueError, match=message) as error:
        MODELS.build(model)
    assert '\n' not in str(error.value)


def test_a_cold_text_cache_does_not_change_a_seeded_run(cfg):
    cfg.model.update(classes=['red dots', 'blue grid'], unseen_classes=[])
    cfg.model.clip.pretrained = 'embedded'

    def draw():
        torch.manual_seed(0)
        model = MODELS.build(cfg.model).train()
        model.loss(*batch(num_classes=2))
        return torch.rand(3)

    cold = draw()
    assert torch.equal(cold, draw())


def test_autocast_trains_and_predicts_and_leaves_matching_and_prototypes_in_full_precision(cfg, tmp_path):
    cfg.model.clip.pretrained = 'embedded'
    model = MODELS.build(cfg.model).train()
    inputs, samples = batch()
    inside = []
    model.criterion.matcher.class_cost = lambda predicted, wanted: (
        inside.append(torch.is_autocast_enabled('cpu')) or -predicted.scores.softmax(-1)[:, wanted.labels]
    )
    nothing = [sample(torch.full((64, 64), 255)) for _ in inputs]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert all(loss.dtype == torch.float32 for loss in model.loss(inputs, nothing).values())
        losses = model.loss(inputs, samples)
        sum(losses.values()).backward()
        result = model.eval().predict(inputs)
        assert model.encode_decode(inputs, [{}, {}]).shape == (2, 4, 64, 64)
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    assert inside == [False] * 4  # one for each image
    assert result[0].pred_sem_seg.data.shape == (1, 64, 64)
    bank = model.text_bank(model.vocabulary.seen_classes)
    assert bank.dtype == torch.float32 and (bank.norm(dim=2) - 1).abs().max() < 1e-5
    elsewhere = TextBank(model.text_bank.source, 'single', cache_dir=str(tmp_path / 'without_autocast'))
    torch.testing.assert_close(bank, elsewhere(model.vocabulary.seen_classes))


def test_a_scale_that_cuts_clip_patches_is_refused(cfg):
    cfg.model.clip.scale_factor = 0.75
    with pytest.raises(ValueError, match=r'scale_factor=0\.75 covers 10\.67 pixels'):
        MODELS.build(cfg.model)
