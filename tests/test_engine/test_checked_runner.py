"""What a run lacks is listed before it starts, and errors of a user end in one line."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import RUNNERS

from mmseg_alignzeg.engine.checked_runner import _raised_here
from mmseg_alignzeg.engine.missing_parts import missing_parts
from mmseg_alignzeg.models import clip_source


@pytest.fixture
def coco(monkeypatch, tmp_path):
    """The full-size config where there is no cache, no network and no GPU."""
    asked = []

    def unreachable():
        asked.append('the hub')
        raise TimeoutError

    monkeypatch.setattr(clip_source, 'try_to_load_from_cache', lambda *names: None)
    monkeypatch.setattr(clip_source, 'get_session', unreachable)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    cfg = Config.fromfile('configs/alignzeg_coco.py')
    cfg.work_dir, cfg.launcher = str(tmp_path / 'work'), 'pytorch'
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(tmp_path / 'coco')
    return cfg, asked


def test_all_that_is_missing_is_said_before_anything_is_written(coco, tmp_path, capsys):
    cfg, asked = coco
    with pytest.raises(SystemExit) as ended:
        RUNNERS.build(cfg)
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and len(lines) == 3 and all(line.startswith('Error: ') for line in lines)
    assert '`hf download timm/vit_base_patch16_clip_224.openai open_clip_model.safetensors' in lines[0]
    assert "'nccl' of `--launcher pytorch` needs GPUs" in lines[1]
    assert lines[2].startswith('Error: train, val data: `data_root=') and '`alignzeg convert coco_stuff' in lines[2]
    assert asked == ['the hub'] and not (tmp_path / 'work').exists()


def test_what_is_there_is_not_missing(coco, tmp_path):
    cfg, _ = coco
    cfg.model.clip.pretrained, cfg.launcher = None, 'none'
    for folder in ('images/train2017', 'annotations/train2017', 'images/val2017'):
        (tmp_path / 'coco' / folder).mkdir(parents=True)
    assert missing_parts(cfg, ['train']) == []
    (line,) = missing_parts(cfg, ['train', 'val', 'test'])
    assert line.startswith('val, test data: The folder of label maps does not exist') and 'val2017' in line
    cfg.device = 'cuda'
    assert 'sees no CUDA device' in missing_parts(cfg, ['train'])[0]
    assert missing_parts(Config.fromfile('configs/alignzeg_patterns.py'), ['train', 'val', 'test']) == []


def test_a_wrong_argument_of_a_dataset_is_one_line(coco):
    cfg, _ = coco
    cfg.model.clip.pretrained, cfg.launcher = None, 'none'
    cfg.train_dataloader.dataset.img_sufix = '.jpg'
    (line,) = missing_parts(cfg, ['train'])
    assert line.startswith('train data: ') and "unexpected keyword argument 'img_sufix'" in line


def test_weights_to_start_from_are_for_a_test_or_for_a_training(tmp_path, capsys):
    cfg = Config.fromfile('configs/alignzeg_patterns.py')
    cfg.work_dir, cfg.launcher, cfg.load_from = str(tmp_path / 'work'), 'none', 'start.pth'
    cfg.test_dataloader.dataset = dict(
        type='FoldersDataset', data_root=str(tmp_path / 'nowhere'), label_classes=['cat'], ignore_index=255
    )
    assert isinstance(RUNNERS.build(copy.deepcopy(cfg)), RUNNERS.get('CheckedRunner'))
    cfg.train_dataloader.dataset = cfg.test_dataloader.dataset
    with pytest.raises(SystemExit):
        RUNNERS.build(cfg)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('Error: test data: `data_root=') and 'nowhere' in line


def test_a_wrong_config_is_one_line_and_its_traceback_is_in_the_log(tmp_path, capsys):
    cfg = Config.fromfile('configs/alignzeg_patterns.py')
    cfg.work_dir, cfg.launcher = str(tmp_path), 'none'
    cfg.model.clop, cfg.experiment_name = 3, 'clop'  # a logger of its own; MMEngine shares those of one second
    with pytest.raises(SystemExit) as ended:
        RUNNERS.build(cfg)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('TypeError: ')]
    assert ended.value.code == 2 and "unexpected keyword argument 'clop'" in line
    (log,) = tmp_path.rglob('*.log')
    assert 'Traceback (most recent call last)' in log.read_text() and log.name in line


def test_only_errors_of_this_package_are_shortened():
    def error_of(work):
        with pytest.raises(Exception) as caught:  # noqa: PT011 (whatever it is)
            work()
        return caught.value

    assert _raised_here(error_of(lambda: clip_source.CLIPSource('no such model', None)))
    assert not _raised_here(error_of(lambda: torch.zeros(2) @ torch.zeros(3)))
    assert not _raised_here(error_of(lambda: [][0]))
    place = clip_source.__file__
    worker = (
        f'Caught ValueError in DataLoader worker process 0.\nOriginal:\n  File "{place}", line 1, in f\nValueError: a'
    )
    assert _raised_here(ValueError(worker)) and not _raised_here(ValueError(worker.replace(place, '/other.py')))
