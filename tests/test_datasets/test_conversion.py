"""Converters on tiny originals in the true formats, against labels written by hand and mmseg's own converters."""

import importlib.util
import os
import signal
import sys
import types
from pathlib import Path

import cv2
import mmseg
import numpy as np
import pytest
from mmengine.config import Config
from mmseg.datasets import COCOStuffDataset, PascalContextDataset59
from mmseg.registry import DATASETS
from PIL import Image
from scipy.io import savemat

from mmseg_alignzeg.datasets.conversion import ade847, coco_stuff, context, originals, voc
from mmseg_alignzeg.datasets.conversion.convert import Plan, link_or_copy, run, whole_file
from mmseg_alignzeg.datasets.large_vocabulary import original_labels

MIM_TOOLS = Path(mmseg.__file__).parent / '.mim/tools/dataset_converters'
NAMES_459 = original_labels('context459')


def mmseg_converter(name):
    """mmseg's converter, which no package can import; ``detail``, which cannot be installed, is not needed here."""
    sys.modules.setdefault('detail', types.SimpleNamespace(Detail=None))
    spec = importlib.util.spec_from_file_location(name, MIM_TOOLS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(path, array=None, text=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if text is not None:
        path.write_text(text)
    else:
        Image.fromarray(np.asarray(array, dtype=np.uint8)).save(path)
    return path


def write_palette_png(path, labels):
    """As VOC publishes label maps: one byte per pixel, and a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(labels, dtype=np.uint8)).convert('P')
    image.putpalette([(37 * i) % 256 for i in range(768)])
    image.putdata(np.asarray(labels).ravel().tolist())
    image.save(path)


def write_mat(path, **variables):
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, variables)
    return path


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def photo(path, height=2, width=3):
    return write(path, np.zeros((height, width, 3)))


def ground_truth(dataset):
    """Label map of each image, by the dataset that a config builds."""
    return [dataset[i]['data_samples'].gt_sem_seg.data[0].tolist() for i in range(len(dataset))]


def build(part, root, annotations='LoadAnnotations'):
    pipeline = [dict(type='LoadImageFromFile'), dict(type=annotations), dict(type='PackSegInputs')]
    changes = dict(data_root=str(root), pipeline=pipeline)
    if 'datasets' in part:
        return DATASETS.build({**part, 'datasets': [{**each, **changes} for each in part['datasets']]})
    return DATASETS.build({**part, **changes})


# Label values


def test_relabel_by_hand():
    values = np.array([[3, 0, 7], [7, 7, 3]], dtype=np.uint16)
    labels = originals.relabel(values, {0: 9, 3: 1, 7: 400, 8: 5}, np.uint16)
    assert labels.dtype == np.uint16 and labels.tolist() == [[1, 9, 400], [400, 400, 1]]
    assert originals.relabel(values, {3: 1}, rest=255).tolist() == [[1, 255, 255], [255, 255, 1]]


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        (np.array([[0, 5], [6, 0]]), r'does not have: \[5, 6\]'),
        (np.zeros((2, 2, 3), dtype=int), r'\(2, 2, 3\)'),
        (np.zeros((0, 2), dtype=int), r'\(0, 2\)'),
    ],
)
def test_relabel_refuses(values, message):
    with pytest.raises(ValueError, match=message):
        originals.relabel(values, {0: 0})


def test_lists_name_each_image_once(tmp_path):
    path = write(tmp_path / 'list.txt', text='b\na \n\nb\n')
    assert originals.read_names(path, 'advice') == ['b', 'a']
    with pytest.raises(ValueError, match='is empty: advice'):
        originals.read_names(write(tmp_path / 'empty.txt', text='\n'), 'advice')
    with pytest.raises(FileNotFoundError, match=r'no list .*none\.txt: advice'):
        originals.read_names(tmp_path / 'none.txt', 'advice')


# VOC and SBD

SBD = {'2008_1': [[0, 15, 15], [0, 20, 1]], '2008_2': [[5, 5, 0], [0, 0, 5]], '2008_3': [[7, 0, 0], [0, 0, 7]]}


@pytest.fixture
def voc_root(tmp_path):
    root = tmp_path / 'VOCdevkit/VOC2012'
    sbd = tmp_path / 'VOCdevkit/VOCaug/dataset'
    for name, labels in SBD.items():
        fields = {'Boundaries': np.zeros(20), 'Segmentation': np.array(labels, np.uint8), 'CategoriesPresent': [1]}
        write_mat(sbd / 'cls' / f'{name}.mat', GTcls=fields)
    write(sbd / 'train.txt', text='2008_3\n2008_1\n')
    write(sbd / 'val.txt', text='2008_2\n2008_3\n')
    write(root / 'ImageSets/Segmentation/train.txt', text='2007_1\n')
    write(root / 'ImageSets/Segmentation/val.txt', text='2008_2\n')
    for name in ('2007_1', *SBD):
        photo(root / 'JPEGImages' / f'{name}.jpg')
    write_palette_png(root / 'SegmentationClass/2007_1.png', [[0, 1, 255], [2, 15, 16]])
    return root


def test_voc_as_mmseg_converts_it(voc_root, tmp_path):
    assert run(voc.plan(voc_root, voc_root), workers=2) == 0
    converter = mmseg_converter('voc_aug')
    (tmp_path / 'theirs').mkdir()
    for name, labels in SBD.items():
        converter.convert_mat(f'{name}.mat', voc_root.parent / 'VOCaug/dataset/cls', tmp_path / 'theirs')
        ours = voc_root / 'SegmentationClassAug' / f'{name}.png'
        assert ours.read_bytes() == (tmp_path / 'theirs' / f'{name}.png').read_bytes()
        assert read(ours).tolist() == labels
    names = (voc_root / 'ImageSets/Segmentation/aug.txt').read_text().splitlines()
    assert names == ['2008_1', '2008_3'] == sorted(converter.generate_aug_list(SBD, ['2007_1', '2008_2']))


def test_the_voc_config_reads_it(voc_root):
    run(voc.plan(voc_root, voc_root), workers=1)
    cfg = Config.fromfile('configs/_base_/datasets/voc_15_5.py')
    person, aeroplane, car = (cfg.seen_classes.index(name) for name in ('person', 'aeroplane', 'car'))
    bicycle = cfg.seen_classes.index('bicycle')
    assert ground_truth(build(cfg.train_dataloader.dataset, voc_root)) == [
        [[255, aeroplane, 255], [bicycle, person, 255]],  # 16, pottedplant, is unseen
        [[255, person, person], [255, 255, aeroplane]],  # 20, tvmonitor, is unseen
        [[car, 255, 255], [255, 255, car]],
    ]


def test_voc_failures_name_the_file_and_hold_back_the_list(voc_root, tmp_path, capsys):
    mats = voc_root.parent / 'VOCaug/dataset/cls'
    write_mat(mats / '2008_1.mat', GTinst={'Segmentation': 1})
    write_mat(mats / '2008_2.mat', GTcls={'Segmentation': np.full((2, 2), 21, np.uint8)})
    (mats / '2008_3.mat').unlink()
    assert run(voc.plan(voc_root, tmp_path / 'out'), workers=1) == 1
    printed = capsys.readouterr().out
    assert f"FAILED {mats}/2008_1.mat: the file contains no `GTcls`, only ['GTinst']\n" in printed
    assert f'FAILED {mats}/2008_2.mat: the file contains label values that the dataset does not have: [21]\n' in printed
    assert f'FAILED {mats}/2008_3.mat: No such file or directory\n' in printed
    assert 'aug.txt: not written' in printed and '0 done, 0 skipped, 3 failed' in printed
    assert not [path for path in (tmp_path / 'out').rglob('*') if path.is_file()]


# COCO-Stuff


def test_coco_stuff_labels_are_those_of_mmseg():
    assert coco_stuff.LABELS == mmseg_converter('coco_stuff164k').clsID_to_trID
    assert max(set(coco_stuff.LABELS.values()) - {255}) == len(COCOStuffDataset.METAINFO['classes']) - 1


def test_coco_stuff_files(tmp_path):
    converter = mmseg_converter('coco_stuff164k')
    used = np.array([v for v in range(182) if v in converter.clsID_to_trID] + [255], dtype=np.uint8).reshape(4, 43)
    source = write(tmp_path / 'annotations/train2017/000000000009.png', used)
    write(tmp_path / 'annotations/val2017/000000000139.png', [[0, 181], [12, 255]])
    for _ in range(2):  # on the second run, what the first one wrote is no original
        plan = coco_stuff.plan(tmp_path, tmp_path)
        assert len(plan.jobs) == 2 and run(plan, workers=1) == 0
    (tmp_path / 'theirs/train2017').mkdir(parents=True)
    converter.convert_to_trainID(str(source), str(tmp_path / 'theirs'), is_train=True)
    name = 'train2017/000000000009_labelTrainIds.png'
    assert read(tmp_path / 'annotations' / name).tolist() == read(tmp_path / 'theirs' / name).tolist()
    assert read(tmp_path / 'annotations/val2017/000000000139_labelTrainIds.png').tolist() == [[0, 170], [11, 255]]

    photo(tmp_path / 'images/val2017/000000000139.jpg', 2, 2)
    write(tmp_path / 'annotations/val2017/000000000139_labelTrainIds.png.77.part', text='left by a killed run')
    cfg = Config.fromfile('configs/_base_/datasets/coco_stuff_156_15.py')
    assert ground_truth(build(cfg.val_dataloader.dataset, tmp_path)) == [[[0, 170], [11, 255]]]


def test_coco_stuff_failures_stop_nothing_else(tmp_path, capsys):
    folder = tmp_path / 'annotations/val2017'
    write(folder / 'good.png', [[1, 2]])
    write(folder / 'value.png', [[182, 11, 0]])
    write(folder / 'colours.png', np.zeros((2, 2, 3)))
    whole = write(folder / 'cut.png', np.arange(90).repeat(90).reshape(90, 90) % 11).read_bytes()
    (folder / 'cut.png').write_bytes(whole[: len(whole) // 2])
    (folder / 'text.png').write_text('no image\nat all')
    assert run(coco_stuff.plan(tmp_path, tmp_path), workers=2) == 1
    failed = dict(
        line.removeprefix(f'FAILED {folder}/').split(': ', 1)
        for line in capsys.readouterr().out.splitlines()
        if line.startswith('FAILED')
    )
    assert set(failed) == {'value.png', 'colours.png', 'cut.png', 'text.png'}
    assert '[11, 182]' in failed['value.png'] and '(2, 2, 3)' in failed['colours.png']
    assert 'truncated' in failed['cut.png'] and 'cannot identify' in failed['text.png']
    assert {path.name for path in folder.glob('*_label*')} == {'good_labelTrainIds.png'}


def test_coco_stuff_without_originals(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'There is no folder .*annotations: unpack stuffthingmaps'):
        coco_stuff.plan(tmp_path, tmp_path)
    write(tmp_path / 'annotations/train2017/1_labelTrainIds.png', [[0]])
    with pytest.raises(FileNotFoundError, match=r'no label map in .* unpack stuffthingmaps'):
        coco_stuff.plan(tmp_path, tmp_path)


# PASCAL Context


@pytest.fixture
def context_root(tmp_path):
    """Three images: every value of the release; aeroplane, accordion, wood, none; bedclothes, table, cloth, unknown."""
    root = tmp_path / 'VOC2010'
    write(root / 'labels.txt', text=''.join(f'{value}: {name}\n' for value, name in NAMES_459.items()))
    masks = {'2008_1': np.arange(460).reshape(20, 23), '2008_2': [[2, 1], [458, 0]], '2008_3': [[19, 397], [80, 431]]}
    for name, mask in masks.items():
        write_mat(root / f'trainval/{name}.mat', LabelMap=np.array(mask, np.uint16))
        photo(root / f'JPEGImages/{name}.jpg', *np.shape(mask))
    write(root / 'ImageSets/Main/train.txt', text='2008_1\n2008_2\n')
    write(root / 'ImageSets/Main/val.txt', text='2008_3\n')
    return root


def test_context_59_as_mmseg_converts_it(context_root, tmp_path):
    """mmseg numbers the classes through ``detail``; the names of ``labels.txt`` lead to the same labels."""
    assert run(context.plan_59(context_root, context_root), workers=2) == 0
    converter = mmseg_converter('pascal_context')
    full = np.arange(460).reshape(20, 23)
    detail = types.SimpleNamespace(getMask=lambda _: np.where(np.isin(full, converter._mapping), full, 0))
    converter.generate_labels({'file_name': '2008_1.jpg'}, detail, tmp_path)
    ours = read(context_root / 'SegmentationClassContext/2008_1.png')
    assert ours.dtype == np.uint8 and ours.tolist() == read(tmp_path / '2008_1.png').tolist()
    names = ('background', *PascalContextDataset59.METAINFO['classes'])
    shown = [[names[label] for label in row] for row in read(context_root / 'SegmentationClassContext/2008_3.png')]
    assert shown == [['bedclothes', 'table'], ['cloth', 'background']]
    lists = context_root / 'ImageSets/SegmentationContext'
    assert (lists / 'train.txt').read_text() == '2008_1\n2008_2\n' and (lists / 'val.txt').read_text() == '2008_3\n'


def test_the_context_config_reads_it(context_root):
    run(context.plan_59(context_root, context_root), workers=1)
    cfg = Config.fromfile('configs/_base_/datasets/context_49_10.py')
    bedclothes, table, cloth = (cfg.classes.index(name) for name in ('bedclothes', 'table', 'cloth'))
    labels = ground_truth(build(cfg.val_dataloader.dataset, context_root))
    assert labels == [[[bedclothes, table], [cloth, 255]]]


def test_context_59_goes_by_name_not_by_number(context_root):
    write(context_root / 'labels.txt', text=''.join(f'{460 - v}: {name}\n' for v, name in NAMES_459.items()))
    label_of = context.labels_59(
        context.read_classes(context_root / 'labels.txt'), PascalContextDataset59.METAINFO['classes']
    )
    assert label_of[460 - 2] == 1 and label_of[460 - 458] == 59 and label_of[460 - 1] == 0 and label_of[0] == 0
    assert sum(label > 0 for label in label_of.values()) == 59 and len(label_of) == 460


@pytest.mark.parametrize(
    ('text', 'message'),
    [('1: accordion\n', r"does not name \['aeroplane', 'bag'"), ('accordion\n', 'the format `1: accordion`')],
)
def test_context_refuses_other_names(context_root, text, message):
    write(context_root / 'labels.txt', text=text)
    with pytest.raises(ValueError, match=message):
        context.plan_59(context_root, context_root)


def test_context_lists_of_ones_own(context_root, tmp_path, capsys):
    own = write(tmp_path / 'own.txt', text='2008_2\n2008_2\n2008_9\n')
    plan = context.plan_59(context_root, tmp_path / 'out', train_list=own)
    assert [source.stem for source, _ in plan.jobs] == ['2008_2', '2008_9', '2008_3']
    assert run(plan, workers=1) == 1
    assert '2008_9.mat: No such file or directory' in capsys.readouterr().out
    assert not (tmp_path / 'out/ImageSets').exists()  # a list would name the missing file
    own.write_text('2008_2\n')
    assert run(context.plan_59(context_root, tmp_path / 'out', train_list=own), workers=1) == 0
    assert (tmp_path / 'out/ImageSets/SegmentationContext/train.txt').read_text() == '2008_2\n'
    assert run(context.plan_59(context_root, tmp_path / 'out'), workers=1) == 0
    assert 'train.txt: kept with its 1 names, but the originals list 2' in capsys.readouterr().out


def test_context_459(context_root):
    assert run(context.plan_459(context_root, context_root, context_root / 'ImageSets/Main/train.txt'), workers=1) == 0
    folder = context_root / 'annotations_detectron2/pc459_val'
    full = read(folder / '2008_1.tif')
    assert full.dtype == np.uint16 and full.ravel().tolist() == [65535, *range(459)]
    assert cv2.imread(str(folder / '2008_2.tif'), cv2.IMREAD_UNCHANGED).tolist() == [[1, 0], [457, 65535]]
    prefix = dict(img_path='JPEGImages', seg_map_path='annotations_detectron2/pc459_val')
    part = dict(type='PascalContext459Dataset', data_prefix=prefix)
    labels = ground_truth(build(part, context_root, 'LoadWideAnnotations'))
    assert len(labels) == 2 and labels[1] == [[1, 0], [457, 65535]]


def test_context_failures(context_root, capsys):
    write_mat(context_root / 'trainval/2008_1.mat', LabelMap=np.array([[460]], np.uint16))
    write_mat(context_root / 'trainval/2008_2.mat', labels=np.array([[1]], np.uint16))
    whole = (context_root / 'trainval/2008_3.mat').read_bytes()
    (context_root / 'trainval/2008_3.mat').write_bytes(whole[:140])
    assert run(context.plan_59(context_root, context_root), workers=1) == 1
    printed = capsys.readouterr().out
    assert '2008_1.mat: the file contains label values that the dataset does not have: [460]' in printed
    assert "2008_2.mat: the file contains no `LabelMap`, only ['labels']" in printed
    assert '2008_3.mat: ' in printed and '0 done, 0 skipped, 3 failed' in printed
    assert not (context_root / 'ImageSets/SegmentationContext').exists()


# ADE20K

SMALL_MAP = {2978: 0, 312: 1, 14: 2}


def encoded(indices):
    """As ADE20K writes it: R carries the hundreds of 256 in steps of 10, and an odd rest of attributes, B instances."""
    pixels = [[(index // 256 * 10 + 3, index % 256, 77) for index in row] for row in indices]
    return np.array(pixels, dtype=np.uint8)


@pytest.fixture
def ade_root(tmp_path):
    root = tmp_path / 'ADE20K_2021_17_01'
    street = root / 'images/ADE/training/urban/street'
    write(street / 'ADE_train_1_seg.png', encoded([[2978, 312, 0], [14, 3147, 2977]]))
    write(street / 'ADE_train_1_parts_1.png', encoded([[1, 2, 3], [4, 5, 6]]))
    photo(street / 'ADE_train_1.jpg')
    rng = np.random.default_rng(0)
    indices = rng.choice([2978, 312, 14, 0, 9], (24, 41))
    write(root / 'images/ADE/validation/misc/ADE_val_1_seg.png', encoded(indices.tolist()))
    write(root / 'images/ADE/validation/misc/ADE_val_1.jpg', rng.integers(0, 256, (24, 41, 3)))
    return root


def test_ade_labels_by_hand(ade_root):
    assert run(ade847.plan(ade_root, ade_root, label_of=SMALL_MAP), workers=2) == 0
    labels = read(ade_root / 'annotations_detectron2/training/ADE_train_1.tif')
    assert labels.dtype == np.uint16 and labels.tolist() == [[0, 1, 65535], [2, 65535, 65535]]
    image = ade_root / 'images_detectron2/training/ADE_train_1.jpg'
    assert image.samefile(ade_root / 'images/ADE/training/urban/street/ADE_train_1.jpg')
    prefix = dict(img_path='images_detectron2/training', seg_map_path='annotations_detectron2/training')
    part = dict(type='ADE20KFullDataset', data_prefix=prefix)
    assert ground_truth(build(part, ade_root, 'LoadWideAnnotations')) == [labels.tolist()]
    assert {path.name for path in ade_root.glob('*_detectron2/*/*')} == {
        'ADE_train_1.tif', 'ADE_train_1.jpg', 'ADE_val_1.tif', 'ADE_val_1.jpg'
    }  # fmt: skip


def test_ade_is_reduced_as_published(ade_root):
    """Their order is to reduce the indices and then to look up labels, both at 16 pixels for the shorter side here."""
    assert run(ade847.plan(ade_root, ade_root, short_side=16, label_of=SMALL_MAP), workers=1) == 0
    red, green, _ = np.moveaxis(read(ade_root / 'images/ADE/validation/misc/ADE_val_1_seg.png').astype(int), 2, 0)
    indices = ((red / 10).astype(np.int32) * 256 + green).astype(np.int32)
    expected = cv2.resize(indices, (27, 16), interpolation=cv2.INTER_NEAREST)  # 41 / 24 · 16 = 27.3
    labels = read(ade_root / 'annotations_detectron2/validation/ADE_val_1.tif')
    assert labels.tolist() == [[SMALL_MAP.get(index, 65535) for index in row] for row in expected.tolist()]
    assert read(ade_root / 'images_detectron2/validation/ADE_val_1.jpg').shape == (16, 27, 3)
    assert read(ade_root / 'images_detectron2/training/ADE_train_1.jpg').shape == (2, 3, 3)


@pytest.mark.parametrize(
    ('size', 'short_side', 'expected'),
    [
        ((683, 512), 512, (683, 512)),
        ((1600, 1200), 512, (683, 512)),
        ((1200, 1600), 512, (512, 683)),
        ((513, 513), 512, (512, 512)),
        ((2000, 300), 512, (2000, 300)),
        ((1600, 1200), 0, (1600, 1200)),
    ],
)
def test_reduced_size(size, short_side, expected):
    assert ade847.fitted(*size, short_side) == expected


def test_ade_failures(ade_root, capsys):
    street = ade_root / 'images/ADE/training/urban/street'
    write(street / 'ADE_train_2_seg.png', [[1, 2]])
    assert run(ade847.plan(ade_root, ade_root, label_of=SMALL_MAP), workers=1) == 1
    printed = capsys.readouterr().out
    assert (
        f'FAILED {street}/ADE_train_2_seg.png: expected an RGB image, (H, W, 3), but the file contains (1, 2)'
        in printed
    )
    assert f'FAILED {street}/ADE_train_2.jpg: No such file or directory' in printed
    assert '4 done, 0 skipped, 2 failed' in printed


def test_ade_names_must_be_unique(ade_root):
    write(ade_root / 'images/ADE/training/misc/ADE_train_1_seg.png', encoded([[0]]))
    with pytest.raises(ValueError, match=r'would both become .*ADE_train_1\.tif: keep one'):
        ade847.plan(ade_root, ade_root, label_of=SMALL_MAP)


def test_ade_map_of_the_package():
    """Indices are those of the label maps: 0 stands for none, so that they begin with 1."""
    label_of = ade847.read_index_map()
    assert sorted(label_of.values()) == list(range(847)) and min(label_of) >= 1
    assert [label_of[index] for index in (2978, 312, 2420, 3148)] == [0, 1, 2, 846]


def test_ade_without_originals(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'There is no folder .*images/ADE: pass the folder ADE20K_2021_17_01'):
        ade847.plan(tmp_path, tmp_path)
    (tmp_path / 'images/ADE').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r'There is no \*_seg.png in'):
        ade847.plan(tmp_path, tmp_path)


# The engine


def seven(path):
    return np.full((1, int(path.stem)), 7, dtype=np.uint8)


def broken_in_the_middle(path):
    if path.stem == '2':
        raise RuntimeError('first line\nsecond line')
    return seven(path) if path.stem == '1' else np.zeros((1, 1), dtype=complex)  # 3: PIL fails while it writes


def killed(path):
    os.kill(os.getpid(), signal.SIGKILL)


def jobs(folder, count=3):
    return [(Path(f'{i}.png'), folder / 'out' / f'{i}.png') for i in range(1, count + 1)]


def test_a_second_run_makes_only_what_is_missing(tmp_path, capsys):
    plan = Plan([*jobs(tmp_path), *jobs(tmp_path)], seven, {tmp_path / 'names.txt': ['1', '2', '3']})
    assert run(plan, workers=2) == 0
    first, second, third = (target for _, target in jobs(tmp_path))
    times = [path.stat().st_mtime_ns for path in (first, third)]
    second.unlink()
    leftover = write(tmp_path / 'out/2.png.123.part', text='half')
    assert run(plan, workers=2) == 0
    printed = capsys.readouterr().out
    assert '3 done, 0 skipped, 0 failed' in printed and '1 done, 2 skipped, 0 failed' in printed
    assert [path.stat().st_mtime_ns for path in (first, third)] == times
    assert read(second).tolist() == [[7, 7]]
    leftover.unlink()
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['1.png', '2.png', '3.png']
    assert (tmp_path / 'names.txt').read_text() == '1\n2\n3\n'


def test_a_failure_leaves_no_file_and_stops_nothing(tmp_path, capsys):
    assert run(Plan(jobs(tmp_path), broken_in_the_middle, {tmp_path / 'names.txt': ['1']}), workers=1) == 1
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['1.png']
    printed = capsys.readouterr().out
    assert 'FAILED 2.png: first line second line\n' in printed and 'FAILED 3.png: ' in printed
    assert '1 done, 0 skipped, 2 failed' in printed and not (tmp_path / 'names.txt').exists()


def test_a_killed_worker_ends_the_run_with_one_line(tmp_path, capsys):
    assert run(Plan(jobs(tmp_path), killed), workers=1) == 1
    assert 'A worker was killed' in capsys.readouterr().out
    assert not list((tmp_path / 'out').glob('*.png'))


def write_half(target, error):
    with whole_file(target) as part:
        part.write_text('half')
        assert part.parent == target.parent and not target.exists()
        raise error


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError])
def test_a_file_is_whole_or_not_there(tmp_path, error):
    target = tmp_path / 'new/a.png'
    with pytest.raises(error):
        write_half(target, error)
    assert not list(target.parent.iterdir())
    with whole_file(target) as part:
        part.write_text('whole')
    assert [path.name for path in target.parent.iterdir()] == ['a.png'] and target.read_text() == 'whole'


def test_files_are_copied_where_they_cannot_be_linked(tmp_path, monkeypatch):
    source = write(tmp_path / 'a.txt', text='photo')
    monkeypatch.setattr(os, 'link', lambda *_: (_ for _ in ()).throw(OSError('another device')))
    link_or_copy(source, tmp_path / 'b.txt')
    assert (tmp_path / 'b.txt').read_text() == 'photo' and not source.samefile(tmp_path / 'b.txt')


def test_two_sources_of_one_target(tmp_path):
    with pytest.raises(ValueError, match=r'1\.png and 2\.png would both become .*out\.png: keep one of them'):
        Plan([(Path('1.png'), tmp_path / 'out.png'), (Path('2.png'), tmp_path / 'out.png')], seven)
