"""The names of model and data are compared before training and handed over before evaluation."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmseg.registry import HOOKS

import mmseg_alignzeg  # noqa: F401
from mmseg_alignzeg.vocabulary import Vocabulary


class ToyModel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.vocabulary = Vocabulary(['cat', 'dog', 'fox', 'owl'], ['dog', 'owl'])
        self.test_classes = None
        self.data_preprocessor = SimpleNamespace(seg_pad_val=255)
        self.criterion = SimpleNamespace(ignore_index=255)

    def set_test_classes(self, names):
        self.test_classes = names


def make_dataset(classes, **metainfo):
    return BaseDataset(lazy_init=True, metainfo=dict(classes=classes, **metainfo))


def make_runner(dataset, **cfg):
    """The few attributes of a runner that the hook reads."""
    loader = SimpleNamespace(dataset=dataset)
    lines = []
    return SimpleNamespace(
        model=ToyModel(),
        cfg=Config(cfg),
        train_dataloader=loader,
        val_dataloader=loader,
        test_dataloader=loader,
        val_evaluator=SimpleNamespace(dataset_meta=getattr(dataset, 'metainfo', None)),
        test_evaluator=SimpleNamespace(dataset_meta=getattr(dataset, 'metainfo', None)),
        logger=SimpleNamespace(warning=lines.append),
        lines=lines,
    )


@pytest.fixture
def hook():
    return HOOKS.build(dict(type='mmseg.VocabularyHook'))


def test_padding_with_the_label_of_a_class_is_refused(hook):
    runner = make_runner(make_dataset(['cat', 'fox']))
    runner.model.criterion.ignore_index = 65535
    with pytest.raises(ValueError, match=r'seg_pad_val=255`, the label of padding, .*ignore_index=65535'):
        hook.before_train(runner)
    runner.model.data_preprocessor.seg_pad_val = 65535
    hook.before_train(runner)


def test_an_ignored_label_that_is_a_seen_class_is_refused(hook):
    names = [f'class {i}' for i in range(256)]
    runner = make_runner(make_dataset(names))
    runner.model.vocabulary = Vocabulary(names)
    with pytest.raises(ValueError, match=r"ignore_index=255` is the label of 'class 255', .* use 65535"):
        hook.before_train(runner)
    runner.model.criterion.ignore_index = runner.model.data_preprocessor.seg_pad_val = 65535
    hook.before_train(runner)


@pytest.mark.parametrize(
    'wrap',
    [lambda d: d, lambda d: ConcatDataset([d, d], lazy_init=True), lambda d: RepeatDataset(d, 2, lazy_init=True)],
)
def test_seen_classes_in_order_pass(hook, wrap):
    hook.before_train(make_runner(wrap(make_dataset(['cat', 'fox']))))


@pytest.mark.parametrize(
    ('classes', 'message'),
    [
        (['fox', 'cat'], "label 0 is 'fox' in the data and 'cat' in the model"),
        (['cat', 'bear'], "label 1 is 'bear' in the data and 'fox' in the model"),
        (['cat'], 'one has 1 names, the other 2'),
        (['cat', 'dog', 'fox', 'owl'], r"label 1 is 'dog' .* \['dog', 'owl'\]"),
    ],
)
def test_other_training_labels_are_refused(hook, classes, message):
    with pytest.raises(ValueError, match=message) as error:
        hook.before_train(make_runner(make_dataset(classes)))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('stage', ['before_val', 'before_test'])
def test_model_gets_the_classes_of_the_evaluated_data(hook, stage):
    runner = make_runner(make_dataset(('owl', 'cat'), unseen_classes=['owl']))
    getattr(hook, stage)(runner)
    assert runner.model.test_classes == ['owl', 'cat']
    assert runner.lines == []


def test_another_split_is_said_once(hook):
    runner = make_runner(make_dataset(['cat', 'bear', 'fox'], unseen_classes=['fox']))
    hook.before_val(runner)
    hook.before_val(runner)
    assert len(runner.lines) == 1
    assert '(bear)' in runner.lines[0] and '(fox)' in runner.lines[0]


@pytest.mark.parametrize('metainfo', [{}, {'unseen_classes': None}])
def test_data_without_a_split_is_split_by_what_was_trained(hook, metainfo):
    runner = make_runner(make_dataset(['cat', 'bear', 'owl'], **metainfo))
    hook.before_test(runner)
    assert runner.test_evaluator.dataset_meta['unseen_classes'] == ['bear', 'owl'] and not runner.lines
    assert runner.val_evaluator.dataset_meta.get('unseen_classes') is None


def test_data_without_names_is_refused(hook):
    with pytest.raises(ValueError, match=r'BaseDataset has no class names in `metainfo`; its keys are \[\]'):
        hook.before_test(make_runner(BaseDataset(lazy_init=True)))


def test_asking_for_cuda_without_cuda_is_one_line(hook, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(RuntimeError, match=r"device='cuda:0'.*sees no CUDA device") as error:
        hook.before_run(make_runner(None, device='cuda:0'))
    assert '\n' not in str(error.value)
    hook.before_run(make_runner(None))
    hook.before_run(make_runner(None, device='cpu'))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    hook.before_run(make_runner(None, device='cuda:0'))
