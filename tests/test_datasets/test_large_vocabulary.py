import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.datasets import ADE20KDataset, PascalContextDataset59
from mmseg.registry import DATASETS, METRICS
from PIL import Image

from mmseg_alignzeg.datasets import ADE20KFullDataset, PascalContext459Dataset, original_labels

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeShortestEdge', scale=6, max_size=32),
    dict(type='LoadWideAnnotations'),  # after the resize: labels keep their own size
    dict(type='PackSegInputs'),
]
ADE, CONTEXT = ADE20KFullDataset.METAINFO['classes'], PascalContext459Dataset.METAINFO['classes']
IMAGES = {'ADE20KFullDataset': 'images_detectron2/validation', 'PascalContext459Dataset': 'JPEGImages'}
LABELS = {
    'ADE20KFullDataset': 'annotations_detectron2/validation',
    'PascalContext459Dataset': 'annotations_detectron2/pc459_val',
}


def build(root, type, labels, **kwargs):
    """A data set in its published layout, one image per label map."""
    for folder in (IMAGES[type], LABELS[type]):
        (root / folder).mkdir(parents=True)
    for i, label_map in enumerate(labels):
        array = np.array(label_map, dtype=np.uint16)
        Image.fromarray(array).save(root / LABELS[type] / f'{i}.tif')
        Image.fromarray(np.zeros((*array.shape, 3), dtype=np.uint8)).save(root / IMAGES[type] / f'{i}.jpg')
    prefix = dict(img_path=IMAGES[type], seg_map_path=LABELS[type])
    cfg = dict(type=type, data_root=str(root), data_prefix=prefix, pipeline=PIPELINE, test_mode=True)
    return lambda **more: DATASETS.build({**cfg, **kwargs, **more})


@pytest.mark.parametrize(('benchmark', 'count'), [('ade847', 847), ('context459', 459)])
def test_number_of_names(benchmark, count):
    labels = original_labels(benchmark)
    assert len(labels) == len(set(labels.values())) == count
    assert all(name == name.strip() and name for name in labels.values())


def test_ade_numbers():
    """ADE20K's own annotation of ADE_train_00016869 gives these numbers (`name_ndx`) with these names."""
    official = {64: 'ashcan', 312: 'building', 401: 'car', 461: 'central reservation', 1831: 'person'}
    official |= {2377: 'sidewalk', 2380: 'signboard', 2836: 'traffic light', 2855: 'tree'}
    labels = original_labels('ade847')
    assert {number: labels[number].split(', ')[0] for number in official} == official
    # The release numbers its objects by the alphabet, but for a few late ones from 3101 on.
    in_order = [labels[number] for number in sorted(labels) if number < 3101]
    assert in_order == sorted(in_order) and len(in_order) == 827
    # mmseg's 150 names are first synonyms of these, but for one.
    first = {name.split(', ')[0] for name in ADE}
    assert {name.strip() for name in ADE20KDataset.METAINFO['classes']} - first == {'crt screen'}


def test_context_numbers():
    """labels.txt of the release goes by the alphabet, from 1; the published numbers of some of the 59 classes."""
    labels = original_labels('context459')
    published = {2: 'aeroplane', 23: 'bicycle', 259: 'mountain', 397: 'table', 427: 'tvmonitor', 458: 'wood'}
    assert {number: labels[number] for number in published} == published
    assert list(labels) == list(range(1, 460)) and list(CONTEXT) == sorted(CONTEXT)
    assert set(PascalContextDataset59.METAINFO['classes']) < set(CONTEXT)


ADE_TRUE = [[[0, 255, 256, 700], [846, 846, 65535, 0]], [[256, 256, 700, 700], [65535, 65535, 65535, 65535]]]
ADE_PRED = [[[0, 255, 255, 700], [846, 0, 700, 0]], [[256, 256, 700, 846], [0, 0, 0, 0]]]
# Hits / union: 0 2/3, 255 1/2, 256 2/3, 700 2/3, 846 1/3; 8 of 11 labelled pixels are right. Unseen are 255 and 846.
ADE_SCORES = dict(pAcc=8 / 11, mIoU=17 / 30, mIoU_seen=2 / 3, mIoU_unseen=5 / 12, hIoU=20 / 39)
CONTEXT_TRUE = [[[0, 255, 256, 458], [65535, 458, 430, 0]]]
CONTEXT_PRED = [[[0, 255, 256, 458], [1, 0, 430, 0]]]
# 0 2/3, 255 1, 256 1, 430 1, 458 1/2; 6 of 7 labelled pixels are right.
CONTEXT_SCORES = dict(pAcc=6 / 7, mIoU=5 / 6, mIoU_seen=5 / 6)


