import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from PIL import Image

NAMES = ['sky', 'road', 'car']
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]


@pytest.fixture
def root(tmp_path):
    init_default_scope('mmseg')
    for folder in ('images', 'labels'):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.zeros((2, 4, 3), dtype=np.uint8)).save(tmp_path / 'images/a.png')
    Image.fromarray(np.array([[0, 1, 2, 11], [2, 1, 0, 255]], dtype=np.uint8)).save(tmp_path / 'labels/a.png')
    return tmp_path


def build(root, **kwargs):
    prefix = dict(img_path='images', seg_map_path='labels')
    suffix = dict(img_suffix='.png', seg_map_suffix='.png')
    cfg = dict(type='FoldersDataset', data_root=str(root), data_prefix=prefix, label_classes=NAMES, **suffix)
    return DATASETS.build({**cfg, 'ignored_labels': [11], 'pipeline': PIPELINE, **kwargs})


def labels(dataset):
    return dataset[0]['data_samples'].gt_sem_seg.data[0].tolist()


def test_all_classes_keep_their_labels(root):
    dataset = build(root)
    assert dataset.metainfo['classes'] == NAMES and dataset.metainfo['unseen_classes'] == []
    assert labels(dataset) == [[0, 1, 2, 255], [2, 1, 0, 255]]


def test_a_subset_is_renumbered_and_the_rest_is_ignored(root):
    dataset = build(root, metainfo=dict(classes=['car', 'sky']))
    assert labels(dataset) == [[1, 255, 0, 255], [0, 255, 1, 255]]


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(metainfo=dict(classes=['boat'])), r"names \['boat'\], which are not among `label_classes`"),
        (dict(ignored_labels=[1]), r'`ignored_labels` holds \[1\]'),
        (dict(metainfo=dict(unseen_classes=['boat'])), r"`unseen_classes` names \['boat'\]"),
        (dict(label_classes=['sky', 'sky']), 'more than once'),
    ],
)
def test_wrong_names(root, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(root, **kwargs)


MANY = list(map(str, range(300)))
WIDE = dict(
    label_classes=MANY,
    ignored_labels=[],
    ignore_index=65535,
    pipeline=[PIPELINE[0], dict(type='LoadWideAnnotations'), PIPELINE[2]],
)


def test_more_than_255_classes(root):
    values = np.array([[0, 255, 256, 299], [65535, 300, 1, 2]], dtype=np.uint16)
    Image.fromarray(values).save(root / 'labels/a.png')
    wide = {**WIDE, 'ignored_labels': [300]}
    assert labels(build(root, **wide)) == [[0, 255, 256, 299], [65535, 65535, 1, 2]]
    colours = [[i % 256, 0, 0] for i in range(300)]
    dataset = build(root, **wide, metainfo=dict(classes=['299', '255', '1'], palette=colours))
    assert labels(dataset) == [[65535, 1, 65535, 0], [65535, 65535, 2, 65535]]
    assert dataset.metainfo['palette'] == [[43, 0, 0], [255, 0, 0], [1, 0, 0]]


def test_8_bit_files_with_a_wide_ignore_index(root):
    dataset = build(root, **{**WIDE, 'label_classes': NAMES, 'ignored_labels': [11]}, metainfo=dict(classes=['car']))
    assert labels(dataset) == [[65535, 65535, 0, 65535], [0, 65535, 65535, 65535]]


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(WIDE, ignore_index=255), '`ignore_index=255` is also the label of a class'),
        (dict(WIDE, label_classes=MANY[:256], ignore_index=255), '`ignore_index=255` is also the label of a class'),
        (dict(WIDE, pipeline=PIPELINE), '`LoadAnnotations` keeps 8 bits, too few for 300 `label_classes` and'),
        (dict(ignore_index=65535), 'too few for 3 `label_classes` and `ignore_index=65535`'),
    ],
)
def test_labels_that_do_not_fit(root, kwargs, message):
    way_out = 'load 16-bit label maps with `LoadWideAnnotations`, and set `ignore_index=65535` in dataset, '
    with pytest.raises(ValueError, match=f'{message}.*: {way_out}'):
        build(root, **kwargs)


def test_the_ignored_label_is_not_that_of_a_class(root):
    with pytest.raises(ValueError, match='`ignore_index=0` is also the label of a class: use 255'):
        build(root, ignore_index=0)
    pipeline = [PIPELINE[0], dict(type='LoadClassSubset'), PIPELINE[2]]
    classes = dict(classes=['car', 'sky'])
    some = build(root, ignore_index=2, metainfo=classes, ignored_labels=[11, 300], pipeline=pipeline)
    assert labels(some) == [[1, 2, 0, 2], [0, 2, 1, 2]]  # 300 is in no 8-bit file


def test_255_classes_fit(root):
    assert labels(build(root, label_classes=MANY[:255], ignored_labels=[])) == [[0, 1, 2, 11], [2, 1, 0, 255]]
