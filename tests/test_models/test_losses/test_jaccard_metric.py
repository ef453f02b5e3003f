"""The Jaccard metric loss against loops over pixels, IoU of labels, numeric gradients and mmseg's decode head."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_alignzeg.evaluation import class_areas, fine_grained_iou, image_scores
from mmseg_alignzeg.models.losses import JaccardMetricLoss, jaccard_mask_loss

FORMS = ['D', 'I', 'C', 'IC']


def random_batch(seed=0, dtype=torch.float64):
    """Logits (4, 5, 3, 4) and labels: class 3 is in image 1 only, 4 nowhere; image 2 is all ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 5, 3, 4, generator=generator, dtype=dtype)
    labels = torch.tensor([0, 1, 2, 255])[torch.randint(4, (4, 3, 4), generator=generator)]
    labels[1, 0, 0], labels[2], labels[3] = 3, 255, 1
    return logits, labels


def soft_labels(labels, seed=0, dtype=torch.float64):
    """Probabilities (B, 5, H, W), 0 where the label is 255."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(labels), 5, *labels.shape[1:])
    soft = (3 * torch.randn(shape, generator=generator, dtype=dtype)).softmax(dim=1)
    return soft * (labels != 255)[:, None]


def reference(logits, labels, form, alpha=1.0, beta=1.0, smooth=1.0, weight=None):
    """One pixel and one class at a time; `labels` are hard (B, H, W) or soft (B, C, H, W)."""
    batch, num_classes, height, width = logits.shape
    probs = logits.softmax(dim=1)
    soft = labels.ndim == 4
    tp, fp, fn, true = ([[0.0] * num_classes for _ in range(batch)] for _ in range(4))
    counted = set()
    for b, h, w in itertools.product(range(batch), range(height), range(width)):
        if (labels[b, :, h, w].sum() == 0) if soft else labels[b, h, w] == 255:
            continue
        counted.add(b)
        share = 1.0 if weight is None else float(weight[b, h, w])
        for c in range(num_classes):
            p = float(probs[b, c, h, w])
            y = float(labels[b, c, h, w]) if soft else float(labels[b, h, w] == c)
            overlap = (p + y - abs(p - y)) / 2
            tp[b][c] += share * overlap
            fp[b][c] += share * (p - overlap)
            fn[b][c] += share * (y - overlap)
            true[b][c] += share * y

    def loss(t, p, n):
        return 1 - (t + smooth) / (t + alpha * p + beta * n + smooth)

    def mean(values):
        return sum(values) / len(values)

    active = {(b, c) for b in counted for c in range(num_classes) if soft or true[b][c] > 0}
    single = {(b, c): loss(tp[b][c], fp[b][c], fn[b][c]) for b, c in active}
    classes = {c for _, c in active}
    of_classes = [[single[b, c] for b in range(batch) if (b, c) in active] for c in classes]
    of_images = [[single[b, c] for c in range(num_classes) if (b, c) in active] for b in {b for b, _ in active}]
    sums = [[sum(part[b][c] for b in range(batch)) for part in (tp, fp, fn)] for c in classes]
    values = dict(D=mean([loss(*s) for s in sums]), I=mean(map_mean(of_images)), C=mean(map_mean(of_classes)))
    return (values['I'] + values['C']) / 2 if form == 'IC' else values[form]


def map_mean(groups):
    return [sum(group) / len(group) for group in groups]


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('soft', [False, True])
@pytest.mark.parametrize('options', [{}, dict(alpha=0.3, beta=0.8, smooth=0.1)])
def test_equals_one_pixel_at_a_time(seed, form, soft, options):
    logits, labels = random_batch(seed)
    target = soft_labels(labels, seed) if soft else labels
    value = JaccardMetricLoss(form, **options)(logits, target)
    assert value.item() == pytest.approx(reference(logits, target, form, **options), abs=1e-12)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('soft', [False, True])
def test_gradients_are_numeric_ones(form, soft):
    logits, labels = random_batch(seed=1)
    target = soft_labels(labels) if soft else labels
    loss = JaccardMetricLoss(form)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())


def test_hard_predictions_give_1_minus_fine_grained_iou():
    logits, labels = random_batch(seed=2)
    predicted = logits.argmax(dim=1)
    certain = 200 * F.one_hot(predicted, 5).permute(0, 3, 1, 2).double()
    images = [image_scores(pred, gt, 5) for pred, gt in zip(predicted, labels, strict=True)]
    measures = fine_grained_iou(images, torch.zeros(5, dtype=torch.bool))
    for form in 'IC':
        value = JaccardMetricLoss(form, smooth=1e-12)(certain, labels)
        assert value.item() == pytest.approx(1 - measures[f'mIoU_{form}'] / 100, abs=1e-9)
    # The form D takes the classes in the ground truth; the metric also those that are only predicted.
    tp, pred_area, gt_area = class_areas(predicted, labels, 5)
    iou = [tp[c] / (pred_area + gt_area - tp)[c] for c in range(5) if gt_area[c]]
    value = JaccardMetricLoss('D', smooth=1e-12)(certain, labels)
    assert value.item() == pytest.approx(1 - sum(iou).item() / len(iou), abs=1e-6)


def test_counted_by_hand():
    # p of class 1 is 1/2 in both pixels; only the first is labelled, as class 1: TP = 1/2, FP = 0, FN = 1/2.
    logits, labels = torch.zeros(1, 2, 1, 2), torch.tensor([[[1, 255]]])
    for form in FORMS:
        assert JaccardMetricLoss(form, loss_weight=3.0)(logits, labels).item() == pytest.approx(3 * (1 - 1.5 / 2))


def test_soft_labels_that_are_met_cost_nothing():
    logits, _ = random_batch()
    for form in FORMS:
        assert JaccardMetricLoss(form)(logits, logits.softmax(dim=1)).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('soft', [False, True])
def test_ignored_pixels_take_no_part(form, soft):
    logits, labels = random_batch()
    target = soft_labels(labels) if soft else labels
    logits.requires_grad_()
    loss = JaccardMetricLoss(form)
    value = loss(logits, target)
    (gradient,) = torch.autograd.grad(value, logits)
    ignored = (labels == 255)[:, None].expand_as(logits)
    assert gradient[ignored].abs().max() == 0 and gradient[~ignored].abs().max() > 0
    other = torch.where(ignored, 9 * torch.randn_like(logits), logits)
    torch.testing.assert_close(loss(other, target), value)
    # Image 2 is all ignored and could as well be left out.
    torch.testing.assert_close(loss(logits[[0, 1, 3]], target[[0, 1, 3]]), value)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('soft', [False, True])
@pytest.mark.parametrize('reduction', ['mean', 'sum', 'none'])
def test_nothing_labelled_is_zero_with_a_gradient(form, soft, reduction):
    if reduction == 'none' and form == 'IC':
        return
    logits = torch.randn(2, 5, 3, 4, requires_grad=True)
    target = torch.zeros(2, 5, 3, 4) if soft else torch.full((2, 3, 4), 255)
    value = JaccardMetricLoss(form, reduction=reduction)(logits, target).sum()
    value.backward()
    assert value.item() == 0 and logits.grad.abs().max() == 0


@pytest.mark.parametrize('soft', [False, True])
def test_pixel_weights_and_another_ignored_label(soft):
    logits, labels = random_batch()
    target = soft_labels(labels) if soft else labels
    weight = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0))
    for form in FORMS:
        value = JaccardMetricLoss(form)(logits, target, weight=weight)
        assert value.item() == pytest.approx(reference(logits, target, form, weight=weight), abs=1e-6)
        if not soft:
            other = torch.where(labels == 255, -1, labels)
            same = JaccardMetricLoss(form)(logits, other, weight=weight, ignore_index=-1)
            torch.testing.assert_close(same, value)
            torch.testing.assert_close(JaccardMetricLoss(form, ignore_index=-1)(logits, other, weight=weight), value)


def test_reductions_over_units():
    logits, labels = random_batch()
    for form, units in dict(D=4, I=3, C=4).items():
        loss = JaccardMetricLoss(form, loss_weight=2.0)
        each = loss(logits, labels, reduction_override='none')
        assert each.shape == (units,)
        torch.testing.assert_close(loss(logits, labels), each.mean())
        torch.testing.assert_close(loss(logits, labels, reduction_override='sum'), each.sum())
        torch.testing.assert_close(loss(logits, labels, avg_factor=8), each.sum() / 8)


def test_one_channel_is_the_logit_of_label_1():
    logits, labels = random_batch()
    labels = torch.where(labels == 255, 255, labels % 2)
    two = torch.stack([torch.zeros_like(logits[:, 0]), logits[:, 0]], dim=1)
    torch.testing.assert_close(JaccardMetricLoss()(logits[:, :1], labels), JaccardMetricLoss()(two, labels))


def test_half_precision_does_not_overflow():
    logits = torch.zeros(1, 2, 400, 400, dtype=torch.bfloat16)
    labels = torch.zeros(1, 400, 400, dtype=torch.long)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = JaccardMetricLoss(smooth=1e-6)(logits, labels)
    assert value.dtype == torch.float32 and value.item() == pytest.approx(0.5, abs=1e-5)


def test_mask_loss_equals_loops_and_numeric_gradients():
    torch.manual_seed(0)
    logits = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    for targets in (torch.rand(3, 6, dtype=torch.float64), torch.randint(2, (3, 6))):
        expected = []
        for row, wanted in zip(logits.sigmoid().tolist(), targets.tolist(), strict=True):
            tp = sum((p + y - abs(p - y)) / 2 for p, y in zip(row, wanted, strict=True))
            expected.append(1 - (tp + 1) / (sum(row) + sum(wanted) - tp + 1))
        assert jaccard_mask_loss(logits, targets).tolist() == pytest.approx(expected, abs=1e-12)
        assert torch.autograd.gradcheck(lambda x, targets=targets: jaccard_mask_loss(x, targets), logits)


def test_mask_loss_of_hard_masks_is_1_minus_iou():
    logits, targets = 200 * torch.tensor([[1.0, 1.0, -1.0, -1.0]]), torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    assert jaccard_mask_loss(logits, targets, smooth=1e-9).item() == pytest.approx(2 / 3)


@pytest.mark.parametrize('sampler', [None, dict(type='OHEMPixelSampler', thresh=0.7, min_kept=4)])
def test_a_decode_head_trains_with_cross_entropy_and_jml_from_its_config(sampler):
    head = MODELS.build(
        dict(
            type='mmseg.FCNHead',
            in_channels=4,
            channels=4,
            num_convs=1,
            num_classes=5,
            norm_cfg=dict(type='BN'),
            dropout_ratio=0,
            sampler=sampler,
            loss_decode=[
                dict(type='CrossEntropyLoss', loss_weight=0.25, avg_non_ignore=True),
                dict(type='JaccardMetricLoss', form='IC', loss_weight=0.75),
            ],
        )
    )
    _, labels = random_batch()
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]
    feats = [torch.randn(4, 4, 3, 4)]
    losses = head.loss(feats, samples, {})
    if sampler is None:
        expected = 0.75 * reference(head(feats).detach(), labels, 'IC')
        assert losses['loss_jml'].item() == pytest.approx(expected, abs=1e-5)
        assert losses['loss_ce'].item() == pytest.approx(
            0.25 * F.cross_entropy(head(feats), labels, ignore_index=255).item()
        )
    sum(value for key, value in losses.items() if key.startswith('loss_')).backward()
    assert all(param.grad is not None and param.grad.isfinite().all() for param in head.parameters())


def test_wrong_settings_and_inputs_are_named():
    with pytest.raises(ValueError, match="`form='K'`"):
        JaccardMetricLoss('K')
    with pytest.raises(ValueError, match='`smooth=0`'):
        JaccardMetricLoss(smooth=0)
    with pytest.raises(ValueError, match="`reduction='max'`"):
        JaccardMetricLoss(reduction='max')
    with pytest.raises(ValueError, match="`form='IC'` mixes"):
        JaccardMetricLoss(reduction='none')
    logits, labels = random_batch()
    with pytest.raises(ValueError, match=r'\(4, 5, 3, 4\).*hard labels \(4, 1, 3, 4\)'):
        JaccardMetricLoss()(logits, labels[:, None])
    with pytest.raises(ValueError, match=r'soft labels \(4, 3, 4\)'):
        JaccardMetricLoss()(logits, labels.float())
    with pytest.raises(ValueError, match=r'\[5, 7\].*0…4.*`ignore_index=255`'):
        JaccardMetricLoss()(logits, torch.where(labels == 0, 7, torch.where(labels == 1, 5, labels)))