@pytest.mark.parametrize(
    ('type', 'true', 'pred', 'unseen', 'scores'),
    [
        ('ADE20KFullDataset', ADE_TRUE, ADE_PRED, [ADE[255], ADE[846]], ADE_SCORES),
        ('PascalContext459Dataset', CONTEXT_TRUE, CONTEXT_PRED, [], CONTEXT_SCORES),
    ],
)
def test_from_files_to_scores(tmp_path, type, true, pred, unseen, scores):
    dataset = build(tmp_path, type, true)(metainfo=dict(unseen_classes=unseen))
    metric = METRICS.build(dict(type='ZeroShotIoUMetric', ignore_index=65535, output_dir=str(tmp_path / 'out')))
    metric.dataset_meta = dataset.metainfo
    for item, true_labels, labels in zip(dataset, true, pred, strict=True):
        assert item['inputs'].shape[1:] == (6, 12)
        sample = item['data_samples']
        assert sample.gt_sem_seg.data[0].tolist() == true_labels
        sample.pred_sem_seg = PixelData(data=torch.tensor([labels]))
        metric.process(None, [sample])
    measured = metric.evaluate(size=len(dataset))
    assert measured == pytest.approx({key: 100 * value for key, value in scores.items()})
    for i, labels in enumerate(pred):
        with Image.open(tmp_path / f'out/{i}.png') as image:
            assert np.asarray(image).dtype == np.uint16 and np.asarray(image).tolist() == labels


@pytest.mark.parametrize('type', ['ADE20KFullDataset', 'PascalContext459Dataset'])
def test_a_subset_is_renumbered_and_the_rest_is_ignored(tmp_path, type):
    names = DATASETS.get(type).METAINFO['classes']
    make = build(tmp_path, type, [[[0, 255, 256], [458, 65535, 255]]])
    assert make().label_map is None and make(metainfo=dict(classes=list(names))).label_map is None
    dataset = make(metainfo=dict(classes=[names[256], names[0]]))
    assert dataset[0]['data_samples'].gt_sem_seg.data[0].tolist() == [[1, 65535, 0], [65535, 65535, 65535]]
    # New label 255 is a class like any other.
    dataset = make(metainfo=dict(classes=[*names[1:256], names[0]]))
    assert dataset[0]['data_samples'].gt_sem_seg.data[0].tolist() == [[255, 254, 65535], [65535, 65535, 254]]


@pytest.mark.parametrize(
    ('classes', 'message'),
    [
        (['road'], r"names \['road'\], which are not among the 847 classes of ADE20KFull"),
        (['wall'] * 2, 'more than once'),
    ],
)
def test_wrong_names(tmp_path, classes, message):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, 'ADE20KFullDataset', [])(metainfo=dict(classes=classes))


def test_context_takes_the_images_that_have_labels(tmp_path):
    """JPEGImages holds all of VOC 2010."""
    make = build(tmp_path, 'PascalContext459Dataset', [[[0]], [[1]], [[2]]])
    (tmp_path / 'annotations_detectron2/pc459_val/1.tif').unlink()
    assert [info['img_path'][-5:] for info in make(pipeline=[])] == ['0.jpg', '2.jpg']
    (tmp_path / 'val.txt').write_text('2\n')
    assert [info['img_path'][-5:] for info in make(pipeline=[], ann_file='val.txt')] == ['2.jpg']
    assert len(make(pipeline=[], data_prefix=dict(img_path='JPEGImages'))) == 3
    with pytest.raises(ValueError, match=r'No image `\*.jpg` in .*JPEGImages has a label map `\*.png`'):
        make(seg_map_suffix='.png')


def test_context_without_images_or_labels(tmp_path):
    make = build(tmp_path, 'PascalContext459Dataset', [[[0]]])
    with pytest.raises(
        FileNotFoundError, match=r"JPEGImages contains no image that ends with `img_suffix='\.webp'`, but 1"
    ):
        make(img_suffix='.webp')
    (tmp_path / 'annotations_detectron2/pc459_val/0.tif').unlink()
    with pytest.raises(ValueError, match=r'has a label map `\*.tif`'):
        make()
    (tmp_path / 'annotations_detectron2/pc459_val').rmdir()
    with pytest.raises(
        FileNotFoundError, match=r'The folder of label maps does not exist.*: run `make pc459` \(again\)'
    ):
        make(prepare_command='make pc459')


@pytest.mark.parametrize('type', ['ADE20KFullDataset', 'PascalContext459Dataset'])
def test_files_are_looked_at(tmp_path, type):
    make = build(tmp_path, type, [[[0, 256]], [[1, 2]]])
    label, gone = tmp_path / LABELS[type] / '1.tif', tmp_path / 'no/such'
    with pytest.raises(
        FileNotFoundError, match=rf'`data_root=.*no/such.* is not a folder \(looked for {gone}\): see docs'
    ):
        make(data_root=str(gone))
    Image.new('RGB', (2, 1)).save(label)
    with pytest.raises(ValueError, match=r'1\.tif: has several channels \(mode RGB\)'):
        make()
    assert len(make(check_files=False)) == 2
    label.unlink()
    (tmp_path / 'val.txt').write_text('0\n1\n')
    with pytest.raises(FileNotFoundError, match=r'1 of 2 label maps are missing, first: .*1\.tif'):
        make(ann_file='val.txt')
