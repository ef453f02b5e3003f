"""Each mistake in the files gives one line; right files load as mmseg's own classes load them."""

import re
import traceback

import numpy as np
import pytest
from mmengine import fileio
from mmseg.datasets import PascalVOCDataset
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_alignzeg.datasets import CheckedADE20KDataset, CheckedCOCOStuffDataset, CheckedPascalContextDataset59
from mmseg_alignzeg.datasets.file_checks import evenly_spaced, missing_files, read_image
from mmseg_alignzeg.datasets.loading import CheckLabelMap, LoadWideAnnotations

PALETTE = [channel for colour in PascalVOCDataset.METAINFO['palette'] for channel in colour]
NAMES = ['a', 'b', 'c']
SEEN = [name for name in PascalVOCDataset.METAINFO['classes'] if name not in ('background', 'sheep', 'sofa')]


def save_image(path, size=(6, 4), **kwargs):
    Image.new('RGB', size, (200, 30, 90)).save(path, **kwargs)


def save_labels(path, values=((0, 1, 15), (17, 18, 255)), size=(6, 4)):
    labels = Image.fromarray(np.array(values, dtype=np.uint8)).resize(size, Image.Resampling.NEAREST)
    labels.putpalette(PALETTE)
    labels.save(path)


def save_wide(path, value):
    """A label map of more than 8 bits, with a value for its first pixel."""
    labels = np.full((4, 6), 15, dtype={int: np.int32, float: np.float32}[type(value)])
    labels[0, 0] = value
    Image.fromarray(labels.astype(np.uint16) if value >= 1 else labels).save(path, 'PNG' if value >= 1 else 'TIFF')


@pytest.fixture
def root(tmp_path):
    """PASCAL VOC with three images."""
    root = tmp_path / 'VOC2012'
    for folder in ('JPEGImages', 'SegmentationClass', 'lists'):
        (root / folder).mkdir(parents=True)
    for name in NAMES:
        save_image(root / f'JPEGImages/{name}.jpg')
        save_labels(root / f'SegmentationClass/{name}.png')
    (root / 'lists/train.txt').write_text('a\nb\nc\n')
    return root


def build(root, **kwargs):
    prefix = dict(img_path='JPEGImages', seg_map_path='SegmentationClass')
    cfg = dict(type='CheckedPascalVOCDataset', data_root=str(root), data_prefix=prefix, ann_file='lists/train.txt')
    return DATASETS.build({**cfg, **kwargs})


def test_right_files_load_as_in_mmseg(root):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    metainfo = dict(classes=SEEN, unseen_classes=[])
    checked = build(root, pipeline=pipeline, metainfo=metainfo)
    plain = build(root, type='PascalVOCDataset', pipeline=pipeline, metainfo=metainfo)
    assert len(checked) == len(plain) == 3 and checked.label_map == plain.label_map
    assert {**checked.metainfo, 'palette': 0} == {**plain.metainfo, 'palette': 0}
    np.testing.assert_array_equal(checked[1]['gt_seg_map'], plain[1]['gt_seg_map'])
    # aeroplane is label 0, person 14; background, sheep and sofa are no label.
    assert np.unique(checked[1]['gt_seg_map']).tolist() == [0, 14, 255]


def break_nothing(root):
    pass


def remove_labels(root):
    (root / 'SegmentationClass/b.png').unlink()


