import numpy as np
import pytest
from mmengine.dataset import Compose
from mmseg.datasets import BaseSegDataset
from mmseg.registry import TRANSFORMS
from PIL import Image

LABELS = np.array([[0, 1, 2], [255, 256, 65535]], dtype=np.uint16)
CODES = np.random.default_rng(0).choice(np.array([0, 255, 256, 700, 846, 65535], dtype=np.uint16), size=(6, 8))


def load(path, type='LoadWideAnnotations', **results):
    results = dict(seg_map_path=str(path), seg_fields=[], reduce_zero_label=False, label_map=None, **results)
    return TRANSFORMS.build(dict(type=type))(results)


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_labels_stay_16_bit(tmp_path, suffix):
    Image.fromarray(LABELS).save(tmp_path / f'a{suffix}')
    results = load(tmp_path / f'a{suffix}', ori_shape=(2, 3))
    assert results['gt_seg_map'].dtype == np.uint16 and results['seg_fields'] == ['gt_seg_map']
    np.testing.assert_array_equal(results['gt_seg_map'], LABELS)


@pytest.mark.parametrize('mode', ['1', 'P', 'I'])
def test_other_integer_images(tmp_path, mode):
    labels = np.array([[0, 1], [1, 0]], dtype=np.int32)
    image = Image.fromarray(labels if mode == 'I' else (labels * 255 if mode == '1' else labels).astype(np.uint8))
    if mode == 'P':
        image.putpalette([9, 9, 9, 7, 7, 7])
    image.convert(mode).save(tmp_path / 'a.tif')
    np.testing.assert_array_equal(load(tmp_path / 'a.tif')['gt_seg_map'], labels)


@pytest.mark.parametrize('reduce_zero_label', [False, True])
@pytest.mark.parametrize('label_map', [None, {0: 2, 1: 0, 2: 255, 3: 1}])
def test_8_bit_labels_equal_those_of_mmseg(tmp_path, reduce_zero_label, label_map):
    """mmseg's loader is right below 255; its "no label" is 255 where ours is 65535."""
    labels = np.array([[0, 1, 2, 3], [4, 3, 0, 200]], dtype=np.uint8)
    Image.fromarray(labels).save(tmp_path / 'a.png')
    results = dict(seg_map_path=str(tmp_path / 'a.png'), reduce_zero_label=reduce_zero_label)
    theirs = TRANSFORMS.build(dict(type='LoadAnnotations'))({**results, 'label_map': label_map, 'seg_fields': []})
    wide = label_map and {old: 65535 if new == 255 else new for old, new in label_map.items()}
    ours = TRANSFORMS.build(dict(type='LoadWideAnnotations'))({**results, 'label_map': wide})
    expected = theirs['gt_seg_map'].astype(int)
    np.testing.assert_array_equal(ours['gt_seg_map'], np.where(expected == 255, 65535, expected))


@pytest.mark.parametrize('reduce_zero_label', [False, True])
@pytest.mark.parametrize('label_map', [None, {0: 2, 1: 0, 2: 255, 3: 1}, {i: 255 - i for i in range(255)}])
def test_a_subset_of_classes_equals_that_of_mmseg(tmp_path, reduce_zero_label, label_map):
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(8, 32)).save(tmp_path / 'a.png')
    results = dict(seg_map_path=str(tmp_path / 'a.png'), reduce_zero_label=reduce_zero_label, label_map=label_map)
    theirs, ours = (
        TRANSFORMS.build(dict(type=name))({**results, 'seg_fields': []})
        for name in ('LoadAnnotations', 'LoadClassSubset')
    )
    assert ours['gt_seg_map'].dtype == np.uint8
    np.testing.assert_array_equal(ours.pop('gt_seg_map'), theirs.pop('gt_seg_map'))
    assert ours == theirs


def test_no_label_stays_so_when_zero_is_reduced(tmp_path):
    Image.fromarray(LABELS).save(tmp_path / 'a.tif')
    results = dict(seg_map_path=str(tmp_path / 'a.tif'), reduce_zero_label=True, label_map={254: 300, 255: 7})
    loaded = TRANSFORMS.build(dict(type='LoadWideAnnotations'))(results)
    assert loaded['gt_seg_map'].tolist() == [[65535, 0, 1], [300, 7, 65535]]


def save_rgb(path):
    Image.fromarray(np.zeros((2, 3, 3), dtype=np.uint8)).save(path)


def save_text(path):
    path.write_text('wall')


def save_half_a_file(path):
    Image.fromarray(CODES).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def save_float(path):
    Image.fromarray(np.full((2, 3), 0.5, dtype=np.float32)).save(path, format='TIFF')


