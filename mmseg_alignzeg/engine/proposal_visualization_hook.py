"""Visualise a test: predictions without and with PBC, the proposals it changes, and a map of proposal features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.amp import autocast
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample
from torch import Tensor

from ..models import AlignZeg
from ..models.data_preprocessor import reverses_channels
from ..visualization import corrections_picture, features_picture, predictions_picture
from ..visualization.inspection import (
    Inspection,
    corrects,
    find_corrections,
    inspect_image,
    matched_features,
    original_image,
)
from .unwrapped import unwrapped_model
from .visualization_hook import training_step

MIN_POINTS = 5  # minimum number of points for t-SNE


@HOOKS.register_module()
class ProposalVisualizationHook(Hook):
    """Draw the first test images with the visualizer, for all of its backends.

    To enable it, inherit from a config and repeat its hooks together with this one::

        custom_hooks = [dict(type='SafeCheckpointHook'), dict(type='VocabularyHook'), dict(type='RandomStateHook'),
                        dict(type='ProposalVisualizationHook', num_images=8)]

    ``mim test mmseg CONFIG --checkpoint FILE --show-dir DIR`` then writes PNG files to ``DIR/vis_data/vis_image``;
    without ``--show-dir``, they are written to such folders in the work folder. ``visualizer=dict(vis_backends=[...])``
    selects other backends, such as ``TensorboardVisBackend``.

    For each image, ``test_NUMBER_NAME_predictions`` shows the ground truth and the predictions without and with PBC.
    Predictions are hidden where the ground truth has no class. ``test_NUMBER_NAME_corrections`` shows the proposals
    whose best class PBC changes, if there are any, and ``test_features`` is the map of all images.

    Drawn images pass through the model a second time; with ``tsne``, all images do. With several GPUs, the first one
    draws its own part of the test set.

    Args:
        num_images: Number of images to draw.
        unseen_only: Draw only images whose ground truth contains an unseen class.
        num_proposals: Maximum number of changed proposals drawn per image, the largest masks first.
        tsne: Also draw a t-SNE map of F_cls of the proposals matched to the ground truth; needs scikit-learn.
        tsne_classes: Number of seen and of unseen classes on that map, chosen at random from the matched ones.
        seed: Seed of that choice, of the points for matching, and of t-SNE.

    Raises:
        ValueError: If a number is negative.
    """

    priority = 'LOW'  # after VocabularyHook, which sets the test classes of the model

    def __init__(
        self,
        num_images: int = 8,
        unseen_only: bool = False,
        num_proposals: int = 6,
        tsne: bool = False,
        tsne_classes: int = 5,
        seed: int = 0,
    ) -> None:
        for name, value in (
            ('num_images', num_images),
            ('num_proposals', num_proposals),
            ('tsne_classes', tsne_classes),
        ):
            if value < 0:
                raise ValueError(f'{name}={value} must be at least 0.')
        self.num_images = num_images
        self.unseen_only = unseen_only
        self.num_proposals = num_proposals
        self.tsne = tsne
        self.tsne_classes = tsne_classes
        self.seed = seed
        self._model: AlignZeg | None = None  # the model to visualise; None disables the hook

    def before_test(self, runner: Runner) -> None:
        """Reset the hook, and check the requirements of the end of the test.

        Raises:
            ImportError: If ``tsne`` is on and scikit-learn is not installed.
            ValueError: If the test data has fewer colours than the model has classes.
        """
        model = unwrapped_model(runner)
        self._model = None
        self._seen_images = self._drawn_images = 0
        self._features: list[tuple[Tensor, Tensor]] = []
        if not isinstance(model, AlignZeg):
            runner.logger.warning(
                f'ProposalVisualizationHook draws nothing: the model is a {type(model).__name__}, not an AlignZeg.'
            )
            return
        if model.tiling is not None:
            runner.logger.warning(
                "ProposalVisualizationHook draws nothing: it shows whole images, and `test_cfg.mode` is 'slide'."
            )
            return
        if self.tsne:
            check_scikit_learn()
        if not is_main_process():
            return
        palette = (runner.visualizer.dataset_meta or {}).get('palette') or []
        if len(palette) < len(model.question.classes):
            raise ValueError(
                f'The test data has {len(palette)} colours for {len(model.question.classes)} classes: add a `palette` '
                'with an RGB colour for each class to its `metainfo`.'
            )
        self._vocabulary = model.question.vocabulary
        self._palette = palette[: len(model.question.classes)]
        self._model = model

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict[str, Any] | None = None,
        outputs: Sequence[SegDataSample] | None = None,
    ) -> None:
        """Draw selected images of a batch, and collect their features for the map."""
        if self._model is None or data_batch is None or outputs is None:
            return
        for inputs, sample, output in zip(data_batch['inputs'], data_batch['data_samples'], outputs, strict=True):
            number = self._seen_images
            self._seen_images += 1
            truth = sample.gt_sem_seg.data[0] if 'gt_sem_seg' in sample else None
            drawn = self._drawn_images < self.num_images and (not self.unseen_only or self._shows_unseen(truth))
            if not drawn and not self.tsne:
                continue
            with autocast(enabled=getattr(runner.test_loop, 'fp16', False)):
                found = inspect_image(self._model, inputs, sample)
            if drawn:
                self._drawn_images += 1
                image = original_image(inputs, sample.metainfo, reverses_channels(self._model.data_preprocessor))
                name = f'test_{number:04d}_{PurePath(sample.metainfo.get("img_path") or "image").stem}'
                self._draw(runner, name, image, found, truth, output.pred_sem_seg.data[0])
            if self.tsne and truth is not None:
                features, labels = matched_features(self._model, found, truth, self.seed)
                self._features.append((features.cpu(), labels.cpu()))

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Draw the map of features."""
        if self._model is None:
            return
        if self.num_images and not self._drawn_images:
            runner.logger.warning('ProposalVisualizationHook drew no image: none contains an unseen class.')
        if not self.tsne:
            return
        features, labels = self._sampled_features()
        if len(features) < MIN_POINTS:
            runner.logger.warning(
                f'ProposalVisualizationHook draws no map of features: it has {len(features)} matched proposals and '
                f'needs {MIN_POINTS}.'
            )
            return
        points = embed(features, self.seed)
        self._show(runner, 'test_features', features_picture(points, labels, self._vocabulary))

    def _draw(
        self, runner: Runner, name: str, image: np.ndarray, found: Inspection, truth: Tensor | None, predicted: Tensor
    ) -> None:
        """Draw both pictures of one image; ``predicted`` are the labels that the test evaluates."""
        assert self._model is not None
        label_maps = [('prediction', predicted)]
        if corrects(self._model):
            label_maps = [('without PBC', found.labels), ('with PBC', predicted)]
        maps = [(heading, labels.cpu().numpy()) for heading, labels in label_maps]
        if truth is not None:
            no_class = len(self._vocabulary.classes)
            counted = truth.numpy() < no_class
            maps = [(heading, np.where(counted, labels, no_class)) for heading, labels in maps]
            maps.insert(0, ('ground truth', np.where(counted, truth.numpy(), no_class)))
        self._show(runner, f'{name}_predictions', predictions_picture(image, maps, self._vocabulary, self._palette))
        if corrects(self._model):
            corrections = find_corrections(found, self._model.question.seen, self.num_proposals)
            if corrections:
                gamma = getattr(self._model.question.bias_correction, 'gamma', None)
                picture = corrections_picture(image, corrections, self._vocabulary, self._palette, gamma)
                self._show(runner, f'{name}_corrections', picture)

    def _show(self, runner: Runner, name: str, picture: np.ndarray) -> None:
        runner.visualizer.add_image(name, picture, training_step(runner))

    def _shows_unseen(self, truth: Tensor | None) -> bool:
        unseen = [self._vocabulary.classes.index(name) for name in self._vocabulary.unseen_classes]
        return truth is not None and bool(np.isin(truth.numpy(), unseen).any())

    def _sampled_features(self) -> tuple[np.ndarray, np.ndarray]:
        """Return F_cls (n, D) float32 and labels (n,) of the classes on the map."""
        assert self._model is not None
        if not self._features:
            return np.zeros((0, 1), dtype=np.float32), np.zeros(0, dtype=np.int64)
        features, labels = (torch.cat(parts).numpy() for parts in zip(*self._features, strict=True))
        seen = self._model.question.seen.numpy()
        chosen = np.isin(labels, sample_classes(labels, seen, self.tsne_classes, self.seed))
        return features[chosen], labels[chosen]


