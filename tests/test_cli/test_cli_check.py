"""The check of a config's data: whole splits with shares counted by hand, and the command as a user types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS
from PIL import Image

from alignzeg.cli import main
from alignzeg.cli.check_tables import problem_lines
from mmseg_alignzeg.datasets.file_checks import Problem
from mmseg_alignzeg.datasets.validation.configs import build
from mmseg_alignzeg.datasets.validation.splits import accepted_counts, check_split

ROOT = Path(__file__).parents[2]
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
NAMES = ['sky', 'road', 'car']


def write(root, count=4, values=((0, 0, 1), (2, 255, 255))):
    """Images 0.jpg … with equal label maps of six pixels."""
    for folder in ('images', 'labels'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new('RGB', (3, 2)).save(root / f'images/{i}.jpg')
        Image.fromarray(np.array(values, dtype=np.uint8)).save(root / f'labels/{i}.png')
    return root


def folders(root, **kwargs):
    prefix = dict(img_path='images', seg_map_path='labels')
    cfg = dict(type='FoldersDataset', data_root=str(root), data_prefix=prefix, label_classes=NAMES, pipeline=PIPELINE)
    return {**cfg, **kwargs}


def check(cfg, **kwargs):
    return check_split(build('train', cfg), **kwargs)


def test_shares_of_a_split(tmp_path):
    write(tmp_path, 3)
    write(tmp_path / 'more', 1, values=((255, 1, 255), (255, 255, 255)))
    cfg = dict(type='ConcatDataset', datasets=[folders(tmp_path), folders(tmp_path / 'more')])
    report = check(dict(type='RepeatDataset', dataset=cfg, times=5), expected=4, seen_classes=NAMES)
    assert (report.images, report.checked, report.problems, report.notes) == (4, 4, [], [])
    # Thrice sky 2, road 1, car 1, and once road 1: 13 labelled pixels of 24.
    assert report.pixels == {'sky': 6, 'road': 4, 'car': 3} and report.ignored == 11
    assert report.shares == pytest.approx({'sky': 600 / 13, 'road': 400 / 13, 'car': 300 / 13})


def test_a_subset_names_absent_classes_and_blank_images(tmp_path):
    write(tmp_path, 3, values=((0, 0, 1),) * 2)
    write(tmp_path, 1, values=((1, 1, 1),) * 2)
    report = check(folders(tmp_path, metainfo=dict(classes=['sky', 'car'])), seen_classes=['sky', 'car'])
    assert report.problems == [] and report.absent == ['car'] and report.unlabelled == 1
    assert report.shares == {'sky': 100, 'car': 0} and report.ignored == 10


def test_missing_files_are_listed_and_the_rest_is_checked(tmp_path):
    write(tmp_path)
    (tmp_path / 'labels/2.png').unlink()
    (tmp_path / 'images/0.jpg').unlink()
    report = check(folders(tmp_path), expected=4)
    count, missing = map(str, report.problems)
    assert count.startswith(f'{tmp_path}/images: 3 images where the config expects 4: ')
    assert missing == f'{tmp_path}/labels/2.png: this file is missing: complete the dataset'
    assert report.checked == 2 and 'labels: 1 label maps have no image, first: 0.png' in str(report.notes[0])


def save_as(path, picture, kind):
    picture.save(path, kind)


def float_picture(*values):
    return Image.fromarray(np.array([values, values], dtype=np.float32))


SQUARE = Image.new('RGB', (3, 2))
DAMAGES = {
    'image: NaN pixels': lambda image, label: save_as(image, float_picture(0, np.nan, 0), 'TIFF'),
    'image: 32-bit integers': lambda image, label: save_as(image, Image.new('I', (3, 2), 70000), 'TIFF'),
    'image: a format that cv2 lacks': lambda image, label: save_as(image, SQUARE, 'ICO'),
    'image: empty': lambda image, label: image.write_bytes(b''),
    'image: cut': lambda image, label: image.write_bytes(image.read_bytes()[:40]),
    'image: text': lambda image, label: image.write_text('no picture'),
    'image: another size': lambda image, label: save_as(image, Image.new('RGB', (4, 2)), 'PNG'),
    'label: another size': lambda image, label: save_as(label, Image.new('L', (3, 3)), 'PNG'),
    'label: NaN': lambda image, label: save_as(label, float_picture(0, np.nan, 1), 'TIFF'),
    'label: infinite': lambda image, label: save_as(label, float_picture(0, np.inf, 1), 'TIFF'),
    'label: halves': lambda image, label: save_as(label, float_picture(0, 0.5, 1), 'TIFF'),
    'label: -1': lambda image, label: save_as(label, Image.new('I', (3, 2), -1), 'TIFF'),
    'label: a number too large': lambda image, label: save_as(label, Image.new('L', (3, 2), 7), 'PNG'),
    'label: 16 bits': lambda image, label: save_as(label, Image.new('I;16', (3, 2), 300), 'PNG'),
    'label: colours': lambda image, label: save_as(label, SQUARE, 'PNG'),
    'label: JPEG': lambda image, label: save_as(label, Image.new('L', (3, 2)), 'JPEG'),
    'label: empty': lambda image, label: label.write_bytes(b''),
    'label: cut': lambda image, label: label.write_bytes(label.read_bytes()[:40]),
    'label: a folder': lambda image, label: (label.unlink(), label.mkdir()),
}


@pytest.mark.attack('data: damaged images and label maps are found')
@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_pair_is_found_and_the_rest_is_checked(tmp_path, damage):
    write(tmp_path, 3)
    SQUARE.save(tmp_path / 'images/1.jpg', 'PNG')  # a cut JPEG this small has no pixel left to miss
    DAMAGES[damage](tmp_path / 'images/1.jpg', tmp_path / 'labels/1.png')
    report = check(folders(tmp_path))
    files = {str(tmp_path / name) for name in ('images/1.jpg', 'labels/1.png')}
    assert report.problems and {problem.file for problem in report.problems} <= files
    assert report.checked == 3 and sum(report.pixels.values()) >= 8


def test_a_count_may_be_one_of_several(tmp_path):
    write(tmp_path)
    assert check(folders(tmp_path), expected=[4, 5]).problems == []
    (problem,) = check(folders(tmp_path), expected=[4996, 4998]).problems
    assert 'images: 4 images where the config expects 4,996 or 4,998' in str(problem)
    assert accepted_counts(None) == () and accepted_counts(7) == (7,) and accepted_counts([7, 8]) == (7, 8)
    for wrong in ('7', [], ['7'], 7.5, dict(train=7)):
        with pytest.raises(ValueError, match='expected a number, or a list of numbers'):
            accepted_counts(wrong)


def test_faults_of_a_list(tmp_path):
    write(tmp_path)
    (tmp_path / 'list.txt').write_text('0\n1\n0\n7\n')
    report = check(folders(tmp_path, ann_file='list.txt'))
    assert [problem.kind for problem in report.problems] == ['list', 'missing', 'missing']
    assert "list.txt: 1 name(s) occur more than once, first: '0': remove" in str(report.problems[0])
    assert report.notes[0].kind == 'repeated' and report.checked == 3


def test_processes_agree_with_one(tmp_path):
    write(tmp_path, 40)
    Image.new('L', (2, 2)).save(tmp_path / 'labels/20.png')
    (tmp_path / 'images/35.jpg').write_bytes(b'')
    one, two = (check(folders(tmp_path), workers=workers) for workers in (1, 2))
    assert one == two and [problem.kind for problem in one.problems] == ['size', 'unreadable']
    assert check(folders(tmp_path), limit=5).checked == 5


def test_unseen_labels_in_training(tmp_path):
    report = check(folders(write(tmp_path)), seen_classes=['sky', 'road'])
    assert [problem.kind for problem in report.problems] == ['unseen', 'names']
    assert "0.png: 4 pixels of 'car', which is not a seen class, reach training" in str(report.problems[0])


def test_voc_with_background_and_border(tmp_path):
    write(tmp_path, 2, values=((0, 15, 15), (20, 255, 255)))
    (tmp_path / 'train.txt').write_text('0\n1\n')
    voc = folders(tmp_path, type='CheckedPascalVOCDataset', ann_file='train.txt')
    del voc['label_classes']
    classes = list(Config.fromfile(ROOT / 'configs/_base_/datasets/voc_15_5.py').seen_classes)
    report = check({**voc, 'metainfo': dict(classes=classes)}, expected=2, seen_classes=classes)
    assert report.problems == [] and report.pixels == {'person': 4} and report.ignored == 8


def test_data_without_labels(tmp_path):
    write(tmp_path)
    report = check(folders(tmp_path, pipeline=PIPELINE[:1], data_prefix=dict(img_path='images'), test_mode=True))
    assert report.problems == [] and report.checked == 4 and report.shares == {}
    assert 'the pipeline loads no labels' in str(report.notes[0])


def test_problems_of_one_kind_share_a_line():
    problems = [Problem('size', f'{i}.png', 'is small', 'enlarge') for i in range(1200)]
    lines = problem_lines([*problems, Problem('list', 'list.txt', 'is empty', 'fill it')])
    assert lines == ['0.png (and 1.png, 2.png, 1,197 more): is small: enlarge', 'list.txt: is empty: fill it']
    assert problem_lines(problems[:2]) == ['0.png (and 1.png): is small: enlarge']


CONFIG = """
classes = {names}
data = dict(
    type='FoldersDataset', data_root={root!r}, data_prefix=dict(img_path='images', seg_map_path='labels'),
    label_classes=classes, pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')],
)
model = dict(classes=classes, unseen_classes=['car'])
train_dataloader = dict(dataset=dict(data, ann_file='train.txt', metainfo=dict(classes=['sky', 'road'])))
val_dataloader = dict(dataset=dict(data, ann_file='val.txt', metainfo=dict(unseen_classes=['car'])))
test_dataloader = val_dataloader
expected_images = dict(train=3, val=1, test=1)
"""


@pytest.fixture
def config(tmp_path):
    """A config with three images to train on and one to validate and test on."""
    write(tmp_path / 'data')
    (tmp_path / 'data/train.txt').write_text('0\n1\n2\n')
    (tmp_path / 'data/val.txt').write_text('3\n')
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(names=NAMES, root=str(tmp_path / 'data')))
    return path


def test_a_clean_config(config, tmp_path, capsys):
    assert main(['check', str(config), '--workers', '1', '--json', str(tmp_path / 'out/report.json')]) == 0
    out = capsys.readouterr().out
    assert 'No problem found.' in out and out.count('val, test') == 2
    found = json.loads((tmp_path / 'out/report.json').read_text())
    assert set(found) == {'train', 'val', 'test'} and found['val'] == found['test']
    assert found['train']['pixel_share'] == pytest.approx({'sky': 200 / 3, 'road': 100 / 3})
    assert found['val']['pixel_share'] == {'sky': 50, 'road': 25, 'car': 25}
    assert (found['train']['ignored'], found['train']['expected'], found['train']['absent']) == (9, 3, [])


def test_overrides_of_the_config(config, tmp_path, capsys):
    command = ['check', str(config), '--workers', '1', '--split', 'train', '--cfg-options']
    assert main([*command, 'expected_images.train=5']) == 1
    assert '3 images where the config expects 5' in capsys.readouterr().out
    assert main([*command, f'train_dataloader.dataset.data_root={tmp_path}/none']) == 2
    assert f"problem: train data: `data_root='{tmp_path}/none'" in capsys.readouterr().out
    for wrong in ('expected_images', '=3'):
        with pytest.raises(SystemExit):
            main([*command, wrong])
        assert 'expected KEY=VALUE' in capsys.readouterr().err


def test_a_config_with_problems(config, tmp_path, capsys):
    write(tmp_path / 'data', 4, values=((1, 2, 3), (3, 255, 255)))
    (tmp_path / 'data/val.txt').write_text('3\n0\n')
    assert main(['check', str(config), '--workers', '1']) == 1
    out = capsys.readouterr().out.splitlines()
    lines = [line for line in out if line.startswith(('train: problem', 'val, test: problem'))]
    assert (
        'off by one: set `reduce_zero_label=True`' in lines[0]
        and '0.jpg: 1 training image(s), first this one, are also in val, test' in lines[1]
    )
    assert 'val.txt: 2 images where the config expects 1' in lines[2] and 'off by one' in lines[3]
    assert len(lines) == 4 and out[-1] == '4 problem(s) found.'


def test_what_cannot_run(config, tmp_path, capsys):
    def refusal(*arguments):
        assert main(['check', *map(str, arguments)]) == 2
        return capsys.readouterr().err

    assert "'no.py' does not exist" in refusal('no.py')
    broken = tmp_path / 'broken.py'
    broken.write_text('a = 1 +')
    assert 'broken.py cannot be read: ' in refusal(broken)
    text = config.read_text()
    config.write_text(text + '\ntest_dataloader = None\n')
    assert 'has no data for: test.' in refusal(config, '--split', 'test')
    text = text.replace(str(tmp_path / 'data'), 'no/such')
    plain = text.replace('label_classes=classes, ', '')
    for written in (plain.replace('Folders', 'ADE20K'), plain.replace('Folders', 'PascalVOC')):
        config.write_text(written)
        line = refusal(config)
        assert "The train data cannot be built: `data_root='no/such'` is not a folder (looked for /" in line
        assert line.count('\n') == 1


def test_everything_that_is_missing_is_said_at_once(config, capsys):
    lacking = ['model.clip.model_name=ViT-B-16-quickgelu', 'model.clip.pretrained=no.pt', 'device=cuda']
    command = ['check', str(config), '--workers', '1', '--cfg-options', *lacking]
    assert main(command) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("problem: CLIP weights 'no.pt' do not exist") and 'sees no CUDA device' in out[1]
    assert out[-1] == '2 problem(s) found.'
    assert (
        main([*command, *(f'{split}_dataloader.dataset.data_root=nowhere' for split in ('train', 'val', 'test'))]) == 2
    )
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[2].startswith("problem: train, val, test data: `data_root='nowhere'` is not")


def test_without_a_seen_class(config, capsys):
    options = ['--cfg-options', f'model.unseen_classes={",".join(NAMES)}']
    assert main(['check', str(config), '--workers', '1', *options]) == 2
    assert '`unseen_classes` names all 3 `classes`, so that none is left' in capsys.readouterr().err


def test_several_expected_numbers_in_the_table(config, tmp_path, capsys):
    config.write_text(config.read_text().replace('train=3, val=1', 'train=[4996, 4998], val=[1, 2]'))
    assert main(['check', str(config), '--workers', '1', '--json', str(tmp_path / 'report.json')]) == 1
    out = capsys.readouterr().out
    assert 'train.txt: 3 images where the config expects 4,996 or 4,998: ' in out and '1 problem(s) found.' in out
    assert ' 1 or 2 ' in out and '4,996 or 4,998 ' in out
    assert json.loads((tmp_path / 'report.json').read_text())['train']['expected'] == [4996, 4998]
    config.write_text(config.read_text().replace('[1, 2]', '"1"'))
    assert main(['check', str(config), '--workers', '1']) == 2
    assert capsys.readouterr().err.startswith("alignzeg: error: `expected_images` contains '1'")


def test_ctrl_c(config, monkeypatch, capsys):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr('mmseg_alignzeg.datasets.validation.configs.check_config', stop)
    assert main(['check', str(config)]) == 130
    assert tuple(capsys.readouterr()) == ('', 'alignzeg: stopped.\n')


def test_the_command_on_the_embedded_world(tmp_path):
    command = ['-m', 'alignzeg', 'check', 'configs/alignzeg_patterns.py', '--limit', '20', '--workers', '2']
    command += ['--json', str(tmp_path / 'report.json')]
    environment = {**os.environ, 'PYTHONWARNINGS': 'ignore', 'OMP_NUM_THREADS': '1'}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert set(done.stderr.splitlines()) <= {'Could not import OneDL'}  # which the forks print when mmseg is imported
    assert 'No problem found.' in done.stdout and 'yellow grid' in done.stdout
    found = json.loads((tmp_path / 'report.json').read_text())
    assert [found[split]['images'] for split in ('train', 'val', 'test')] == [20000, 200, 500]
    scenes = DATASETS.build(Config.fromfile(ROOT / 'configs/alignzeg_patterns.py').val_dataloader.dataset)
    chosen = [round(i * 199 / 19) for i in range(20)]
    labels = np.stack([scenes[i]['data_samples'].gt_sem_seg.data.numpy() for i in chosen])
    shares = np.bincount(labels[labels != 255], minlength=20) / (labels != 255).sum() * 100
    assert list(found['val']['pixel_share'].values()) == pytest.approx(shares.tolist())
    assert found['val']['ignored'] == (labels == 255).sum()
