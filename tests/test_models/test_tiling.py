"""Overlapping windows: where they lie, and blended scores against those of every window by hand."""

import weakref
from dataclasses import replace
from itertools import product

import pytest
import small_model
import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample

from mmseg_alignzeg.models import tiling
from mmseg_alignzeg.models.tiling import Tiling

SLIDE = dict(mode='slide', crop_size=(48, 64), stride=(32, 40))


def build(test_cfg=None, **options):
    test_cfg = {**(test_cfg or {}), 'return_scores': True}
    return small_model.build(classes=['cat', 'dog', 'sky'], test_cfg=test_cfg, **options).eval()


def spans(length, crop, stride):
    """Of mmseg's `slide_inference`."""
    found = []
    for i in range(max(length - crop + stride - 1, 0) // stride + 1):
        end = min(i * stride + crop, length)
        found.append((max(end - crop, 0), end))
    return found


@pytest.mark.parametrize('shape', [(100, 130), (48, 64), (20, 300), (81, 104)])
def test_windows_are_those_of_mmseg(shape):
    boxes = Tiling(SLIDE['crop_size'], SLIDE['stride']).boxes(shape)
    expected = list(product(*map(spans, shape, SLIDE['crop_size'], SLIDE['stride'])))
    assert [((r.start, r.stop), (c.start, c.stop)) for r, c in boxes] == expected


def by_hand(model, images):
    """Mean over the windows at every pixel of the input."""
    height, width = images.shape[2:]
    scores, counts = torch.zeros(1, 3, height, width), torch.zeros(height, width)
    for (top, bottom), (left, right) in product(*map(spans, (height, width), SLIDE['crop_size'], SLIDE['stride'])):
        scores[:, :, top:bottom, left:right] += model.encode_decode(images[:, :, top:bottom, left:right], [{}])
        counts[top:bottom, left:right] += 1
    return scores / counts


@pytest.mark.parametrize('shape', [(100, 130), (30, 40), (48, 150)])
def test_scores_are_the_mean_over_windows(shape):
    images = torch.randn(1, 3, *shape)
    torch.testing.assert_close(build(SLIDE).encode_decode(images, [{}]), by_hand(build(), images))
    assert shape == (30, 40) or not torch.allclose(by_hand(build(), images), build().encode_decode(images, [{}]))


def test_bands_change_nothing(monkeypatch):
    images = torch.randn(1, 3, 100, 130)
    model = build(SLIDE)
    whole = model.encode_decode(images, [{}])
    monkeypatch.setattr(tiling, 'BAND_ELEMENTS', 7 * 130 * 3)
    torch.testing.assert_close(model.encode_decode(images, [{}]), whole)


def test_each_window_is_encoded_once_and_forgotten_after_its_last_row(monkeypatch):
    monkeypatch.setattr(tiling, 'BAND_ELEMENTS', 10 * 130 * 3)  # bands of ten rows
    model = build(SLIDE)
    (answer,) = model.answers(torch.randn(1, 3, 300, 130), [SegDataSample()])
    looked, alive = [], weakref.WeakSet()
    encode = answer.encode

    def watched(tile):
        looked.append(tile.crop)
        found = encode(tile)
        alive.add(found.views[0].mask_logits)
        return found

    most = 0
    for _ in replace(answer, encode=watched).stripes():
        most = max(most, len(alive))
    assert len(looked) == len(answer.tiles) == 27
    assert most <= 9  # three columns, and three rows of windows that overlap


def test_labels_have_the_size_of_the_original_without_padding():
    """The mean is taken at the pixels of the original: near the means at those of the input, resized."""
    images = torch.randn(1, 3, 96, 128)
    model = build(SLIDE)
    sample = SegDataSample(metainfo=dict(ori_shape=(180, 240), img_padding_size=(0, 8, 0, 6)))
    result = model.predict(images, [sample])[0]
    assert result.pred_sem_seg.data.shape == (1, 180, 240)
    expected = F.interpolate(by_hand(build(), images)[:, :, :90, :120], size=(180, 240), mode='bilinear')[0]
    assert (result.seg_logits.data - expected).abs().mean() < 0.02 * expected.std()  # shifted by a pixel: 0.06
    assert torch.equal(result.pred_sem_seg.data[0], result.seg_logits.data.argmax(dim=0))


@pytest.mark.parametrize(('direction', 'axis'), [('horizontal', 3), ('vertical', 2)])
def test_flips_are_undone(direction, axis):
    """The last window is padded: after the flip its padding is at the other side."""
    images = torch.randn(1, 3, 100, 130)
    sample = SegDataSample(metainfo=dict(ori_shape=(100, 130), flip=True, flip_direction=direction))
    found = build(SLIDE).predict(images, [sample])[0].seg_logits.data
    torch.testing.assert_close(found, by_hand(build(), images).flip(axis)[0])


def test_views_and_calibration_act_in_windows():
    views = dict(decoder=dict(type='EnsembleDecoder', views=[dict(), dict(flip='horizontal')]))
    stacking = dict(calibration=dict(type='CalibratedStacking', constant=0.2))
    images = torch.randn(1, 3, 100, 130)
    for options in (views, stacking):
        found = build(SLIDE, **options).encode_decode(images, [{}])
        torch.testing.assert_close(found, by_hand(build(**options), images))
        assert not torch.allclose(found, build(SLIDE).encode_decode(images, [{}]))


@pytest.mark.parametrize('divisor', [1, 32])
def test_pixels_are_normalised_window_by_window(divisor):
    """A test step with uint8 images of different sizes gives what `predict` gives for their normalised copies."""
    preprocessor = dict(type='SegDataPreProcessor', mean=[120, 110, 100], std=[60, 61, 62], bgr_to_rgb=True)
    preprocessor['test_cfg'] = dict(size_divisor=divisor)  # not that of the model, 16, which pads too
    model = build(SLIDE, data_preprocessor=preprocessor)
    images = [torch.randint(256, (3, *shape), dtype=torch.uint8) for shape in ((100, 130), (90, 70))]
    sizes = []
    forward = model.data_preprocessor.forward
    model.data_preprocessor.forward = lambda data, *rest: (
        sizes.extend(x.shape for x in data['inputs']),
        forward(data, *rest),
    )[1]
    results = model.test_step(dict(inputs=images, data_samples=[SegDataSample(), SegDataSample()]))
    assert max(height * width for _, height, width in sizes) <= 48 * 64
    for image, result in zip(images, results, strict=True):
        mean, std = (torch.tensor(part).view(3, 1, 1) for part in ([120.0, 110, 100], [60.0, 61, 62]))
        expected = model.predict(((image.flip(0) - mean) / std)[None])[0]
        torch.testing.assert_close(result.seg_logits.data, expected.seg_logits.data)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(test_cfg=dict(mode='slide')), "'slide' with `crop_size` and `stride`"),
        (dict(test_cfg=dict(SLIDE, crop_size=96)), r"'crop_size': 96.*\(rows, columns\) each"),
        (dict(test_cfg=dict(crop_size=(9, 9))), "`mode` must be 'whole', or 'slide'"),
        (dict(test_cfg=dict(mode='tiles')), "'mode': 'tiles'"),
        (dict(test_cfg=dict(SLIDE, stride=(64, 40))), r'stride=\(64, 40\)'),
        (dict(test_cfg=dict(SLIDE, stride=(0, 40))), r'stride=\(0, 40\)'),
        (dict(test_cfg=dict(SLIDE, stride=(5, 40))), r'stride=\(5, 40\)'),
        (dict(test_cfg=SLIDE, decoder=dict(type='OracleDecoder')), 'OracleDecoder looks at whole images'),
    ],
)
def test_what_cannot_be_tiled(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
