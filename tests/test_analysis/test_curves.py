"""Labels under many settings, against the model's own prediction and by hand."""

from dataclasses import replace

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from alignzeg.analysis import AnalysisTask, ImageProposals, Variant, collect, image_counts, plan_variants
from alignzeg.analysis.collect import ViewScores
from alignzeg.analysis.curves import mask_ious, measures, stacked_labels, view_probs
from alignzeg.exchange import load_pretrained
from mmseg_alignzeg.datasets.patterns import draw_scene
from mmseg_alignzeg.evaluation import ZeroShotIoUMetric
from mmseg_alignzeg.models import CalibratedStacking, PredictiveBiasCorrection
from mmseg_alignzeg.models.clip_source import ASSETS
from mmseg_alignzeg.models.proposals import Window
from mmseg_alignzeg.vocabulary import Vocabulary

CLASSES = ['red stripes', 'red dots', 'green dots', 'yellow grid']
TASK = AnalysisTask(
    Vocabulary(tuple(CLASSES), ('red dots',)), ('red stripes', 'green dots', 'yellow grid'), 255, 'share', 2
)


@pytest.fixture
def model():
    """The model in the package: its proposals differ, and so do their indicators."""
    model = load_pretrained(ASSETS / 'patterns')
    model.set_test_classes(CLASSES)
    return model


def batch():
    """Two scenes that get padded, one of them flipped, with labels of their original sizes, some of them ignored."""
    samples = []
    for size, turned in (((70, 50), {}), ((31, 90), dict(flip=True, flip_direction='horizontal'))):
        labels = torch.randint(0, 4, (1, *size))
        labels[:, :9] = 255
        metainfo = dict(ori_shape=size, img_path='somewhere.png', **turned)
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=metainfo))
    images = [torch.from_numpy(draw_scene(2, i)[0][:75, :59, ::-1].copy()).permute(2, 0, 1) for i in range(2)]
    return {'inputs': images, 'data_samples': samples}


@pytest.mark.parametrize('background_at_test', ['share', 'ignore'])
@pytest.mark.parametrize('own', [Variant(), Variant(0.5), Variant(0.5, 0.05), Variant(None, -0.02)])
def test_a_row_is_the_models_own_prediction_to_the_last_digit(model, own, background_at_test):
    model.question = replace(
        model.question,
        background_at_test=background_at_test,
        bias_correction=None if own.gamma is None else PredictiveBiasCorrection(own.gamma),
        calibration=CalibratedStacking(own.constant) if own.constant else None,
    )
    data = batch()
    metric = ZeroShotIoUMetric()
    metric.dataset_meta = dict(classes=CLASSES, unseen_classes=['red dots'])
    metric.process(None, model.test_step(data))
    task = AnalysisTask(TASK.vocabulary, TASK.trained_classes, 255, background_at_test, 2)
    variants = [Variant(1.0), own, Variant(0.0)]
    confusion = sum(image_counts(image, variants, task)[0] for image in collect(model, [data], task))
    row = measures(confusion[1], task.unseen)
    del row['unseen_as_seen']
    assert row == metric.compute_metrics(metric.results) and len(row) == 5
    assert not torch.equal(confusion[0], confusion[2])  # these settings do change labels


def test_a_row_of_an_ensemble_is_its_own_prediction(model):
    views, data = [dict(), dict(scale=0.75, flip='horizontal')], batch()
    model.decoder = MODELS.build(dict(type='EnsembleDecoder', views=views))
    metric = ZeroShotIoUMetric()
    metric.dataset_meta = dict(classes=CLASSES, unseen_classes=['red dots'])
    metric.process(None, model.test_step(data))
    task = TASK
    own = Variant(model.question.bias_correction.gamma)
    images = list(collect(model, [data], task))
    confusion = sum(image_counts(image, [own, Variant(oracle=True)], task)[0] for image in images)
    row = measures(confusion[0], task.unseen)
    del row['unseen_as_seen']
    assert row == metric.compute_metrics(metric.results)
    alone = [replace(image, views=image.views[:1]) for image in images]
    single = sum(image_counts(image, [Variant(oracle=True)], task)[0] for image in alone)
    assert torch.equal(confusion[1], single[0])  # an oracle is told the classes of the image's own proposals