def save_negative(path):
    Image.fromarray(np.full((2, 3), -1, dtype=np.int32)).save(path, format='TIFF')


def save_labels(path):
    Image.fromarray(LABELS).save(path)


@pytest.mark.parametrize(
    ('save', 'message'),
    [
        (save_rgb, 'mode RGB with 3 channels'),
        (save_text, 'not a readable image'),
        (save_half_a_file, 'not a readable image'),
        (save_float, 'contains float32 from 0.5 to 0.5'),
        (save_negative, 'contains int32 from -1 to -1'),
        (save_labels, r'has 2 x 3 pixels \(height x width\) and its image b.jpg 3 x 2'),
    ],
)
def test_unusable_label_maps_are_named(tmp_path, save, message):
    save(tmp_path / 'a.png')
    with pytest.raises(ValueError, match=rf'a\.png: .*{message}'):
        load(tmp_path / 'a.png', ori_shape=(3, 2), img_path='b.jpg')


def test_an_image_alone_passes():
    """mmseg's inference removes only transforms named `LoadAnnotations`."""
    results = dict(img=np.zeros((2, 3, 3), dtype=np.uint8))
    assert TRANSFORMS.build(dict(type='LoadWideAnnotations'))(results) is results


def test_16_bit_labels_survive_training_transforms(tmp_path):
    """Image and labels hold the same codes: whatever is drawn at random, they must still agree afterwards."""
    Image.fromarray(CODES).save(tmp_path / 'a.tif')
    Image.fromarray(np.dstack([CODES >> 8, CODES & 255, CODES & 255]).astype(np.uint8)).save(tmp_path / 'a.png')
    pipeline = Compose(
        [
            dict(type='LoadImageFromFile'),
            dict(type='LoadWideAnnotations'),
            dict(type='Resize', scale=(16, 12), interpolation='nearest'),
            dict(type='RandomCrop', crop_size=(7, 9), cat_max_ratio=0.75, ignore_index=65535),
            dict(type='RandomFlip', prob=0.5),
        ]
    )
    doubled = CODES.repeat(2, axis=0).repeat(2, axis=1)
    flips = set()
    for seed in range(8):
        np.random.seed(seed)
        results = pipeline(dict(img_path=str(tmp_path / 'a.png'), seg_map_path=str(tmp_path / 'a.tif')))
        _, green, red = results['img'].astype(int).transpose(2, 0, 1)
        gt = results['gt_seg_map']
        assert gt.dtype == np.uint16 and gt.shape == (7, 9)
        np.testing.assert_array_equal(gt, red * 256 + green)
        upright = gt[:, ::-1] if results['flip'] else gt
        windows = np.lib.stride_tricks.sliding_window_view(doubled, (7, 9)).reshape(-1, 7, 9)
        assert (windows == upright).all(axis=(1, 2)).any()
        flips.add(results['flip'])
    assert flips == {True, False}
    packed = TRANSFORMS.build(dict(type='PackSegInputs'))(results)
    np.testing.assert_array_equal(packed['data_samples'].gt_sem_seg.data[0], gt.astype(int))


@pytest.mark.parametrize(
    ('labels', 'ignore_index', 'dropped'),
    [
        ([[255, 255]], 255, True),
        ([[255, 0]], 255, False),
        ([[255, 255]], 65535, False),
        ([[65535, 65535]], 65535, True),
    ],
)
def test_drop_unlabelled(labels, ignore_index, dropped):
    results = dict(gt_seg_map=np.array(labels, dtype=np.uint16))
    kept = TRANSFORMS.build(dict(type='DropUnlabelled', ignore_index=ignore_index))(results)
    assert kept is (None if dropped else results)


@pytest.mark.parametrize('test_mode', [False, True])
def test_an_unlabelled_image_in_a_dataset(tmp_path, test_mode):
    for name, label in (('empty', 255), ('full', 3)):
        save_rgb(tmp_path / f'{name}.jpg')
        Image.fromarray(np.full((2, 3), label, dtype=np.uint8)).save(tmp_path / f'{name}.png')
    pipeline = [dict(type='LoadAnnotations'), dict(type='DropUnlabelled')]
    prefix = dict(img_path=str(tmp_path), seg_map_path=str(tmp_path))
    dataset = BaseSegDataset(data_prefix=prefix, pipeline=pipeline, test_mode=test_mode, metainfo=dict(classes=['a']))
    assert len(dataset) == 2
    if test_mode:
        with pytest.raises(Exception, match='should not get `None`'):
            dataset[0]
    else:  # another image is drawn
        assert [dataset[i]['img_path'] for i in range(2)] == [str(tmp_path / 'full.jpg')] * 2