def check_scikit_learn() -> None:
    """Check at the start of a test, not at its end, that t-SNE can be computed.

    Raises:
        ImportError: If scikit-learn is missing, with the command that installs it.
    """
    try:
        from sklearn.manifold import TSNE  # noqa: F401
    except ImportError as error:
        raise ImportError(
            '`tsne=True` in ProposalVisualizationHook needs scikit-learn, which is an optional extra: '
            'pip install scikit-learn'
        ) from error


def sample_classes(labels: np.ndarray, seen: np.ndarray, count: int, seed: int) -> list[int]:
    """Choose ``count`` seen and ``count`` unseen labels at random, or all if there are fewer.

    Args:
        labels: (n,) integers below C; only labels among them are chosen.
        seen: (C,) bool.
        count: Number of classes of each kind.
        seed: Random seed.
    """
    generator = np.random.default_rng(seed)
    present = np.unique(labels)
    kinds = (present[seen[present]], present[~seen[present]])
    return sorted(
        int(label) for kind in kinds for label in generator.choice(kind, min(count, len(kind)), replace=False)
    )


def embed(features: np.ndarray, seed: int) -> np.ndarray:
    """Compute t-SNE of n ≥ 5 features (n, D); returns (n, 2)."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(features) - 1) / 3)  # t-SNE needs more points than that
    return TSNE(2, perplexity=perplexity, init='pca', random_state=seed).fit_transform(features)
