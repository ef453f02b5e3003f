"""docs/custom_dataset.md as its reader follows it: the template trains, and each mistake gives a line that leads on."""

import re
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_alignzeg.datasets.validation.configs import check_config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs/custom_dataset.md').read_text()
TEMPLATE, COLOURS = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
TABLE = [(128, 128, 128), (128, 0, 0), (192, 192, 128)]  # the page's colours


def save(file, values, **kwargs):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values)).save(file, **kwargs)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Three images to train on and two to test on, 40 × 32, with a band of each class 0, 1, 2 and of 255."""
    monkeypatch.chdir(tmp_path)
    labels = np.repeat(np.array([0, 1, 2, 255], dtype=np.uint8), 10)[None].repeat(32, 0)
    for split, count in (('train', 3), ('val', 2)):
        for i in range(count):
            image = np.random.default_rng(i).integers(0, 256, (32, 40, 3), dtype=np.uint8)
            save(tmp_path / f'data/mine/images/{split}/{split}{i}.jpg', image)
            save(tmp_path / f'data/mine/labels/{split}/{split}{i}.png', labels)
    return tmp_path


def rewrite(world, change, suffix='.png', **kwargs):
    """Pass every label map through a function of its values."""
    for file in sorted((world / 'data/mine/labels').rglob('*.png')):
        values = np.asarray(Image.open(file))
        file.unlink()
        save(file.with_name(file.stem + suffix), change(values), **kwargs)


def config(world, *changes, tiny=True):
    """The page's template as a file, after replacements in its text."""
    text = TEMPLATE
    for old, new in (("folders.py'", "folders_tiny.py'") if tiny else ('', ''), *changes):
        assert old in text
        text = text.replace(old, new)
    (world / 'street.py').write_text(text)
    return Config.fromfile(world / 'street.py')


# ---------------------------------------------------------------- the template


def test_the_page_shows_the_template_that_is_shipped():
    assert TEMPLATE == (ROOT / 'configs/_base_/custom_dataset.py').read_text()
    assert len(TEMPLATE.splitlines()) <= 30


def test_the_template_is_the_full_size_method_with_each_name_once(world):
    cfg, paper = config(world, tiny=False), Config.fromfile(ROOT / 'configs/alignzeg_context.py')
    names = dict(classes=['sky', 'road', 'car'], unseen_classes=['car'])
    assert {**paper.model.to_dict(), **names} == cfg.model.to_dict()
    train, val, test = (cfg[f'{split}_dataloader'].dataset for split in ('train', 'val', 'test'))
    assert train.metainfo.to_dict() == dict(classes=['sky', 'road'], unseen_classes=[])
    assert val.metainfo.to_dict() == names and test == val and 'expected_images' not in cfg
    assert train.pipeline == paper.train_dataloader.dataset.pipeline
    assert val.pipeline == paper.val_dataloader.dataset.pipeline
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[0].end == 20000
    for name in names['classes']:
        assert len(re.findall(f"'{name}'", TEMPLATE)) == (2 if name in names['unseen_classes'] else 1)


def test_the_small_one_has_the_sizes_of_the_embedded_world(world):
    own = dict(classes=0, unseen_classes=0, text=0, bias_correction=0)
    patterns = Config.fromfile(ROOT / 'configs/alignzeg_patterns.py')
    cfg = config(world)
    assert {**cfg.model.to_dict(), **own} == {**patterns.model.to_dict(), **own}
    assert cfg.optim_wrapper.optimizer == patterns.optim_wrapper.optimizer


def test_the_template_trains_tests_and_draws(world):
    cfg = config(world, ('max_iters = 20000', 'max_iters = 1'))
    cfg.work_dir = str(world / 'work_dirs')
    cfg.default_hooks.visualization.draw = True
    cfg.visualizer.update(name='test of the template', save_dir=str(world / 'pictures'))  # not that of another test
    cfg.launcher = 'none'
    runner = Runner.from_cfg(cfg)
    before = {name: p.clone() for name, p in runner.model.named_parameters() if p.requires_grad}
    runner.train()
    assert any(not p.equal(before[name]) for name, p in runner.model.named_parameters() if name in before)
    scores = runner.test()
    assert {'pAcc', 'mIoU_seen', 'mIoU_unseen', 'hIoU'} <= scores.keys() and (world / 'work_dirs/iter_1.pth').is_file()
    pictures = {file.stem.rpartition('_')[0] for file in (world / 'pictures').rglob('test_*.png')}
    assert pictures == {'test_val0.jpg', 'test_val1.jpg'}  # not one in 50


