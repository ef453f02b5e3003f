"""Study what an ensemble of views can gain over the mean of its views, and how much of that can be predicted.

Ceilings choose by the labels of the scene itself: the best source per image, per class or per pixel, where sources are
the views and their mean; or they weight views at each pixel by the true IoU of proposals there. Predictors choose by
what the model computes. They are gradient-boosted trees, fitted on the validation scenes with the labels of all
classes, or with those of the seen classes alone. All rows are measured on the test scenes. Prints Markdown.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from rich.console import Console
from rich.progress import track
from scipy.stats import ttest_1samp
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from torch import Tensor

from alignzeg.apis.trained_models import build_trained
from alignzeg.benchmark.table import spread
from mmseg_alignzeg.evaluation.areas import confusion_matrix, split_areas
from mmseg_alignzeg.evaluation.zero_shot_iou_metric import zero_shot_iou
from mmseg_alignzeg.models import Answer

IGNORE = 255
TEMPERATURE = 0.2  # of an IoU; for the true one, 0.05 is worse and 1 hardly differs from equal weights
BASELINE = 'mean of the views'


@dataclass
class Scene:
    """What a scene's ensemble is made of.

    Attributes:
        sources: Class scores (V + 1, C, H, W) float16 of V views and of their mean, which is last.
        by_iou: Class scores (C, H, W) of the views weighted by the true IoU of their proposals.
        labels: Ground truth (H, W) int64.
    """

    sources: np.ndarray
    by_iou: np.ndarray
    labels: np.ndarray

    @cached_property
    def found(self) -> np.ndarray:
        """Labels of each source, (V + 1, H, W)."""
        return self.sources.argmax(axis=1)


def quality(masks: Tensor, labels: Tensor) -> Tensor:
    """Return the IoU of binary masks (N, H, W) with the segment of ``labels`` that each fits best, (N,)."""
    segments = torch.stack([labels == c for c in labels.unique()]).flatten(1).float()
    inside = masks.flatten(1).float()
    both = inside @ segments.t()
    either = inside.sum(dim=1, keepdim=True) + segments.sum(dim=1) - both
    return (both / either.clamp(min=1)).amax(dim=1)


@torch.no_grad()
def look(model: Any, data: dict[str, Any]) -> Scene:
    """Predict a scene by each view."""
    batch = model.data_preprocessor(data, False)
    inputs, samples = batch['inputs'], batch['data_samples']
    answer = model.answer(model.look(inputs), samples, inputs.shape[2:])[0]
    labels = samples[0].gt_sem_seg.data[0].long()
    scores = [Answer((view,), answer.window, answer.class_bias).scores() for view in answer.views]
    preferred = []
    for view in answer.views:
        masks = F.interpolate(view.mask_logits[None], size=labels.shape, mode='bilinear')[0].sigmoid()
        weights = masks * view.class_probs.sum(dim=1)[:, None, None]
        mean = torch.einsum('nhw,n->hw', weights, quality(masks > 0.5, labels)) / weights.sum(dim=0).clamp(min=1e-9)
        preferred.append(mean / TEMPERATURE)
    shares = torch.stack(preferred).softmax(dim=0)
    by_iou = torch.einsum('vhw,vchw->chw', shares, torch.stack(scores))
    sources = torch.stack([*scores, torch.stack(scores).mean(dim=0)])
    return Scene(sources.half().numpy(), by_iou.half().numpy(), labels.numpy())


def iou(found: np.ndarray, true: np.ndarray, valid: np.ndarray) -> float:
    """Return the IoU of two masks on valid pixels; 1 if both are empty."""
    either = (valid & (found | true)).sum()
    return float((valid & found & true).sum() / either) if either else 1.0


def class_ious(scene: Scene, label: int) -> np.ndarray:
    """Return the IoU of a class in each source, (V + 1,)."""
    return np.array([iou(part == label, scene.labels == label, scene.labels != IGNORE) for part in scene.found])


def ceilings(scene: Scene) -> dict[str, np.ndarray]:
    """Return labels chosen by the ground truth."""
    found, labels = scene.found, scene.labels
    present = [c for c in np.unique(labels) if c != IGNORE]
    means = np.mean([class_ious(scene, c) for c in present], axis=0)
    per_class = scene.sources[-1].copy()
    for c in range(len(per_class)):
        ious = class_ious(scene, c)
        per_class[c] = scene.sources[ious.argmax() if ious.max() > ious[-1] else -1, c]
    right = (found == labels).any(axis=0)
    return {
        BASELINE: found[-1],
        'the image alone': found[0],
        'proposals by true IoU': scene.by_iou.argmax(axis=0),
        'best source per image': found[means.argmax()],
        'best source per class': per_class.argmax(axis=0),
        'best source per pixel': np.where(right, labels, found[-1]),
    }


def pixels(scene: Scene, trained: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where sources differ, (H, W) bool; what each says there, (V + 1, P); and features, (V + 1, P, F)."""
    found = scene.found
    where = (found != found[-1]).any(axis=0)
    candidates, scores = found[:, where], scene.sources[:, :, where].astype(np.float32)
    total = scores[-1].sum(axis=0)
    entropy = -(scores[-1] / total * np.log(scores[-1] / total + 1e-9)).sum(axis=0)
    features = []
    for labels in candidates:
        columns = []
        for part in scores:
            own = part[labels, np.arange(len(labels))]
            others = part.copy()
            others[labels, np.arange(len(labels))] = -1
            columns += [own, own - others.max(axis=0)]
        columns += [(candidates == labels).sum(axis=0), entropy, total, trained[labels]]
        features.append(np.stack(columns, axis=1))
    return where, candidates, np.stack(features)


