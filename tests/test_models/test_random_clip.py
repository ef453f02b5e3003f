"""A CLIP with random weights is announced everywhere, and no score of it looks like a result."""

import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample
from small_model import CLASSES, build

from alignzeg.apis import AlignZegInferencer
from alignzeg.benchmark.bench import Bench
from alignzeg.benchmark.plan import Job, Trial
from mmseg_alignzeg.datasets.patterns import draw_scene
from mmseg_alignzeg.evaluation import ZeroShotIoUMetric
from mmseg_alignzeg.models import random_clip

METAINFO = dict(classes=CLASSES, unseen_classes=['dog'])


@pytest.fixture
def warnings(monkeypatch):
    """The warnings of this test, as if it were the first in its process."""
    lines = []
    random_clip.warn_of_random_clip.cache_clear()
    monkeypatch.setattr(random_clip, 'print_log', lambda line, *_: lines.append(line))
    return lines


def scores_of_a_test(model):
    """The scores of one image, as the hooks of a test leave them."""
    evaluator = Evaluator(ZeroShotIoUMetric())
    evaluator.dataset_meta = METAINFO
    loader = SimpleNamespace(dataset=BaseDataset(lazy_init=True, metainfo=METAINFO))
    runner = SimpleNamespace(model=model, cfg=Config({}), test_dataloader=loader, test_evaluator=evaluator)
    hook = HOOKS.build(dict(type='mmseg.VocabularyHook'))
    hook.before_run(runner)
    hook.before_test(runner)
    labels = PixelData(data=torch.tensor([[[0, 1], [2, 3]]]))
    evaluator.process([SegDataSample(gt_sem_seg=labels, pred_sem_seg=labels)])
    return evaluator.evaluate(1)


def test_a_test_run_says_so_once_and_names_its_scores(warnings):
    scores = scores_of_a_test(build())
    assert scores['random_clip/hIoU'] == 100 and all(key.startswith('random_clip/') for key in scores)
    scores_of_a_test(build())
    assert warnings == [random_clip.NOTE]


def test_weights_from_a_file_are_not_random(warnings):
    scores = scores_of_a_test(build(clip={**Config.fromfile('configs/alignzeg_patterns.py').model.clip}))
    assert scores['hIoU'] == 100 and not any('random' in key for key in scores) and not warnings


def test_other_segmentors_are_not_random():
    assert not random_clip.is_random(torch.nn.Linear(1, 1)) and not random_clip.is_random(dict(type='SAN'))


def test_predictions_carry_the_note(tmp_path, warnings):
    config = tmp_path / 'config.py'
    base = Config.fromfile('configs/alignzeg_patterns.py')
    base.model.clip.pretrained, base.model.text = None, dict(templates='single')
    base.dump(config)
    model = build(classes=base.model.classes, unseen_classes=base.model.unseen_classes, num_queries=100)
    identity = {'alignzeg': model.checkpoint_identity()}
    torch.save({'state_dict': model.state_dict(), 'meta': identity}, tmp_path / 'w.pth')
    (result,) = AlignZegInferencer(config, tmp_path / 'w.pth', 'cpu')(draw_scene(0, 0)[0])
    assert result.notes[0] == random_clip.NOTE and warnings == [random_clip.NOTE]


def test_the_runner_leaves_such_scores_out(tmp_path, monkeypatch):
    job = Job(tmp_path / 'c.py', (), tmp_path)
    (tmp_path / 'time').mkdir()
    (tmp_path / 'time/scores.json').write_text(json.dumps({'random_clip/hIoU': 3.0}))
    bench = Bench([[]], SimpleNamespace(console=SimpleNamespace(print=lambda *_, **__: None)))
    monkeypatch.setattr(bench, '_mim', lambda *_: True)
    bench._test(Trial('row', job.config, 0, job, job), tmp_path / 'w.pth', [])
    (failure,) = bench.failures
    assert 'no result, only random_clip/hIoU' in failure and not (tmp_path / 'result.json').exists()
