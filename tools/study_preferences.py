"""Study whether preferences between its own outputs improve a trained model.

A trained model is trained on for some hundred iterations, φ_cls and the mask path only, by the usual losses and one
more term. For each image, the model as it was segments two noisy versions; the segmentation with the larger mean IoU,
by the labels of seen classes, is preferred. The term is that of direct preference optimisation,
−log σ(β (Δ_preferred − Δ_other)), where Δ is the mean change of log-probability of a segmentation's labels since the
start. One control goes without the term, another draws the order of each pair at random. Prints Markdown.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from rich.console import Console
from rich.progress import track
from torch import Tensor

from alignzeg.apis.trained_models import build_trained
from alignzeg.benchmark.table import spread
from mmseg_alignzeg.evaluation.areas import confusion_matrix, split_areas
from mmseg_alignzeg.evaluation.zero_shot_iou_metric import zero_shot_iou

IGNORE = 255
TRAINED = ('semantic_head', 'decode_head')
RATE = 0.3  # of the config's learning rate
BATCH = 8
BETA = 20.0
LEAST = (0.15, 0.02)  # difference of mean IoU that a pair must have: in the first half of the iterations, and after
WAYS = ('usual losses', 'preferences', 'random order')


def add_noise(images: Tensor) -> Tensor:
    """Replace three random rectangles of each normalised image (B, 3, H, W) by noise; sides are .1 to .4 of H and W."""
    noisy = images.clone()
    size = torch.tensor(images.shape[2:])
    for image in noisy:
        for _ in range(3):
            share = torch.rand(2) * 0.3 + 0.1
            y, x = (torch.rand(2) * (1 - share) * size).int().tolist()
            h, w = (share * size).int().tolist()
            image[:, y : y + h, x : x + w] = torch.randn(3, h, w)
    return noisy


def log_probs(model: Any, images: Tensor) -> Tensor:
    """Return the log-probability of each seen class at each pixel, (B, C, H, W): Σ_n σ(M_n) p_n, normalised over C."""
    proposals = model.extract_feat(images)
    embeds = model.text_bank(model.vocabulary.seen_classes, images.device)
    probs = model.classify(proposals, embeds).softmax(dim=-1)[..., :-1]
    masks = F.interpolate(proposals.mask_logits, size=images.shape[2:], mode='bilinear').sigmoid()
    shares = torch.einsum('bnc,bnhw->bchw', probs, masks) + 1e-6
    return shares.log() - shares.sum(dim=1, keepdim=True).log()


def mean_iou(found: Tensor, labels: Tensor) -> float:
    """Return the mean IoU of the classes in ``labels`` (H, W), on labelled pixels; 0 without any."""
    valid = labels != IGNORE
    ious = []
    for c in labels[valid].unique():
        inside = (found == c) & valid
        ious.append(((inside & (labels == c)).sum() / (inside | (labels == c)).sum()).item())
    return statistics.mean(ious) if ious else 0.0


def preference_loss(now: Tensor, before: Tensor, preferred: Tensor, other: Tensor, valid: Tensor) -> Tensor:
    """Return the loss of one pair.

    Args:
        now: Log-probabilities (C, H, W) of the model.
        before: Those of the frozen model.
        preferred: The better segmentation (H, W).
        other: The worse one.
        valid: (H, W) bool, labelled pixels.
    """
    change = now - before
    gains = [change.gather(0, labels[None])[0][valid].mean() for labels in (preferred, other)]
    return -F.logsigmoid(BETA * (gains[0] - gains[1]))


def preference_term(model: Any, frozen: Any, images: Tensor, labels: Tensor, least: float, swap: Callable) -> Tensor:
    """Return the mean loss over the pairs of a batch whose mean IoU differs by at least ``least``; 0 without any."""
    with torch.no_grad():
        pairs = torch.stack([log_probs(frozen, add_noise(images)).argmax(dim=1) for _ in range(2)], dim=1)
        before = log_probs(frozen, images)
    now = log_probs(model, images)
    losses = []
    for i, (pair, truth) in enumerate(zip(pairs, labels, strict=True)):
        first, second = (mean_iou(found, truth) for found in pair)
        if abs(first - second) >= least:
            preferred = int(first < second) ^ swap()
            losses.append(preference_loss(now[i], before[i], pair[preferred], pair[1 - preferred], truth != IGNORE))
    return torch.stack(losses).mean() if losses else now.new_zeros(())


def train_on(cfg: Config, weights: Path, way: str, iterations: int, seed: int) -> tuple[Any, float]:
    """Train a model on, and return it and the seconds per iteration."""
    torch.manual_seed(seed)
    rng, order = np.random.default_rng(100 + seed), np.random.default_rng(seed)
    model, frozen = build_trained(cfg, weights).train(), build_trained(cfg, weights)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name.startswith(TRAINED))
    wrapper = copy.deepcopy(cfg.optim_wrapper)
    wrapper.optimizer.lr *= RATE
    optimizer, dataset = build_optim_wrapper(model, wrapper), DATASETS.build(cfg.train_dataloader.dataset)
    swap = (lambda: int(order.random() < 0.5)) if way == 'random order' else lambda: 0
    start = time.perf_counter()
    for step in track(range(iterations), f'{weights.name}, {way}', console=Console(stderr=True)):
        scenes = [dataset[int(i)] for i in rng.integers(0, len(dataset), BATCH)]
        batch = model.data_preprocessor(pseudo_collate(scenes), True)
        images, samples = batch['inputs'], batch['data_samples']
        loss = sum(value for key, value in model.loss(images, samples).items() if 'loss' in key)
        if way != 'usual losses':
            labels = torch.stack([sample.gt_sem_seg.data[0] for sample in samples]).long()
            loss += preference_term(model, frozen, images, labels, LEAST[2 * step >= iterations], swap)
        optimizer.update_params(loss)
    return model.eval(), (time.perf_counter() - start) / iterations


@torch.no_grad()
def score(model: Any, dataset: Any) -> dict[str, float]:
    """Return the zero-shot scores in percent on a dataset."""
    num_classes = len(model.vocabulary.classes)
    confusion = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64)
    for i in range(0, len(dataset), 20):
        for sample in model.test_step(pseudo_collate([dataset[j] for j in range(i, min(i + 20, len(dataset)))])):
            found, labels = sample.pred_sem_seg.data[0], sample.gt_sem_seg.data[0].long()
            confusion += confusion_matrix(found, labels, num_classes, IGNORE)
    return zero_shot_iou(*split_areas(confusion), ~model.question.seen)


def main() -> None:
    """Train checkpoints on in each way and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', type=Path)
    parser.add_argument('checkpoints', type=Path, nargs='+')
    parser.add_argument('--iterations', type=int, default=200)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, help='settings, as in mim')
    args = parser.parse_args()
    init_default_scope('mmseg')
    MMLogger.get_current_instance().setLevel('ERROR')  # it prints to where the table goes
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options)
    tests = DATASETS.build(cfg.test_dataloader.dataset)
    print('| | mIoU(S) | mIoU(U) | hIoU | Δ hIoU | hIoU of each | s per iteration |\n|---|---|---|---|---|---|---|')
    starts = [score(build_trained(cfg, path), tests) for path in args.checkpoints]
    print(row('as it was', starts, starts, []), flush=True)
    for way in WAYS:
        scores, seconds = [], []
        for seed, path in enumerate(args.checkpoints):
            model, time_per_iteration = train_on(cfg, path, way, args.iterations, seed)
            scores.append(score(model, tests))
            seconds.append(time_per_iteration)
        print(row(way, scores, starts, seconds), flush=True)


def row(name: str, scores: Sequence[dict[str, float]], starts: Sequence[dict[str, float]], seconds: list[float]) -> str:
    """Return a row of the table."""
    cells = [[score[key] for score in scores] for key in ('mIoU_seen', 'mIoU_unseen', 'hIoU')]
    cells.append([score['hIoU'] - start['hIoU'] for score, start in zip(scores, starts, strict=True)])
    duration = f'{statistics.median(seconds):.2f}' if seconds else '-'
    each = ', '.join(f'{score["hIoU"]:.1f}' for score in scores)
    return f'| {name} | {" | ".join(map(spread, cells))} | {each} | {duration} |'


if __name__ == '__main__':
    main()