def cut(path):
    """Replace an image by half of the file of a large one."""
    noise = np.random.default_rng(0).integers(0, 21, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN = {
    'root': (
        break_nothing,
        dict(data_root='no/such'),
        r"`data_root='no/such'` is not a folder \(looked for /.*no/such\)",
    ),
    'list': (break_nothing, dict(ann_file='x.txt'), r"The list `ann_file='.*/x\.txt'` does not exist"),
    'no list': (break_nothing, dict(ann_file=''), r"`ann_file=''` is not a file, and CheckedPascalVOC.* needs a list"),
    'image folder': (
        break_nothing,
        dict(data_prefix=dict(img_path='Images', seg_map_path='SegmentationClass')),
        r"The folder of images does not exist, `data_prefix\.img_path='.*VOC2012/Images'`",
    ),
    'label folder': (
        break_nothing,
        dict(data_prefix=dict(img_path='JPEGImages', seg_map_path='Aug')),
        r"The folder of label maps does not exist, `data_prefix\.seg_map_path='.*/Aug'`",
    ),
    'no prefix': (break_nothing, dict(data_prefix=dict(seg_map_path='Aug')), 'names no folder of images'),
    'lazy': (break_nothing, dict(data_root='no/such', lazy_init=True), "`data_root='no/such'` is not a folder"),
    'twice': (
        lambda root: (root / 'lists/train.txt').write_text('a\nb\na\n'),
        {},
        r"train\.txt cannot be used: 1 name\(s\) occur more than once, first: 'a'; remove the repeats",
    ),
    'blank': (lambda root: (root / 'lists/train.txt').write_text('a\n\nb\n'), {}, 'line 2 is empty; remove it'),
    'empty': (lambda root: (root / 'lists/train.txt').write_text(''), {}, r'The list .*train\.txt is empty'),
    'label': (remove_labels, {}, r'1 of 3 label maps are missing, first: .*SegmentationClass/b\.png: see docs'),
    'image': (
        lambda root: (root / 'JPEGImages/c.jpg').rename(root / 'JPEGImages/c.jpeg'),
        {},
        r"1 of 3 images are missing, first: .*c\.jpg \(there is c\.jpeg: rename it, or set `img_suffix='\.jpeg'`\)",
    ),
    'suffix in the list': (
        lambda root: (root / 'lists/train.txt').write_text('a.jpg\n'),
        {},
        r'1 of 1 images are missing, first: .*a\.jpg\.jpg \(there is a\.jpg: names in the list must not have',
    ),
    'pairs in the list': (
        lambda root: (root / 'lists/train.txt').write_text('JPEGImages/a.jpg SegmentationClass/a.png\n'),
        {},
        r'\(each line of the list must be a name, ',
    ),
    'size': (
        lambda root: save_labels(root / 'SegmentationClass/b.png', size=(4, 6)),
        {},
        r'b\.png: a label map of 4 × 6 pixels for an image of 6 × 4',
    ),
    'colours': (
        lambda root: save_image(root / 'SegmentationClass/b.png'),
        {},
        r'b\.png: has several channels \(mode RGB\) where a label map has one',
    ),
    'no image': (
        lambda root: (root / 'JPEGImages/a.jpg').write_bytes(b'<html>'),
        {},
        r'a\.jpg: cannot be read \(6 bytes; not an image\): download or create this file again: see docs',
    ),
    'cut image': (
        lambda root: cut(root / 'JPEGImages/a.jpg'),
        {},
        r'a\.jpg: cannot be read \([\d,]+ bytes; .*truncated',
    ),
    'cut labels': (lambda root: cut(root / 'SegmentationClass/a.png'), {}, r'a\.png: cannot be read \([\d,]+ bytes; '),
}


@pytest.mark.parametrize('case', BROKEN)
def test_each_mistake_gives_one_line(case, root):
    damage, kwargs, message = BROKEN[case]
    damage(root)
    with pytest.raises((FileNotFoundError, ValueError), match=message) as error:
        build(root, **kwargs)
    assert '\n' not in str(error.value)


def test_jpeg_labels(root):
    Image.new('L', (6, 4)).save(root / 'SegmentationClass/a.jpg')
    (root / 'lists/train.txt').write_text('a\n')
    with pytest.raises(ValueError, match=r'a\.jpg: a label map that is a JPEG: JPEG changes values'):
        build(root, seg_map_suffix='.jpg')


def test_an_image_that_exif_turns_has_another_size_than_its_labels(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    save_image(root / 'JPEGImages/a.jpg', exif=exif)
    with pytest.raises(ValueError, match=r'6 × 4 pixels for an image of 4 × 6: EXIF rotates the image'):
        build(root)
    save_labels(root / 'SegmentationClass/a.png', size=(4, 6))
    assert build(root, pipeline=[dict(type='LoadImageFromFile')])[0]['img_shape'] == (6, 4)


def test_the_command_that_makes_the_files_is_named(root):
    remove_labels(root)
    with pytest.raises(FileNotFoundError, match=r'b\.png: run `make voc` \(again\), or see docs/benchmarks\.md'):
        build(root, prepare_command='make voc')


def test_the_look_at_files_can_be_left_out(root):
    remove_labels(root)
    assert len(build(root, check_files=False)) == 3
    with pytest.raises(FileNotFoundError, match='is not a folder'):
        build(root, check_files=False, data_root='no/such')


def test_folder_without_images_says_what_it_holds(root):
    cfg = dict(type='CheckedADE20KDataset', ann_file='', img_suffix='.png')
    with pytest.raises(FileNotFoundError, match=r"no image that ends with `img_suffix='\.png'`, but 3 of '\.jpg'"):
        build(root, **cfg)


def test_labels_of_coco_stuff_that_are_not_converted(root):
    with pytest.raises(
        FileNotFoundError, match=r'3 of 3 label maps .*a_labelTrainIds\.png \(there is a\.png, which has not'
    ):
        build(root, type='CheckedCOCOStuffDataset', ann_file='')


def test_images_without_labels_can_be_tested_on(root):
    for prefix in (dict(img_path='JPEGImages'), dict(img_path='JPEGImages', seg_map_path='')):
        dataset = build(root, type='CheckedADE20KDataset', ann_file='', data_prefix=prefix, test_mode=True)
        assert len(dataset) == 3
    with pytest.raises(FileNotFoundError, match='3 of 3 label maps are missing'):
        build(root, type='CheckedADE20KDataset', ann_file='', data_prefix=prefix)


def test_remote_files_are_left_to_mmseg(root):
    remove_labels(root)
    fileio.register_backend('elsewhere', type('Elsewhere', (fileio.LocalBackend,), {}), force=True)
    assert len(build(root, backend_args=dict(backend='elsewhere'))) == 3
    cfg = dict(type='CheckedADE20KDataset', ann_file=str(root / 'lists/train.txt'), data_root=None)
    dataset = build(root, **cfg, data_prefix=dict(img_path='http://host/images', seg_map_path='http://host/labels'))
    assert dataset.get_data_info(1)['seg_map_path'] == 'http://host/labels/b.png'
    with pytest.raises(FileNotFoundError, match='1 of 3'):
        build(root, backend_args=dict(backend='local'))


def test_folders_dataset_is_checked(root):
    cfg = dict(type='FoldersDataset', label_classes=SEEN, ann_file='')
    assert len(build(root, **cfg)) == 3
    remove_labels(root)
    with pytest.raises(FileNotFoundError, match=re.escape('b.png: see docs/custom_dataset.md.')):
        build(root, **cfg)


@pytest.mark.parametrize('kind', [CheckedADE20KDataset, CheckedCOCOStuffDataset, CheckedPascalContextDataset59])
def test_class_subsets_stay_mmsegs_own(kind):
    plain = kind.__mro__[2]
    classes = list(reversed(plain.METAINFO['classes']))[5:]
    assert kind.METAINFO == plain.METAINFO and kind.get_label_map(classes) == plain.get_label_map(classes)
    assert DATASETS.get(kind.__name__) is kind


def test_one_listing_per_folder(tmp_path, monkeypatch):
    import os

    (tmp_path / 'x').mkdir()
    (tmp_path / 'x/0').touch()
    asked, listdir = [], os.listdir
    monkeypatch.setattr(os, 'listdir', lambda folder: asked.append(folder) or listdir(folder))
    paths = [str(tmp_path / folder / str(i)) for folder in 'xy' for i in range(3)]
    assert missing_files(paths) == paths[1:]
    assert asked == [str(tmp_path / 'x')]  # y does not exist


def test_evenly_spaced():
    assert evenly_spaced(5, 16) == evenly_spaced(5, None) == [0, 1, 2, 3, 4]
    assert evenly_spaced(31, 4) == [0, 10, 20, 30] and evenly_spaced(9, 1) == [0]


DAMAGES = {
    'JPEGImages/b.jpg': {
        'text': lambda path: path.write_text('no image'),
        'empty': lambda path: path.write_bytes(b''),
        'missing': lambda path: path.unlink(),
    },
    'SegmentationClass/b.png': {
        'text': lambda path: path.write_text('no image'),
        'empty': lambda path: path.write_bytes(b''),
        'half': lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        'missing': lambda path: path.unlink(),
        'colours': lambda path: save_image(path),
        'larger': lambda path: save_labels(path, size=(7, 4)),
        'turned': lambda path: save_labels(path, size=(4, 6)),
        'negative': lambda path: save_wide(path, -1),
        '16 bits': lambda path: save_wide(path, 256),
        'fractions': lambda path: save_wide(path, 0.5),
        'NaN': lambda path: save_wide(path, float('nan')),
    },
}


@pytest.mark.attack('training: damaged images and label maps')
@pytest.mark.parametrize(('name', 'kind'), [(name, kind) for name, kinds in DAMAGES.items() for kind in kinds])
def test_a_file_damaged_during_training_is_named(root, name, kind):
    resize = dict(type='RandomResize', scale=(12, 8), ratio_range=(1.0, 1.0))  # takes a label map of any size
    dataset = build(
        root,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), resize, dict(type='PackSegInputs')],
    )
    DAMAGES[name][kind](root / name)
    assert dataset[0]['inputs'].shape == (3, 8, 12)
    with pytest.raises(ValueError, match=rf'^{re.escape(str(root / name))}: ') as raised:
        dataset[1]
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize('value', [0, 255, 65535, 7.0])
def test_wide_files_of_labels_that_fit_are_loaded(root, value):
    save_wide(root / 'SegmentationClass/b.png', value)
    dataset = build(root, pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')])
    assert dataset[1]['gt_seg_map'][0, 0] == min(value, 255)


def test_an_error_of_the_pipeline_names_the_sample(root):
    dataset = build(root, pipeline=[dict(type='LoadImageFromFile'), dict(type='RandomFlip', prob=0.5), lambda _: 1 / 0])
    with pytest.raises(ValueError, match=r'b\.jpg, with the label map .*b\.png: ZeroDivisionError: division by zero'):
        dataset[1]


def test_a_label_map_after_a_resize_has_the_size_of_the_file(root):
    """As in test pipelines: the image is resized, labels keep their own size."""
    resize = dict(type='Resize', scale=(12, 8))
    steps = [dict(type='LoadImageFromFile'), resize, dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    assert build(root, pipeline=steps)[1]['data_samples'].gt_sem_seg.data.shape == (1, 4, 6)
    save_labels(root / 'SegmentationClass/b.png', size=(12, 8))
    unchecked = build(root, pipeline=steps, check_files=False)
    assert unchecked[1]['data_samples'].gt_sem_seg.data.shape == (1, 8, 12)


@pytest.mark.attack('data: a picture that another program would have to open')
def test_no_picture_starts_another_program(root, monkeypatch):
    """Pillow recognises a file by its content, and hands PostScript to Ghostscript."""
    monkeypatch.setattr('PIL.EpsImagePlugin.Ghostscript', lambda *args, **kwargs: pytest.fail('it was started'))
    for name in ('JPEGImages/b.jpg', 'SegmentationClass/b.png'):
        saved = (root / name).read_bytes()
        Image.new('L', (6, 4)).save(root / name, 'EPS')
        with pytest.raises(ValueError, match='cannot be read'):
            read_image(str(root / name), decode=True)
        with pytest.raises(ValueError, match='not a readable image'):
            LoadWideAnnotations().transform(dict(seg_map_path=str(root / name)))
        with pytest.raises(OSError, match='cannot identify image file'):
            CheckLabelMap().transform(
                dict(seg_map_path=str(root / name), gt_seg_map=np.zeros((4, 6), np.uint8), ori_shape=(4, 6))
            )
        (root / name).write_bytes(saved)


@pytest.mark.attack('names: control characters')
def test_the_traceback_of_a_damaged_sample_is_printable(root):
    name = 'x\x1b[31m'
    save_image(root / f'JPEGImages/{name}.jpg')
    save_labels(root / f'SegmentationClass/{name}.png')
    (root / 'lists/train.txt').write_text(f'{name}\n')
    dataset = build(root, pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')])
    Image.new('L', (3, 3)).save(root / f'SegmentationClass/{name}.png')
    with pytest.raises(ValueError, match='a label map of 3 × 3 pixels') as raised:
        dataset[0]
    text = ''.join(traceback.format_exception(raised.value))
    assert '\x1b' not in text and '\\x1b' in text
