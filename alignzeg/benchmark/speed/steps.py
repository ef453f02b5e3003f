"""The steps that are measured: each function prepares one model and returns a function of no arguments."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import open_clip
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.registry import DATASETS
from mmseg.structures import SegDataSample
from PIL import Image

from mmseg_alignzeg.models import CLIPSource, get_templates
from mmseg_alignzeg.models.text_bank import embed_classes

from ..flops import count_parameters, predict_flops
from .models import build, load
from .rows import Row
from .vocabulary import VocabularyPrediction

#: A step returns None if its duration is the figure, otherwise the figure.
Step = Callable[[], float | None]
LOADED_STEPS = 8


def make_step(row: Row, name: str, device: str) -> Step:
    """Prepare the step of a row for one model; see :data:`STEPS`."""
    return STEPS[row.kind](row, name, device)


def half(device: str) -> torch.dtype:
    """Return the type of mixed precision: bfloat16 where the device has it, else float16."""
    return torch.float16 if device == 'cuda' and not torch.cuda.is_bf16_supported() else torch.bfloat16


# ---------------------------------------------------------------- prediction


def predict_step(row: Row, name: str, device: str, weights: str | None = None, text: bool = False) -> Step:
    """Predict one image of random colours; ``weights`` and ``text``: see :func:`build`."""
    model, _ = build(name, row, weights, text)
    model = model.to(device).eval()
    image = torch.rand(1, 3, *row.shape, device=device)

    def predict() -> None:
        metainfo = dict(ori_shape=row.shape, img_shape=row.shape, pad_shape=row.shape, padding_size=[0] * 4)
        with torch.no_grad(), torch.autocast(device, half(device), enabled=row.precision != 'fp32'):
            result = model.predict(image, [SegDataSample(metainfo=metainfo)])
        assert result[0].pred_sem_seg.data.shape == (1, *row.shape)

    return predict


def vocabulary_step(row: Row, name: str, device: str) -> Step:
    """Predict with trained masks and the row's number of names."""
    predict = VocabularyPrediction(row.shape, row.classes, device)
    return lambda: _run(predict)


def text_step(row: Row, name: str, device: str) -> Step:
    """Encode class names of COCO-Stuff with VILD's 14 templates."""
    names = list(load('alignzeg', row).model.classes)[: row.per_step]
    if name == 'san':
        encoder = build(name, row, text=True)[0].text_encoder.to(device)
        return lambda: _run(encoder.template_encode, names)
    source = CLIPSource(load(name, row).model.clip.model_name, None)
    clip, tokenizer = source.load_full().to(device), open_clip.get_tokenizer(source.model_name)
    return lambda: _run(embed_classes, clip, tokenizer, names, get_templates('vild'))


def count_step(row: Row, name: str, device: str) -> Step:
    """Count what the row's name says: parameters and trainable ones in millions, or FLOPs in billions."""
    model, _ = build(name, row)
    if row.name == 'flops':
        return lambda: sum(predict_flops(model, row.shape).values()) / 1e9
    counts = count_parameters(model)
    return lambda: (counts.trained + (counts.frozen if row.name == 'parameters' else 0)) / 1e6


def _run(function: Callable[..., Any], *args: Any) -> None:
    function(*args)


# ---------------------------------------------------------------- training


def trainer(row: Row, name: str, device: str) -> tuple[Any, Any, Config]:
    """Build a model and its own optimizer, in the row's precision; return both with the config.

    Mixed precision is as each config sets it; a config without it gets bfloat16, or float16 where the GPU has no other.
    """
    model, cfg = build(name, row)
    settings = cfg.optim_wrapper
    if row.precision == 'fp32':
        settings.type = 'OptimWrapper'
        for key in ('loss_scale', 'dtype'):
            settings.pop(key, None)
    elif settings.type == 'OptimWrapper':
        dtype = half(device)
        scale = 1.0 if dtype == torch.bfloat16 else 'dynamic'
        settings.update(type='AmpOptimWrapper', dtype=str(dtype).removeprefix('torch.'), loss_scale=scale)
    model = model.to(device).train()
    return model, build_optim_wrapper(model, settings), cfg


