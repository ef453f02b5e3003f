"""MSRC-v2 and Clothing Co-Parsing from small originals in the true formats, against labels written by hand."""

from collections import Counter

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS
from PIL import Image
from scipy.io import savemat

from mmseg_alignzeg.datasets.conversion import ccp, msrc
from mmseg_alignzeg.datasets.conversion.convert import run


def test_the_lists_follow_the_rule():
    lists = msrc.split()
    assert {part: len(names) for part, names in lists.items()} == dict(train=359, val=58, test=174)
    assert len({name for names in lists.values() for name in names}) == 591
    for part, digits in dict(train='012345', val='6', test='789').items():
        assert all(name.split('_')[1][-1] in digits for name in lists[part])
    in_train = Counter(name.split('_')[0] for name in lists['train'])
    assert in_train['1'] == 18 and (in_train['10'], in_train['12'], in_train['15'], in_train['20']) == (20, 22, 16, 13)
    assert {'1_6_s', '20_16_s'} <= set(lists['val']) and '20_22_s' not in str(lists)
    lists = ccp.split()
    assert {part: len(names) for part, names in lists.items()} == dict(train=604, val=100, test=300)
    assert lists['train'][:2] == ['0001', '0002'] and lists['train'][-1] == '1004' and lists['val'][0] == '0006'


def photo(path, width=4, height=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (width, height), (90, 120, 30)).save(path)


def mat(path, **variables):
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, variables)


# Segments as in the originals: ids from 1, and a column of classes in MATLAB's floating point.
SEGMENTS = np.array([[1, 1, 2, 3], [4, 4, 5, 6]], dtype=np.uint16)
CLASSES = np.array([[2.0], [6.0], [5.0], [24.0], [23.0]])  # grass, sheep, horse, beyond the list, boat; none for 6
MSRC_LABELS = [[1, 1, 4, 255], [255, 255, 20, 255]]
# The label maps of CCP are uint8: null, skin, blazer (unseen), wedges (not used).
CCP_LABELS = np.array([[0, 41, 4, 58], [0, 0, 41, 4]], dtype=np.uint8)


@pytest.fixture
def originals(tmp_path, monkeypatch):
    """MSRC-v2 and CCP with eight photographs each, named 1 to 8."""
    monkeypatch.setattr(msrc, 'GROUP_SIZES', {3: 8})
    monkeypatch.setattr(ccp, 'LAST', 8)
    for number in range(1, 9):
        photo(tmp_path / f'msrc/Images/3_{number}_s.bmp')
        mat(tmp_path / f'msrc/newsegmentations_mats/3_{number}_s_GT.mat', newseg=SEGMENTS, newlabels=CLASSES)
        photo(tmp_path / f'ccp/photos/{number:04d}.jpg')
        mat(tmp_path / f'ccp/annotations/pixel-level/{number:04d}.mat', groundtruth=CCP_LABELS)
    photo(tmp_path / 'ccp/photos/2098.jpg')  # as most photographs of CCP, without a label map
    return tmp_path


def built(name, part, root):
    """The dataset of a split, as the config builds it."""
    dataset = Config.fromfile(f'configs/alignzeg_{name}.py')[f'{part}_dataloader'].dataset
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    return DATASETS.build({**dataset, 'data_root': str(root), 'pipeline': pipeline})


def truth(dataset):
    (labels,) = {str(dataset[i]['data_samples'].gt_sem_seg.data[0].tolist()) for i in range(len(dataset))}
    return labels


@pytest.mark.parametrize(
    ('name', 'plan', 'stored', 'tested', 'trained'),
    [
        # sheep is unseen, so boat is label 15 of the 16 seen classes, and grass stays 1
        ('msrc', msrc.plan, MSRC_LABELS, MSRC_LABELS, [[1, 1, 255, 255], [255, 255, 15, 255]]),
        # of the 47 classes in use, blazer is the fourth and skin the 33rd; of the 32 seen ones, skin is the 24th
        (
            'ccp',
            ccp.plan,
            CCP_LABELS.tolist(),
            [[255, 32, 3, 255], [255, 255, 32, 3]],
            [[255, 23, 255, 255], [255, 255, 23, 255]],
        ),
    ],
)
def test_from_originals_to_the_datasets_of_the_config(originals, name, plan, stored, tested, trained):
    root = originals / name
    assert run(plan(root, root), 1) == 0
    paths = sorted((root / 'labels').iterdir())
    assert len(paths) == 8 and all(np.asarray(Image.open(path)).tolist() == stored for path in paths)
    datasets = {part: built(name, part, root) for part in ('train', 'val', 'test')}
    assert {part: len(dataset) for part, dataset in datasets.items()} == dict(train=5, val=1, test=2)
    assert truth(datasets['train']) == str(trained)
    assert truth(datasets['val']) == truth(datasets['test']) == str(tested)


