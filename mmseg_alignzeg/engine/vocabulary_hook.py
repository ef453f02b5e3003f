"""Keep the class names of model and data consistent in training, validation and tests."""

from __future__ import annotations

from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from ..models.random_clip import NOTE, is_random, label_scores, warn_of_random_clip
from ..vocabulary import Vocabulary, abridged
from .missing_parts import missing_gpu
from .unwrapped import unwrapped_model


@HOOKS.register_module()
class VocabularyHook(Hook):
    """Check the training classes, and pass the classes of each evaluated dataset to the model.

    Labels are numbers: in training, the dataset defines their names for the data, and the model for the loss. If the
    orders differ, training runs but learns wrong names. The model needs ``vocabulary`` (a ``Vocabulary``) and
    ``set_test_classes(names)``.

    If CLIP has random weights, a warning says so, and all scores are named ``random_clip/…``.

    If the ``metainfo`` of evaluated data has no ``unseen_classes``, or None, its classes are split by name: a class is
    seen if its name was trained.
    """

    def __init__(self) -> None:
        self._warned: set[tuple[str, ...]] = set()

    def before_run(self, runner: Runner) -> None:
        """Fail early if the config requests CUDA (``device='cuda'``) and there is none; warn of a random CLIP.

        Raises:
            RuntimeError: In that case; MMEngine itself would train on the CPU silently.
        """
        fault = missing_gpu(runner.cfg)
        if fault:
            raise RuntimeError(fault)
        if is_random(unwrapped_model(runner)):
            warn_of_random_clip()

    def after_run(self, runner: Runner) -> None:
        """Repeat the warning of a random CLIP, below all scores."""
        if is_random(unwrapped_model(runner)):
            runner.logger.warning(NOTE)

    def before_train(self, runner: Runner) -> None:
        """Compare the training labels with the model's seen classes, and the label of padding with the ignored one.

        Raises:
            ValueError: If names or their order differ, or padding would be trained as a class.
        """
        model = unwrapped_model(runner)
        padding = getattr(model.data_preprocessor, 'seg_pad_val', None)
        ignored = getattr(getattr(model, 'criterion', None), 'ignore_index', padding)
        if padding != ignored:
            raise ValueError(
                f'`model.data_preprocessor.seg_pad_val={padding}`, the label of padding, is not ignored: set it to '
                f'`model.criterion.ignore_index={ignored}`.'
            )
        labels = tuple(_metainfo(runner.train_dataloader.dataset)['classes'])
        seen = model.vocabulary.seen_classes
        if ignored is not None and 0 <= ignored < len(seen):
            raise ValueError(
                f'`model.criterion.ignore_index={ignored}` is the label of {seen[ignored]!r}, which would not be '
                'trained: use 65535 there, in the data and in `model.data_preprocessor.seg_pad_val`.'
            )
        if labels == seen:
            return
        position = next((i for i, (a, b) in enumerate(zip(labels, seen, strict=False)) if a != b), None)
        if position is None:
            detail = f'one has {len(labels)} names, the other {len(seen)}'
        else:
            detail = f'label {position} is {labels[position]!r} in the data and {seen[position]!r} in the model'
        foreign = [name for name in labels if name not in seen]
        unseen = [name for name in foreign if name in model.vocabulary.unseen_classes]
        if unseen:
            detail += f'; the data even contains labels of the unseen {unseen}'
        raise ValueError(
            f"The training data and the model's seen classes disagree: {detail}. Set the dataset's "
            '`metainfo=dict(classes=...)` to the seen classes, in the order of `classes` in the model.'
        )

    def before_val(self, runner: Runner) -> None:
        """Set the test classes of the model to those of the validation data."""
        self._set_classes(runner, runner.val_dataloader.dataset, runner.val_evaluator)

    def before_test(self, runner: Runner) -> None:
        """Set the test classes of the model to those of the test data."""
        self._set_classes(runner, runner.test_dataloader.dataset, runner.test_evaluator)

    def _set_classes(self, runner: Runner, dataset: Any, evaluator: Evaluator) -> None:
        metainfo = _metainfo(dataset)
        model = unwrapped_model(runner)
        if is_random(model):
            label_scores(evaluator.metrics)
        trained = model.vocabulary.has_labels_for
        vocabulary = Vocabulary.of_test_data(metainfo, model.vocabulary)
        if metainfo.get('unseen_classes') is None:
            evaluator.dataset_meta = {**metainfo, 'unseen_classes': list(vocabulary.unseen_classes)}
        called_seen = [name for name in vocabulary.seen_classes if not trained(name)]
        called_unseen = [name for name in vocabulary.unseen_classes if trained(name)]
        if (called_seen or called_unseen) and vocabulary.classes not in self._warned:
            self._warned.add(vocabulary.classes)
            runner.logger.warning(
                f'The split of the evaluated data differs from that of the training: {len(called_seen)} class(es) are '
                f'called seen but were not trained ({abridged(called_seen)}), and {len(called_unseen)} are called '
                f'unseen but were trained ({abridged(called_unseen)}). mIoU_seen, mIoU_unseen and hIoU follow the data.'
            )
        model.set_test_classes(list(vocabulary.classes))


def _metainfo(dataset: Any) -> dict[str, Any]:
    """Return the ``metainfo`` of a dataset or of one of MMEngine's dataset wrappers."""
    metainfo = getattr(dataset, 'metainfo', None) or {}
    if not metainfo.get('classes'):
        raise ValueError(
            f'{type(dataset).__name__} has no class names in `metainfo`; its keys are {sorted(metainfo)}. '
            'Set `metainfo=dict(classes=[...], unseen_classes=[...])` in its config.'
        )
    return metainfo