def random_batch(row: Row) -> dict[str, Any]:
    """Return images of random colours with 4 × 4 cells of random classes, as a data loader gives them."""
    rng = torch.Generator().manual_seed(0)
    height, width = row.shape
    cells = torch.randint(0, row.classes, (row.batch, 1, 4, 4), generator=rng)
    labels = cells.repeat_interleave(height // 4, 2).repeat_interleave(width // 4, 3)
    metainfo = dict(ori_shape=row.shape, img_shape=row.shape, pad_shape=row.shape)
    return {
        'inputs': [torch.randint(0, 256, (3, *row.shape), dtype=torch.uint8, generator=rng) for _ in range(row.batch)],
        'data_samples': [SegDataSample(gt_sem_seg=PixelData(data=image), metainfo=metainfo) for image in labels],
    }


def train_step(row: Row, name: str, device: str) -> Step:
    """Train on one batch in memory: images to the device, forward, backward, and each model's own optimizer."""
    model, optim_wrapper, cfg = trainer(row, name, device)
    if row.backbone == 'tiny':
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        batch = pseudo_collate([dataset[i] for i in range(row.batch)])
    else:
        batch = random_batch(row)
    return lambda: _run(model.train_step, batch, optim_wrapper)


def matcher_step(row: Row, name: str, device: str) -> Step:
    """Measure the share of the matcher in a training step, in percent. The device waits before and after it."""
    model, optim_wrapper, _ = trainer(row, name, device)
    batch = random_batch(row)
    ours = name == 'alignzeg'
    owner, method = (model.criterion, 'matcher') if ours else (model.decode_head.match_masks, 'get_targets')

    def share() -> float:
        begin = now(device)
        with timed(owner, method, device) as spent:
            model.train_step(batch, optim_wrapper)
        return 100 * sum(spent) / (now(device) - begin)

    return share


@contextlib.contextmanager
def timed(owner: Any, name: str, device: str) -> Iterator[list[float]]:
    """Time the calls of an attribute of an object within the block; yield the list of their seconds."""
    original: Any = getattr(owner, name)
    spent: list[float] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        begin = now(device)
        result = original(*args, **kwargs)
        spent.append(now(device) - begin)
        return result

    with patch.dict(vars(owner), {name: call}):  # found before a submodule of that name
        yield spent


def now(device: str) -> float:
    """Return the time in seconds after the device has finished its work."""
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter()


# ---------------------------------------------------------------- data


def write_pictures(folder: Path, count: int) -> None:
    """Write pictures and label maps of 640 × 480 pixels where COCO-Stuff has them: noisy clouds of random colours."""
    rng = np.random.default_rng(0)
    for name in ('images/train2017', 'annotations/train2017'):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        noisy = np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC)) + rng.normal(0, 12, (480, 640, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f'images/train2017/{i:012}.jpg', quality=90)
        labels = rng.integers(0, 171, (6, 8), dtype=np.uint8).repeat(80, axis=0).repeat(80, axis=1)
        Image.fromarray(labels).save(folder / f'annotations/train2017/{i:012}_labelTrainIds.png')


def data_step(row: Row, name: str, device: str) -> Step:
    """Load training images through each model's pipeline in this process: decode, resize, crop, distort, flip."""
    folder = TemporaryDirectory()
    write_pictures(Path(folder.name), row.per_step)
    dataset = DATASETS.build({**load(name, row).train_dataloader.dataset, 'data_root': folder.name})

    def load_images(folder: TemporaryDirectory = folder) -> None:  # which is deleted with this function
        random.seed(0)
        np.random.seed(0)
        for i in range(row.per_step):
            dataset[i]

    return load_images


def loading_step(row: Row, name: str, device: str) -> Step:
    """Measure the share of the time that training waits for its data loader, in percent, over eight steps."""
    model, optim_wrapper, cfg = trainer(row, name, device)
    folder = TemporaryDirectory()
    write_pictures(Path(folder.name), 2 * row.batch)
    settings = {**cfg.train_dataloader, 'batch_size': row.batch}
    settings['dataset'] = {**settings['dataset'], 'data_root': folder.name}
    batches = iter(Runner.build_dataloader(settings, seed=0))
    next(batches)  # the workers have started

    def share(folder: TemporaryDirectory = folder) -> float:
        waited, begin = 0.0, now(device)
        for _ in range(LOADED_STEPS):
            before = now(device)
            batch = next(batches)
            waited += now(device) - before
            model.train_step(batch, optim_wrapper)
        return 100 * waited / (now(device) - begin)

    return share


STEPS: dict[str, Callable[[Row, str, str], Step]] = {
    'predict': predict_step,
    'vocabulary': vocabulary_step,
    'text': text_step,
    'count': count_step,
    'train': train_step,
    'matcher': matcher_step,
    'data': data_step,
    'loading': loading_step,
}