@pytest.mark.parametrize(
    ('name', 'damage', 'message'),
    [
        ('msrc', lambda root: (root / 'Images/3_2_s.bmp').unlink(), 'Images lacks 1 of 8 photographs, first 3_2_s.bmp'),
        ('ccp', lambda root: (root / 'photos/0002.jpg').unlink(), 'photos lacks 1 of 8 photographs, first 0002.jpg'),
        (
            'msrc',
            lambda root: (root / 'newsegmentations_mats/3_8_s_GT.mat').unlink(),
            'newsegmentations_mats lacks 1 of 8 label maps, first 3_8_s_GT.mat:',
        ),
        (
            'msrc',
            lambda root: photo(root / 'Images/33_1_s.bmp'),
            'Images holds 1 photographs that the split does not know, first 33_1_s.bmp:',
        ),
        (
            'ccp',
            lambda root: mat(root / 'annotations/pixel-level/0009.mat', groundtruth=CCP_LABELS),
            'pixel-level holds 1 label maps that the split does not know, first 0009.mat:',
        ),
    ],
)
def test_wrong_sets_of_originals_are_refused_before_anything_is_written(originals, name, damage, message):
    damage(originals / name)
    with pytest.raises((FileNotFoundError, ValueError)) as error:
        dict(msrc=msrc, ccp=ccp)[name].plan(originals / name, originals / name)
    assert message in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('name', 'variables', 'message'),
    [
        ('msrc', dict(newseg=SEGMENTS), 'the file contains no `newlabels`'),
        ('msrc', dict(segments=SEGMENTS, newlabels=CLASSES), 'the file contains no `newseg`'),
        ('msrc', dict(newseg=SEGMENTS - 1, newlabels=CLASSES), '`newseg` must contain whole numbers from 1'),
        ('msrc', dict(newseg=SEGMENTS + 0.5, newlabels=CLASSES), '`newseg` must contain whole numbers from 1'),
        ('msrc', dict(newseg=SEGMENTS.T, newlabels=CLASSES), 'a label map of 2 × 4 pixels for a photograph of 4 × 2'),
        ('ccp', dict(labels=CCP_LABELS), 'the file contains no `groundtruth`'),
        ('ccp', dict(groundtruth=CCP_LABELS + 1), r'label values that the dataset does not have: [59]'),
        ('ccp', dict(groundtruth=CCP_LABELS[:, :3]), 'a label map of 3 × 2 pixels for a photograph of 4 × 2'),
    ],
)
def test_one_broken_file_is_one_line_and_stops_no_other(originals, name, variables, message, capsys):
    path = dict(msrc='newsegmentations_mats/3_3_s_GT.mat', ccp='annotations/pixel-level/0003.mat')[name]
    mat(originals / name / path, **variables)
    assert run(dict(msrc=msrc, ccp=ccp)[name].plan(originals / name, originals / name), 1) == 1
    printed = capsys.readouterr().out.splitlines()
    (failed,) = [line for line in printed if line.startswith('FAILED')]
    assert path in failed and message in failed
    assert any(line.startswith('7 done, 0 skipped, 1 failed') for line in printed)
    assert not (originals / name / 'lists').exists()


def test_a_list_with_an_unknown_name(originals):
    root = originals / 'msrc'
    run(msrc.plan(root, root), 1)
    with (root / 'lists/test.txt').open('a') as file:
        file.write('3_9_s\n')
    with pytest.raises(FileNotFoundError, match=r'1 of 3 images are missing, first: .*3_9_s\.bmp') as error:
        built('msrc', 'test', root)
    assert 'alignzeg convert msrc' in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(('split', 'counts'), [('msrc_16_5', (16, 5)), ('ccp_32_15', (32, 15))])
def test_splits_are_disjoint_and_complete(split, counts):
    cfg = Config.fromfile(f'configs/_base_/datasets/{split}.py')
    assert (len(cfg.seen_classes), len(cfg.unseen_classes)) == counts
    assert sorted([*cfg.seen_classes, *cfg.unseen_classes]) == sorted(cfg.classes)
    if split == 'msrc_16_5':
        assert list(cfg.classes) == [name for name in msrc.CLASSES_23 if name not in msrc.UNUSED]
    else:
        assert len(set(cfg.label_classes)) == len(ccp.LABELS) == 59
        assert set(cfg.classes) | set(cfg.unused) == set(cfg.label_classes)