def test_stacking_is_the_module_at_every_constant():
    scores, trained = torch.rand(500, 6), torch.tensor([True, False, True, True, False, True])
    constants = [-0.3, 0.0, 0.1, 0.4, 2.0]
    for constant, labels in zip(constants, stacked_labels(scores, constants, trained), strict=True):
        assert torch.equal(labels, CalibratedStacking(constant)(scores, trained).argmax(dim=-1))


def by_hand():
    """Two masks on a grid as large as the image, the left and the right half; the left one looks unseen."""
    masks = torch.full((2, 2, 4), -20.0)
    masks[0, :, :2], masks[1, :, 2:] = 20, 20
    scores = torch.tensor([[3.0, 2.9, 0, 0, 0], [0, 0, 4.0, 0, 0]])
    labels = torch.tensor([[1, 1, 2, 2], [1, 255, 0, 2]])
    window = Window(0.0, 0.0, 1.0, 1.0, (2, 4))
    view = ViewScores(masks, scores, torch.tensor([0.7, 0.2]))
    return ImageProposals((view,), labels, window, torch.tensor([[0, 1], [1, 2]]))


def test_counts_by_hand():
    variants = [Variant(), Variant(0.5), Variant(0.8), Variant(constant=0.1), Variant(oracle=True)]
    confusion, pixels = image_counts(by_hand(), variants, TASK)
    plain = torch.zeros(4, 5).long()
    plain[1, 0], plain[2, 2], plain[0, 2] = 3, 3, 1  # the left half is taken for class 0
    assert torch.equal(confusion[0], plain) and torch.equal(confusion[2], plain)
    corrected = plain.clone()
    corrected[1, 0], corrected[1, 1] = 0, 3
    assert all(torch.equal(confusion[k], corrected) for k in (1, 3, 4))
    assert pixels.tolist() == [[0, 1], [3, 0], [0, 3], [0, 0], [1, 0]]
    assert measures(plain, TASK.unseen)['unseen_as_seen'] == 100
    assert measures(corrected, TASK.unseen)['unseen_as_seen'] == 0


def test_labels_of_no_class_are_refused_as_in_the_metric():
    image = by_hand()
    image.labels[0, 0] = 9
    with pytest.raises(ValueError, match=r'label\(s\) \[9\], outside 0…3'):
        image_counts(image, [Variant()], TASK)


def test_best_masks_by_brute_force():
    labels = torch.randint(0, 5, (9, 9))  # 4 stands for ignored pixels
    bits = torch.rand(6, 9, 9) > 0.5
    labels[labels == 2] = 1
    pixels = torch.stack([(bits & (labels == c)).sum(dim=(1, 2)) for c in range(5)]).float()
    result = mask_ious(pixels, torch.tensor([(labels == c).sum() for c in range(4)]))
    assert result[2].isnan()
    for c in (0, 1, 3):
        true, counted = labels == c, labels != 4
        ious = [(mask & true).sum() / ((mask | true) & counted).sum() for mask in bits]
        torch.testing.assert_close(result[c], max(ious))


def test_probabilities_of_a_variant_are_those_of_the_segmentor(model):
    model.question = replace(model.question, bias_correction=PredictiveBiasCorrection(0.5))
    proposals = model.extract_feat(torch.randn(1, 3, 64, 64))
    scores = model.classify(proposals, model.text_bank(CLASSES, 'cpu'))[0]
    view = ViewScores(proposals.mask_logits[0], scores, model.class_indicator(proposals.feats).sigmoid()[0])
    assert torch.equal(view_probs(view, 0.5, TASK), model.class_probs(proposals)[0])


def test_variants_are_listed_once_and_in_order():
    variants = plan_variants([0.9, 0.3, 0.9], [0.1, 0.0], Variant(0.3), 0.3, True)
    assert variants == [
        Variant(),
        Variant(0.3),
        Variant(0.9),
        Variant(None, 0.1),
        Variant(0.3, 0.1),
        Variant(oracle=True),
    ]
    assert plan_variants([0.9], [0.1], Variant(), None, True) == [
        Variant(),
        Variant(None, 0.1),
        Variant(oracle=True),
    ]
    assert plan_variants([], [0.1], Variant(), 0.3, False) == [Variant(), Variant(0.3), Variant(oracle=True)]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [(dict(gammas=[0.1, 1.5]), r'gamma=1.5 is outside \[0, 1\]'), (dict(constants=[float('nan')]), 'constant=nan')],
)
def test_settings_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_variants(**{'gammas': [], 'constants': [], **arguments}, own=Variant(), base=0.3, has_both=True)
