"""Measure the vision towers of configs: equality with open_clip, seconds, parameters and FLOPs; one table row each.

Weights and class embeddings are random. Nothing is downloaded. A batch has one image of the training size. Seconds are
CPU time, that of all threads together: other processes on the machine change it less than the clock. The first
prediction includes building the model.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from alignzeg.benchmark.flops import count_parameters, predict_flops
from mmseg_alignzeg.models import CLIPSource, build_tower

HEADER = (
    '| tower | difference | step | prediction | first prediction | parameters | GFLOPs |\n|---|---|---|---|---|---|---|'
)


class RandomTexts:
    """In place of a :class:`TextBank`: a random unit vector for each class."""

    def __init__(self, width: int) -> None:
        self.width = width

    def __call__(self, classes: Sequence[str], device: torch.device | str = 'cpu') -> Tensor:
        """Return (C, 1, D)."""
        drawn = torch.randn(len(classes), 1, self.width, generator=torch.Generator().manual_seed(0))
        return F.normalize(drawn, dim=-1).to(device)


def difference(source: CLIPSource, settings: Mapping[str, Any]) -> float:
    """Return the largest difference from the feature of open_clip's own tower, relative to its largest entry.

    Args:
        source: The CLIP model; its weights are made less regular.
        settings: Arguments of the tower, which takes images at their own size.
    """
    reference, scale = source.load_vision()
    with torch.no_grad():
        for weights in reference.eval().parameters():
            weights.add_(0.02 * torch.randn_like(weights))  # no part may keep a start of zero
        height_width: Any = reference.image_size
        images = torch.randn(1, 3, *height_width)
        expected = reference(images)  # before the tower takes the module over
        with patch.object(CLIPSource, 'load_vision', return_value=(reference, scale)):
            tower = build_tower(
                source, **settings, scale_factor=1.0, num_prompts=0
            ).eval()  # prompts change the feature
        stream = tower(images)
        found = tower.read(stream, torch.zeros(1, 1, 1, stream.grid[0] * stream.grid[1]))[:, 0]
    return float((found - expected).abs().max() / expected.abs().max())


def row(config: Path, model_name: str | None) -> str:
    """Measure one config, with another tower if ``model_name`` is given; return its row of the table."""
    cfg = Config.fromfile(config)
    clip = cfg.model.clip
    clip.pretrained = None
    if model_name is not None:
        clip.update(model_name=model_name, tap_layer=None)
        if clip.tail_layers:
            clip.tail_layers = None
    height, width = shape = tuple(cfg.model.data_preprocessor.size)
    torch.manual_seed(0)
    start = time.process_time()
    model = MODELS.build(cfg.model).eval()
    texts: object = RandomTexts(model.clip.embed_dim)
    model.text_bank, model.question = texts, replace(model.question, text_bank=texts)
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    labels = torch.arange(16).reshape(1, 4, 4).repeat_interleave(height // 4, 1).repeat_interleave(width // 4, 2)
    sample = SegDataSample(metainfo=dict(ori_shape=shape, img_shape=shape), gt_sem_seg=PixelData(data=labels))
    batch = {'inputs': [image], 'data_samples': [sample]}
    model.test_step(batch)
    first = time.process_time() - start
    start = time.process_time()
    model.test_step(batch)
    prediction = time.process_time() - start
    optim_wrapper = build_optim_wrapper(model.train(), cfg.optim_wrapper)
    start = time.process_time()
    model.train_step(batch, optim_wrapper)
    step = time.process_time() - start
    parameters = count_parameters(model)
    flops = sum(predict_flops(model, shape, question=model.question).values())
    del model, optim_wrapper
    settings = {key: value for key, value in clip.items() if key not in {'scale_factor', 'num_prompts'}}
    source = CLIPSource(settings.pop('model_name'), settings.pop('pretrained'))
    gap = difference(source, settings)
    trained, frozen = parameters.trained / 1e6, parameters.frozen / 1e6
    return (
        f'| {source.model_name} | {gap:.0e} | {step:.1f} s | {prediction:.1f} s | {first:.1f} s '
        f'| {trained:.1f} M + {frozen:.1f} M | {flops / 1e9:,.0f} |'
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', type=Path, nargs='+', help='configs of AlignZeg')
    parser.add_argument(
        '--model-names',
        nargs='+',
        metavar='NAME',
        help="open_clip's architectures to measure with these configs, in place of theirs, with the default layers",
    )
    args = parser.parse_args()
    for config in args.configs:
        if not config.is_file():
            parser.error(f'no config {config}: give the path of a .py file')
    logging.disable(logging.WARNING)  # MMEngine lists every parameter
    warnings.filterwarnings('ignore', module='mm(seg|cv)')
    init_default_scope('mmseg')
    print(HEADER)
    for config in args.configs:
        for name in args.model_names or [None]:
            print(row(config, name), flush=True)


if __name__ == '__main__':
    main()