def regions(scene: Scene, trained: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each class that a source predicts, and features of its regions, (V + 1, F)."""
    found, scores = scene.found, scene.sources.astype(np.float32)
    everywhere = np.ones_like(found[0], dtype=bool)
    for c in np.unique(found):
        rows = []
        for part, labels in zip(scores, found, strict=True):
            inside = labels == c
            own, others = part[c][inside], np.delete(part, c, axis=0).max(axis=0)[inside]
            surest = [own.mean(), (own - others).mean(), np.quantile(own, 0.1)] if own.size else [0.0] * 3
            rows.append([inside.mean(), *surest, *(iou(inside, other == c, everywhere) for other in found), trained[c]])
        kind = np.eye(len(rows))
        yield int(c), np.concatenate([kind, np.array(rows)[:, :-1], np.repeat([rows[-1]], len(rows), axis=0)], axis=1)


class Predictors:
    """Predictors of the best source, fitted on scenes.

    Args:
        scenes: Scenes with labels.
        trained: (C,) bool, the seen classes.
        seen_only: Use labels of seen classes alone.
    """

    def __init__(self, scenes: Sequence[Scene], trained: np.ndarray, seen_only: bool) -> None:
        self.trained, self.columns = trained, slice(None, -1) if seen_only else slice(None)
        parts: dict[str, list[np.ndarray]] = defaultdict(list)
        for scene in scenes:
            where, candidates, features = pixels(scene, trained)
            truth = scene.labels[where]
            use = truth != IGNORE
            use[use] &= trained[truth[use]] | (not seen_only)
            parts['pixels'] += list(features[:, use])
            parts['right'] += list(candidates[:, use] == truth[use])
            for c, rows in regions(scene, trained):
                if trained[c] or not seen_only:
                    ious = class_ious(scene, c)
                    parts['regions'].append(rows)
                    parts['gains'].append(ious - ious[-1])
        stacked = {name: np.concatenate(part) for name, part in parts.items()}
        self.pixel = HistGradientBoostingClassifier(max_iter=200, random_state=0)
        self.pixel.fit(stacked['pixels'][:, self.columns], stacked['right'])
        self.region = HistGradientBoostingRegressor(max_iter=80, max_leaf_nodes=8, random_state=0)
        self.region.fit(stacked['regions'][:, self.columns], stacked['gains'])

    def by_pixel(self, scene: Scene) -> np.ndarray:
        """Return the labels (H, W) of the source that is most probably right at each pixel."""
        where, candidates, features = pixels(scene, self.trained)
        labels = scene.found[-1].copy()
        if where.any():
            right = np.stack([self.pixel.predict_proba(part[:, self.columns])[:, 1] for part in features])
            right[-1] += 1e-6  # equal probabilities: the mean of the views
            labels[where] = candidates[right.argmax(axis=0), np.arange(candidates.shape[1])]
        return labels

    def gains(self, scene: Scene) -> dict[int, np.ndarray]:
        """Return by how much the IoU of each source should exceed the mean's, for each class that a source predicts."""
        classes, rows = zip(*regions(scene, self.trained), strict=True)
        gains = self.region.predict(np.concatenate(rows)[:, self.columns])
        return dict(zip(classes, gains.reshape(len(classes), -1), strict=True))


def by_region(scene: Scene, gains: Mapping[int, np.ndarray]) -> np.ndarray:
    """Return labels (H, W) with the scores of each class from the source that should have the best region."""
    scores = scene.sources[-1].copy()
    for c, gain in gains.items():
        scores[c] = scene.sources[gain.argmax() if gain.max() > gain[-1] else -1, c]
    return scores.argmax(axis=0)


def by_merged_regions(scene: Scene, gains: Mapping[int, np.ndarray]) -> np.ndarray:
    """Return labels (H, W) of the views' mean, weighted for each class by the softmax of the gains; see POPEN."""
    scores = scene.sources[-1].astype(np.float32)
    for c, gain in gains.items():
        weights = np.exp(gain[:-1] / TEMPERATURE)
        scores[c] = np.tensordot(weights / weights.sum(), scene.sources[:-1, c].astype(np.float32), axes=1)
    return scores.argmax(axis=0)


def by_image(scene: Scene, gains: Mapping[int, np.ndarray], views: int) -> np.ndarray:
    """Return the labels (H, W) of the view that should be the best of the first ``views`` of them."""
    return scene.found[np.mean(list(gains.values()), axis=0)[:views].argmax()]


def look_at_all(model: Any, dataset: Any) -> Iterator[Scene]:
    """Yield the scenes of a dataset."""
    for i in range(len(dataset)):
        yield look(model, pseudo_collate([dataset[i]]))


def study(model: Any, validation: Any, tests: Any, name: str) -> dict[str, dict[str, float]]:
    """Return the scores in percent of each way to choose, on the test scenes; ``name`` is for the progress."""
    vocabulary = model.question.vocabulary
    trained = model.question.seen.numpy()
    scenes = list(look_at_all(model, validation))
    predictors = {known: Predictors(scenes, trained, seen_only=known == 'seen') for known in ('all', 'seen')}
    confusions: dict[str, Tensor] = {}
    scenes_of_test = track(look_at_all(model, tests), name, len(tests), console=Console(stderr=True))
    for scene in scenes_of_test:
        choices = ceilings(scene)
        for known, predictor in predictors.items():
            gains = predictor.gains(scene)
            choices |= {
                f'per pixel, learned from {known} labels': predictor.by_pixel(scene),
                f'per class, learned from {known} labels': by_region(scene, gains),
                f'softmax per class, learned from {known} labels': by_merged_regions(scene, gains),
                f'best of 2 views, learned from {known} labels': by_image(scene, gains, 2),
                f'best of 3 views, learned from {known} labels': by_image(scene, gains, 3),
            }
        truth = torch.from_numpy(scene.labels)
        for way, labels in choices.items():
            found = confusion_matrix(torch.from_numpy(labels), truth, len(vocabulary.classes), IGNORE)
            confusions[way] = confusions.get(way, 0) + found
    return {way: zero_shot_iou(*split_areas(found), ~torch.from_numpy(trained)) for way, found in confusions.items()}


def main() -> None:
    """Study checkpoints and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', type=Path, help='a config with an EnsembleDecoder')
    parser.add_argument('checkpoints', type=Path, nargs='+')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, help='settings, as in mim')
    args = parser.parse_args()
    init_default_scope('mmseg')
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options)
    validation, tests = (DATASETS.build(cfg[f'{part}_dataloader'].dataset) for part in ('val', 'test'))
    results = [study(build_trained(cfg, path), validation, tests, path.name) for path in args.checkpoints]
    print('| | mIoU(S) | mIoU(U) | hIoU | Δ hIoU | p |\n|---|---|---|---|---|---|')
    for way in results[0]:
        cells = [[result[way][key] for result in results] for key in ('mIoU_seen', 'mIoU_unseen', 'hIoU')]
        gains = [result[way]['hIoU'] - result[BASELINE]['hIoU'] for result in results]
        p = f'{ttest_1samp(gains, 0).pvalue:.1g}' if len(gains) > 1 and way != BASELINE else '-'
        print(f'| {way} | {" | ".join(map(spread, [*cells, gains]))} | {p} |')


if __name__ == '__main__':
    main()