def test_training_labels_are_the_seen_ones(world):
    cfg = config(world)
    for split, expected in (('train', {0, 1, 255}), ('val', {0, 1, 2, 255})):
        sample = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
        found = {v for i in range(len(sample)) for v in sample[i]['data_samples'].gt_sem_seg.data.unique().tolist()}
        assert found == expected


# ---------------------------------------------------------------- what is right, and what is wrong


def found(cfg):
    """Problems and notes of both splits, as lines."""
    reports = check_config(cfg, ['train', 'val', 'test'], None, 1, lambda name: lambda items, total: items)
    lines = [f'{name}: {problem}' for name, r in reports.items() for problem in r.problems]
    return lines, [f'{name}: {note}' for name, r in reports.items() for note in r.notes], reports


def palette(values):
    picture = Image.fromarray(values)
    picture.putpalette([channel for colour in TABLE for channel in colour] + [0] * 3 * 253)
    return picture


RIGHT = {
    'grey': lambda file, values: save(file, values),
    'palette': lambda file, values: palette(values).save(file),
    '16 bits': lambda file, values: save(file, values.astype(np.uint16)),
    '16 bits, 65535': lambda file, values: save(file, np.where(values == 255, 65535, values).astype(np.uint16)),
}


@pytest.mark.parametrize('kind', RIGHT)
def test_label_maps_that_can_be_read(world, kind):
    for file in (world / 'data/mine/labels').rglob('*.png'):
        RIGHT[kind](file, np.asarray(Image.open(file)))
    cfg = config(world)
    problems, notes, reports = found(cfg)
    assert problems == notes == [] and reports['val'].pixels == {'sky': 640, 'road': 640, 'car': 640}
    labels = DATASETS.build(cfg.val_dataloader.dataset)[0]['data_samples'].gt_sem_seg.data[0, 0]
    assert labels.tolist() == [0] * 10 + [1] * 10 + [2] * 10 + [255] * 10


TWO_NAMES = ("'sky', 'road', 'car'", "'other', 'road'"), ("['car']", '[]')


def test_one_bit_label_maps_are_numbers_too(world):
    rewrite(world, lambda values: values == 1)
    problems, notes, reports = found(config(world, *TWO_NAMES))
    assert problems == notes == [] and reports['val'].pixels == {'other': 1920, 'road': 640}


def jpeg(values):
    """What a JPEG of the label map makes of it, as numbers again."""
    noise = np.zeros_like(values)
    noise[0, :4] = 3, 4, 6, 9
    return np.where(noise > 0, noise, values)


