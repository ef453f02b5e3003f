"""From originals to scores: `alignzeg convert`, then `mim test` with the shipped configs, against numbers by hand."""

import json
import runpy
import sys
from pathlib import Path

import mmseg
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from alignzeg.cli import main
from mmseg_alignzeg.datasets import original_labels

ROOT = Path(__file__).parents[2]
MIM_TEST = Path(mmseg.__file__).parent / '.mim/tools/test.py'  # the script that `mim test` runs

# Each image: 4 × 8 pixels. Rows 0 to 2 are A on the left half and B on the right one; row 3 is C on the left and
# unlabelled on the right. The model says A left and B right: A has 12 hits and 4 false ones, B 12 hits, C none.
IOU = dict(A=12 / 16, B=1.0, C=0.0)
PIXEL_ACCURACY = 24 / 28


def raw_labels(a, b, c, nothing, dtype=np.uint8):
    labels = np.full((4, 8), a, dtype=dtype)
    labels[:3, 4:], labels[3, :4], labels[3, 4:] = b, c, nothing
    return labels


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def save_mat(path, **variables):
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, variables)


def write_lines(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n')


PHOTO = np.full((4, 8, 3), 128, dtype=np.uint8)


def voc(root):
    """SBD's labels: aeroplane is 1, sheep 17, person 15, background 0."""
    devkit = root / 'VOC2012'
    segmentation = np.array([(raw_labels(1, 17, 15, 0),)], dtype=[('Segmentation', object)])
    save_mat(root / 'VOCaug/dataset/cls/2008_1.mat', GTcls=segmentation)
    save(devkit / 'JPEGImages/2008_1.jpg', PHOTO)
    write_lines(root / 'VOCaug/dataset/train.txt', '2008_1')
    write_lines(root / 'VOCaug/dataset/val.txt', '2007_2')
    for part, name in (('train', '2007_1'), ('val', '2007_2')):
        write_lines(devkit / f'ImageSets/Segmentation/{part}.txt', name)
        save_mat(root / f'VOCaug/dataset/cls/{name}.mat', GTcls=segmentation)
    return devkit


def coco_stuff(root):
    """COCO-Stuff's own ids: person is 0, cow 20, wood 181."""
    save(root / 'images/val2017/000000000001.jpg', PHOTO)
    save(root / 'annotations/val2017/000000000001.png', raw_labels(0, 20, 181, 255))
    return root


def context(root, a, b, c, nothing):
    numbers = {name: number for number, name in original_labels('context459').items()}
    labels = raw_labels(*(numbers.get(name, 0) for name in (a, b, c, nothing)), dtype=np.uint16)
    save_mat(root / 'trainval/2008_1.mat', LabelMap=labels)
    save_mat(root / 'trainval/2008_2.mat', LabelMap=labels)
    write_lines(root / 'labels.txt', *(f'{number}: {name}' for name, number in numbers.items()))
    save(root / 'JPEGImages/2008_1.jpg', PHOTO)
    for part, name in (('train', '2008_2'), ('val', '2008_1')):
        write_lines(root / f'ImageSets/Main/{part}.txt', name)
    return root


def context59(root):
    """'accordion' is no class of the 59."""
    return context(root, 'person', 'cat', 'wood', 'accordion')


def context459(root):
    return context(root, 'accordion', 'person', 'wood', None)


def ade847(root):
    """Indices of the release, R // 10 · 256 + G: wall is 2978, tree 2855, sunglasses 2646 (label 843)."""
    index = raw_labels(2978, 2855, 2646, 0, dtype=np.uint16).astype(int)
    pixels = np.dstack([index // 256 * 10, index % 256, 0 * index]).astype(np.uint8)
    save(root / 'images/ADE/validation/urban/ADE_val_00000001_seg.png', pixels)
    save(root / 'images/ADE/validation/urban/ADE_val_00000001.jpg', PHOTO)
    return root


def ade150(root):
    """The challenge's own labels, which need no converter: wall is 1, tree 5, person 13, other 0."""
    save(root / 'annotations/validation/ADE_val_00000001.png', raw_labels(1, 5, 13, 0))
    save(root / 'images/validation/ADE_val_00000001.jpg', PHOTO)
    return root


# originals, config, A, B, further settings of the test set; then the letters that are seen and those that are unseen.
CASES = {
    'voc': (
        voc,
        'alignzeg_voc',
        ('aeroplane', 'sheep'),
        dict(data_prefix=dict(seg_map_path='SegmentationClassAug'), ann_file='ImageSets/Segmentation/aug.txt'),
        ('AC', 'B'),
    ),
    'coco_stuff': (coco_stuff, 'alignzeg_coco', ('person', 'cow'), {}, ('AC', 'B')),
    'context59': (context59, 'alignzeg_context', ('person', 'cat'), {}, ('AC', 'B')),
    # Tested across datasets: names of COCO-Stuff and their aliases are seen.
    'context459': (context459, 'cross_dataset/context459', ('accordion', 'person'), {}, ('BC', 'A')),
    'ade150': (ade150, 'cross_dataset/ade150', ('wall', 'tree'), {}, ('ABC', '')),
    'ade847': (ade847, 'cross_dataset/ade847', ('wall', 'tree'), {}, ('AB', 'C')),
}


@pytest.mark.parametrize('name', CASES)
def test_converted_files_give_the_scores_done_by_hand(name, tmp_path, monkeypatch):
    originals, config, (left, right), settings, (seen, unseen) = CASES[name]
    root = originals(tmp_path / 'data')
    if name != 'ade150':
        assert main(['convert', name, str(root), '--workers', '1']) == 0

    dataset = dict(data_root=str(root), **settings)
    (tmp_path / 'config.py').write_text(f"""
_base_ = ['{ROOT}/configs/{config}.py']
custom_imports = dict(imports=['mmseg_alignzeg', 'halves_segmentor'], allow_failed_imports=False)
model = dict(
    _delete_=True,
    type='HalvesSegmentor',
    left={left!r},
    right={right!r},
    classes={{{{_base_.model.classes}}}},
    unseen_classes={{{{_base_.model.unseen_classes}}}},
    data_preprocessor=dict(type='SegDataPreProcessor'),
)
test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict({dataset}))
""")
    torch.save({'state_dict': {}, 'meta': {}}, tmp_path / 'empty.pth')
    out, labels = tmp_path / 'out', tmp_path / 'labels'
    arguments = [tmp_path / 'config.py', tmp_path / 'empty.pth', '--work-dir', out, '--out', labels]
    monkeypatch.setattr(sys, 'argv', [str(MIM_TEST), *map(str, arguments)])
    monkeypatch.syspath_prepend(Path(__file__).with_name('toy'))
    runpy.run_path(str(MIM_TEST), run_name='__main__')
    (scores,) = (json.loads(path.read_text()) for path in out.glob('*/*.json'))
    expected = dict(pAcc=PIXEL_ACCURACY, mIoU=np.mean(list(IOU.values())))
    if seen and unseen:  # else the metric has no scores of the split
        of_seen, of_unseen = (np.mean([IOU[letter] for letter in letters]) for letters in (seen, unseen))
        expected |= dict(mIoU_seen=of_seen, mIoU_unseen=of_unseen)
        expected['hIoU'] = 2 * of_seen * of_unseen / (of_seen + of_unseen)
    assert {key: scores[key] for key in expected} == pytest.approx(
        {key: 100 * v for key, v in expected.items()}, abs=0.01
    )
    (written,) = labels.glob('*.png')
    assert np.asarray(Image.open(written)).dtype == (np.uint16 if name in ('ade847', 'context459') else np.uint8)
