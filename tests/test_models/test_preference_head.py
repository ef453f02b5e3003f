"""The score for proposals: what it reads, and how it is trained beside the segmentor."""

import math

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData, PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from small_model import TRAINED, build

from mmseg_alignzeg.models import PreferenceLoss, Proposals, View
from mmseg_alignzeg.models.preference_head import mask_statistics


def batch():
    torch.manual_seed(5)
    labels = torch.randint(0, 3, (2, 1, 2, 2)).repeat_interleave(32, 2).repeat_interleave(32, 3)
    labels[:, :, :8] = 255
    return torch.randn(2, 3, 64, 64), [SegDataSample(gt_sem_seg=PixelData(data=image)) for image in labels]


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


# ---------------------------------------------------------------------- beside the segmentor


def gradients(model):
    torch.manual_seed(1)
    losses = model.train().loss(*batch())
    sum(losses.values()).backward()
    return losses, {name: param.grad for name, param in model.named_parameters() if param.grad is not None}


def test_the_score_changes_no_weight_and_no_gradient_of_the_segmentor():
    method, model = build(), build(preference=TRAINED)
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
    model = build(preference=TRAINED).train()
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
    scores, ious = model.preference.judge(model, torch.zeros(1, 3, 64, 64), [target], View(flip=flip))
    assert ious.tolist() == pytest.approx([0.75, 1.0])
    torch.testing.assert_close(scores, model.preference(proposals.feats, masks)[0, [6, 3]])


def test_versions_differ_by_their_noise_alone():
    model = build(preference=TRAINED).train()
    model.decode_head.image_drop = 0.999
    target = InstanceData(labels=torch.tensor([0]), masks=torch.ones(1, 64, 64).long())
    images, rng = torch.randn(1, 3, 64, 64), torch.get_rng_state()
    scores = []
    for trains in (True, False):
        torch.set_rng_state(rng)
        scores.append((model := model.train(trains)).preference.judge(model, images, [target], View())[0])
        assert model.decode_head.training == trains
    torch.testing.assert_close(*scores)


def test_versions_are_looked_at_in_their_views():
    model = build(preference=TRAINED)
    model.preference.loss = PreferenceLoss(views=[dict(), dict(scale=0.75), dict(scale=1.5, flip='horizontal')])
    shapes, extract = [], model.extract_feat
    model.extract_feat = lambda images: shapes.append(tuple(images.shape[2:])) or extract(images)
    losses, _ = gradients(model)
    assert shapes == [(64, 64), (64, 64), (48, 48), (96, 96)] and losses['loss_preference'] > 0


def test_interval_skips_the_extra_passes():
    model = build(preference=TRAINED)
    model.preference.loss.interval = 2
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

    model = build(preference=TRAINED)
    model.preference.loss = Spy(interval=3)
    state = model.state_dict()
    state['preference.steps'] = torch.tensor(41)
    model.load_state_dict(state)
    for _ in range(3):
        model.train().loss(*batch())
    assert steps == [42] and model.preference.steps == 44


@pytest.mark.parametrize('labels', [torch.full((1, 48, 48), 255), torch.arange(9).reshape(1, 3, 3)])
def test_batches_without_labels_and_with_more_masks_than_proposals(labels):
    labels = labels if labels.shape[1] == 48 else labels.repeat_interleave(16, 1).repeat_interleave(16, 2)
    model = build(
        preference=TRAINED, classes=[f'class {i}' for i in range(9)], unseen_classes=[], num_queries=2
    ).train()
    losses = model.loss(torch.randn(1, 3, 48, 48), [SegDataSample(gt_sem_seg=PixelData(data=labels))])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(param.grad is not None and param.grad.isfinite().all() for param in model.preference.parameters())
    assert labels.min() == 0 or losses['loss_preference'].item() == 0


def test_autocast():
    model = build(preference=TRAINED).train()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model.loss(*batch())
        sum(losses.values()).backward()
        views = [dict(), dict(flip='horizontal')]
        model.eval().decoder = MODELS.build(dict(type='EnsembleDecoder', views=views, weighting='preference'))
        result = model.predict(torch.randn(1, 3, 64, 64))
    assert losses['loss_preference'].dtype == torch.float32 and losses['loss_preference'].isfinite()
    assert result[0].pred_sem_seg.data.shape == (1, 64, 64)