GENERIC = 'where 0…2 and 255 for "no label" are expected'
MISTAKES = {
    'counted from 1': (
        lambda v: np.where(v == 255, 255, v + 1).astype(np.uint8),
        (),
        'train0.png: values are 1…3 where 0…2 are expected, off by one: set `reduce_zero_label=True`',
    ),
    'counted from 1, then no label': (
        lambda v: np.where(v == 255, 4, v + 1).astype(np.uint8),
        [('ignored_labels=[]', 'ignored_labels=[3]')],
        'values are 1…4 where 0…2 are expected, off by one: set `reduce_zero_label=True`',
    ),
    '0 is no label': (
        lambda v: np.where(v == 255, 0, v + 1).astype(np.uint8),
        (),
        'contains 3 (25% of the pixels), one more than the last of 0…2: .*set `reduce_zero_label=T',
    ),
    'the last is no label': (
        lambda v: np.where(v == 255, 3, v).astype(np.uint8),
        (),
        'if this value means "no label", set `ignored_labels=[3]` of FoldersDataset.*; if it is a class, add its name',
    ),
    'noise of JPEG': (
        jpeg,
        (),
        'contains 3…4, 6, 9 (0.31% of the pixels) ' + GENERIC + ': few pixels of several values .* JPEG or',
    ),
    'another value': (
        lambda v: np.where(v == 255, 200, v).astype(np.uint8),
        (),
        'contains 200 (25% of the pixels) ' + GENERIC + ': for "no label" use 255, or set `ignored_labels`',
    ),
    'large values in 16 bits': (
        lambda v: np.where(v == 2, 256, v.astype(np.uint16)),
        (),
        'contains 256 (25% of the pixels) ' + GENERIC,
    ),
    'black and white': (
        lambda v: np.where(v == 1, 255, 0).astype(np.uint8),
        TWO_NAMES,
        'only 0 and 255, as black and white masks do, but 255 means "no label": replace 255 by 1',
    ),
    'colours': (
        lambda v: np.array([*TABLE, (0, 0, 0)], np.uint8)[np.minimum(v, 3)],
        (),
        'has several channels (mode RGB) where a label map has one, the class numbers: convert .*'
        'docs/custom_dataset.md',
    ),
    'half the size': (
        lambda v: v[::2, ::2],
        (),
        'a label map of 20 × 16 pixels for an image of 40 × 32: .* (resize labels with NEAREST',
    ),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_each_mistake_in_the_label_maps_gives_a_line(world, mistake):
    change, changes, message = MISTAKES[mistake]
    rewrite(world, change)
    problems, _, _ = found(config(world, *changes))
    pattern = re.escape(message).replace(r'\.\*', '.*')
    for split in ('train', 'val'):
        lines = [line for line in problems if line.startswith(split) and re.search(pattern.replace('train0', ''), line)]
        assert lines and '\n' not in lines[0]
    assert re.search(pattern, problems[0])


def test_with_reduce_zero_label_ignored_values_are_those_of_the_files(world):
    rewrite(world, lambda values: np.where(values == 255, 4, values + 1).astype(np.uint8))
    reduced = 'reduce_zero_label=True, ignored_labels='
    cfg = config(world, ('ignored_labels=[]', reduced + '[4]'))
    problems, notes, reports = found(cfg)
    assert problems == notes == [] and reports['val'].pixels == {'sky': 640, 'road': 640, 'car': 640}
    labels = DATASETS.build(cfg.val_dataloader.dataset)[0]['data_samples'].gt_sem_seg.data[0, 0]
    assert labels[::10].tolist() == [0, 1, 2, 255]
    with pytest.raises(RuntimeError, match=r'`ignored_labels` holds \[3\], which `label_classes` names'):
        found(config(world, ('ignored_labels=[]', reduced + '[3]')))


def test_a_shift_that_ignored_labels_hide(world):
    rewrite(world, lambda values: np.where(values == 255, 255, values + 1).astype(np.uint8))
    problems, notes, _ = found(config(world, ('ignored_labels=[]', 'ignored_labels=[3]')))
    assert problems == [] and '0 occurs nowhere, all of 1…3 do, and 3 is not a class' in notes[0]
    assert notes[0].endswith('if classes count from 1 in the files, set `reduce_zero_label=True`')


def test_the_colours_are_listed(world):
    rewrite(world, MISTAKES['colours'][0])
    _, notes, _ = found(config(world))
    assert '4 colours in 3 label map(s): (0, 0, 0) 25%, (128, 0, 0) 25%, (128, 128, 128) 25%, (192, 192, 128) 25%:' in (
        notes[0].replace('25%, (192, 192, 128) 25%, (128', '25%, (128')
    )
    assert notes[0].endswith('replace each colour by the number of its class, with the code in docs/custom_dataset.md')


def test_the_lines_of_the_page_turn_colours_into_numbers(world):
    colours = world / 'data/mine/colours'
    (world / 'data/mine/labels').rename(colours)
    for file in sorted(colours.rglob('*.png')):
        save(file, MISTAKES['colours'][0](np.asarray(Image.open(file))))
    exec(compile(COLOURS, 'docs/custom_dataset.md', 'exec'), {})
    problems, notes, reports = found(config(world))
    assert problems == notes == [] and reports['val'].pixels == {'sky': 640, 'road': 640, 'car': 640}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda v: np.stack([v] * 3, -1),
            '(255, 255, 255) 25%.*: all channels are equal: keep one with `Image.open(file)',
        ),
        (lambda v: np.dstack([v, v]), '4 colours .*: all channels are equal'),
        (
            lambda v: np.arange(v.size * 3, dtype=np.uint32).reshape(*v.shape, 3).astype(np.uint8),
            '256 colours or more in 3 label map(s): too many for classes',
        ),
    ],
)
def test_colours_that_are_none(world, change, message):
    rewrite(world, change)
    _, notes, _ = found(config(world))
    assert re.search(re.escape(message).replace(r'\.\*', '.*'), notes[0])


