"""From proposals to labels: views merged by brute force, and each decoder in the segmentor."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from small_model import TRAINED, build

from mmseg_alignzeg.models import Answer, decoding
from mmseg_alignzeg.models.decoding import ViewProposals
from mmseg_alignzeg.models.inference import semantic_stripes
from mmseg_alignzeg.models.proposals import Window


def ensemble(*views, weighting='uniform', **options):
    return MODELS.build(dict(type='EnsembleDecoder', views=list(views), weighting=weighting, **options))


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
    return Answer(tuple(views), Window(0, 0, 1, 1, (height, width)), **options).scores()


@pytest.mark.parametrize('scored', [False, True])
@pytest.mark.parametrize('temperature', [1.0, 0.3])
def test_merging_by_brute_force(scored, temperature):
    views, bias = random_views(scored), torch.randn(5)
    expected = brute_force(views, 9, 11, temperature, bias)
    torch.testing.assert_close(merge(views, temperature=temperature, class_bias=bias), expected)


def test_stripes_of_merged_views_cover_the_image(monkeypatch):
    views, rows = random_views(scored=True), []
    whole = merge(views)
    monkeypatch.setattr(decoding, 'semantic_stripes', partial(semantic_stripes, max_elements=200))
    for stripe, scores in Answer(tuple(views), Window(0, 0, 1, 1, (9, 11))).stripes():
        rows.append((stripe.start, stripe.stop))
        torch.testing.assert_close(scores.permute(2, 0, 1), whole[:, stripe])
    assert rows == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 9)]  # 200 // (11 · max(4 proposals, 5 classes and 2 more))


def test_only_differences_of_scores_count_and_a_clear_one_decides():
    views = random_views(scored=True)
    plain = merge(views)
    views = [replace(view, preference=view.preference + 5) for view in views]
    torch.testing.assert_close(merge(views), plain)
    views[1] = replace(views[1], preference=views[1].preference + 1000)
    torch.testing.assert_close(merge(views), merge([ViewProposals(views[1].mask_logits, views[1].class_probs)]))
    unscored = [ViewProposals(view.mask_logits, view.class_probs) for view in views]
    torch.testing.assert_close(merge(views, temperature=1e9), merge(unscored))


# ---------------------------------------------------------------------- the segmentor at test


def test_a_class_bias_is_added_to_every_pixel_and_decides():
    (view, *_), bias = random_views(scored=False), torch.tensor([-0.3, 0.2, 0.0, 0.1, -0.1])
    plain = merge([view])
    answer = Answer((view,), Window(0, 0, 1, 1, (9, 11)), bias)
    torch.testing.assert_close(answer.scores(), plain + bias[:, None, None])
    assert torch.equal(answer.labels(), answer.scores().argmax(dim=0, keepdim=True))
    assert answer.labels().dtype == torch.int64 and (answer.labels() != plain.argmax(dim=0)).any()


def test_an_answer_is_drawn_at_any_size():
    (view, *_) = random_views(scored=False)
    small = Window(0.0, 0.0, 1.0, 1.0, (3, 4))
    drawn = torch.cat([scores.clone() for _, scores in Answer((view,), Window(0, 0, 1, 1, (9, 11))).stripes(small)])
    torch.testing.assert_close(drawn.permute(2, 0, 1), merge([view], 3, 4))


def test_one_view_is_the_image_itself_to_the_last_bit():
    options = dict(test_cfg=dict(return_scores=True), calibration=dict(type='CalibratedStacking', constant=0.1))
    model = build(decoder=dict(type='EnsembleDecoder', views=[dict()]), **options).eval()
    plain = build(**options).eval()
    images = torch.randn(2, 3, 77, 101)
    metainfo = dict(ori_shape=(60, 70), img_padding_size=(0, 5, 0, 7), flip=True, flip_direction='horizontal')
    for samples in (lambda: None, lambda: [SegDataSample(metainfo=metainfo) for _ in images]):
        for ours, theirs in zip(model.predict(images, samples()), plain.predict(images, samples()), strict=True):
            assert torch.equal(ours.seg_logits.data, theirs.seg_logits.data)
            assert torch.equal(ours.pred_sem_seg.data, theirs.pred_sem_seg.data)
    assert torch.equal(model.encode_decode(images, [{}, {}]), plain.encode_decode(images, [{}, {}]))
    model.return_scores = False
    assert 'seg_logits' not in model.predict(images)[0]


def test_one_look_answers_many_questions():
    model = build().eval()
    images = torch.randn(1, 3, 64, 80)
    looks, looked = model.look(images), model.extract_feat
    model.extract_feat = None  # asking needs no encoder
    questions = [model.question, model.question.without_correction(), model.ask(['zebra', 'sky'])]
    labels = [model.answer(looks, [SegDataSample()], (64, 80), question)[0].labels() for question in questions]
    model.extract_feat = looked
    for found, question in zip(labels, questions, strict=True):
        assert torch.equal(found, model.predict(images, None, question)[0].pred_sem_seg.data)


@pytest.mark.parametrize(('flip', 'axis'), [('horizontal', -1), ('vertical', -2)])
def test_a_flipped_view_lays_its_masks_back(flip, axis):
    """The input is no multiple of the stride: padding is at the other side of the flipped view."""
    model = build().eval()
    images = torch.randn(1, 3, 70, 90)
    padded = F.pad(images, (0, 6, 0, 10))
    by_hand = model.encode_decode(padded.flip(axis), [{}]).flip(axis)[:, :, :70, :90]
    model.decoder = ensemble(dict(flip=flip))
    flipped = model.encode_decode(images, [{}])
    torch.testing.assert_close(flipped, by_hand)
    model.decoder = MODELS.build(dict(type='SemanticDecoder'))
    plain = model.encode_decode(images, [{}])
    assert not torch.allclose(plain, flipped)
    model.decoder = ensemble(dict(), dict(flip=flip))
    torch.testing.assert_close(model.encode_decode(images, [{}]), (plain + flipped) / 2)


@pytest.mark.parametrize(('scale', 'size'), [(0.75, (48, 64)), (1.4, (96, 112))])
def test_a_view_at_another_scale(scale, size):
    """64 × 80 times the scale, to whole strides of 16."""
    model = build().eval()
    images = torch.randn(1, 3, 64, 80)
    masks, probs = model._forward(F.interpolate(images, size=size, mode='bilinear', antialias=True))
    by_hand = merge([ViewProposals(masks[0], probs[0])], 64, 80)
    model.decoder = ensemble(dict(scale=scale))
    torch.testing.assert_close(model.encode_decode(images, [{}])[0], by_hand)


@torch.no_grad()
def test_preferred_views_by_brute_force():
    model = build(preference=TRAINED, test_cfg=dict(return_scores=True)).eval()
    model.preference.steps += 1
    model.decoder = ensemble(dict(), dict(flip='vertical'), weighting='preference')
    images = torch.randn(1, 3, 32, 32)
    views = []
    for axes in ((), (2,)):
        proposals = model.extract_feat(images.flip(axes))
        scores = 30 * model.preference(proposals.feats, proposals.mask_logits)
        views.append(ViewProposals(proposals.mask_logits.flip(axes)[0], model.class_probs(proposals)[0], scores[0]))
    plain, scored = [merge(views, 32, 32), brute_force(views, 32, 32)]
    model.decoder.temperature = 1 / 30
    result = model.predict(images)[0]
    torch.testing.assert_close(result.seg_logits.data, scored)
    torch.testing.assert_close(plain, scored)
    assert torch.equal(result.pred_sem_seg.data[0], result.seg_logits.data.argmax(dim=0))
    model.decoder.weighting = 'uniform'
    assert not torch.allclose(model.predict(images)[0].seg_logits.data, scored, atol=1e-4)


def test_a_score_that_was_never_trained_is_refused():
    model = build(preference=TRAINED)
    model.decoder = ensemble(dict(), weighting='preference')
    images = torch.randn(1, 3, 32, 32)
    loaded = model.load_state_dict(build().state_dict(), strict=False)  # a checkpoint without score
    assert all(name.startswith('preference.') for name in loaded.missing_keys) and loaded.missing_keys
    with pytest.raises(ValueError, match='never trained, or the checkpoint holds none'):
        model.eval().predict(images)
    model.decoder = ensemble(dict())
    assert model.predict(images)[0].pred_sem_seg.data.shape == (1, 32, 32)
    trained = build(preference=TRAINED).train()
    trained.preference.steps += 1
    model.load_state_dict(trained.state_dict(), strict=True)
    model.decoder = ensemble(dict(), weighting='preference')
    assert model.predict(images)[0].pred_sem_seg.data.shape == (1, 32, 32)


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
        (dict(views=[dict()], weighting='best'), r"weighting='best' must be one of \['uniform', 'preference'\]"),
        (dict(views=[dict()], temperature=0), 'temperature=0 must be a finite number above 0'),
    ],
)
def test_bad_ensembles_get_one_clear_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        MODELS.build(dict(type='EnsembleDecoder', **arguments))
    assert '\n' not in str(error.value)


def test_a_weighting_without_a_score_is_refused():
    with pytest.raises(ValueError, match="weighting='preference' needs the score"):
        build(decoder=dict(type='EnsembleDecoder', views=[dict()], weighting='preference'))
