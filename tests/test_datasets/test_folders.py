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