def test_jpeg_labels(world):
    rewrite(world, lambda values: values, '.jpg')
    problems, _, _ = found(config(world, ("seg_map_suffix='.png'", "seg_map_suffix='.jpg'")))
    assert len(problems) == 5 + 2 and 'train0.jpg: a label map that is a JPEG: JPEG changes values' in problems[0]


# ---------------------------------------------------------------- names of files


def test_label_maps_of_another_suffix(world):
    rewrite(world, lambda values: values, '_labelIds.png')
    problems, _, _ = found(config(world))
    hints = [f"there is train{i}_labelIds.png: rename it, or set `seg_map_suffix='_labelIds.png'`" for i in range(3)]
    assert [line.split('missing: ')[1] for line in problems[:3]] == hints
    right = ("seg_map_suffix='.png'", "seg_map_suffix='_labelIds.png'")
    assert found(config(world, right))[:2] == ([], [])


def test_images_of_another_suffix(world):
    with pytest.raises(RuntimeError, match=r"`img_suffix='\.png'`, but 3 of '\.jpg' \(set `img_suffix='\.jpg'`\)"):
        found(config(world, ("img_suffix='.jpg'", "img_suffix='.png'")))
    folder = world / 'data/mine/images/train'
    (folder / 'train2.jpg').rename(folder / 'train2.JPG')
    (folder / 'notes.txt').touch()
    problems, notes, _ = found(config(world))
    assert (
        problems == []
        and "images/train: 1 image(s) do not end with '.jpg' and are not used, first: train2.JPG" in (notes[0])
    )


def test_an_empty_folder(world):
    (world / 'data/mine/images/none').mkdir()
    with pytest.raises(
        RuntimeError, match=r'images/none contains no image .*but no file at all: see docs/custom_dataset\.'
    ):
        found(config(world, ('images/val', 'images/none')))


def test_training_on_the_test_images(world):
    problems, _, _ = found(config(world, ('images/val', 'images/train'), ('labels/val', 'labels/train')))
    assert len(problems) == 1 and '3 training image(s), first this one, are also in val, test' in problems[0]


# ---------------------------------------------------------------- names of classes


@pytest.mark.parametrize(
    ('unseen', 'message'),
    [
        ("['caar', 'Road']", r"\['caar', 'Road'\], which .*: did you mean 'car' for 'caar', 'road' for 'Road'\?"),
        ("['bicycle']", r"\['bicycle'\], which are not among `classes`: use exact names from sky, road, car\."),
    ],
)
def test_unseen_names_that_are_no_classes(world, unseen, message):
    cfg = config(world, ("unseen_classes = ['car']", f'unseen_classes = {unseen}'))
    with pytest.raises(ValueError, match='`unseen_classes` names ' + message):
        found(cfg)
    with pytest.raises(ValueError, match='`unseen_classes` names ' + message):
        DATASETS.build(cfg.val_dataloader.dataset)


def test_a_class_without_a_pixel_and_one_that_is_none(world):
    cfg = config(world, ("'car']  # names", "'car', 'Void']  # names"))
    problems, notes, reports = found(cfg)
    assert problems == [] and reports['val'].absent == ['Void']
    assert notes[0].startswith(
        "train: class names: 'Void' is trained and scored like any other class: if pixels of this value"
    )
