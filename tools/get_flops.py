"""Count parameters and FLOPs of a config's model: for one prediction by stage, and for encoding its vocabulary once.

Weights are random and nothing is downloaded, because counts do not depend on weights. One FLOP is a multiplication or
an addition; many papers, and mmseg's own tool, count such a pair as one, so their figures are half as large.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
import warnings
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from rich.console import Console
from rich.table import Table
from torch import nn

from alignzeg.benchmark.flops import Complexity, measure
from alignzeg.cli.options import positive
from mmseg_alignzeg.models import AlignZeg


def build(config: Path, classes: int | None) -> tuple[nn.Module, tuple[int, int]]:
    """Build the model of a config with random weights; return it with the size of its images.

    Raises:
        ValueError: If the config has no model, or its model does not support another number of classes.
    """
    cfg = Config.fromfile(config)
    if 'model' not in cfg:
        raise ValueError(f'{config} has no `model`: give the config of a segmentor.')
    init_default_scope('mmseg')
    cfg.model.pretrained = None
    if 'clip' in cfg.model:
        cfg.model.clip.pretrained = None
    text_encoder = cfg.model.get('text_encoder')
    if classes is not None and text_encoder is not None:
        text_encoder.update(dataset_name=None, vocabulary=invented(classes))
    model = MODELS.build(cfg.model)
    if classes is not None and isinstance(model, AlignZeg):
        model.set_test_classes((*model.question.classes, *invented(classes))[:classes])
    elif classes is not None and text_encoder is None:
        raise ValueError(f'--classes {classes}: {config} has a fixed number of classes; do not pass the option.')
    size = (cfg.model.get('data_preprocessor') or {}).get('size') or cfg.get('crop_size') or (640, 640)
    return model, (size[0], size[1])


def invented(count: int) -> list[str]:
    """Return distinct class names."""
    return [f'object {i}' for i in range(count)]


def as_json(complexity: Complexity) -> str:
    """Format all figures as JSON: numbers of parameters and FLOPs, not millions."""
    return json.dumps({**dataclasses.asdict(complexity), 'image': complexity.image}, indent=2)


def as_table(complexity: Complexity, title: str) -> Table:
    """Format the figures as a table."""
    parameters = complexity.parameters
    table = Table('', 'GFLOPs', 'share', title=title)
    for column in table.columns[1:]:
        column.justify = 'right'
    for stage, flops in complexity.stages.items():
        table.add_row(stage, f'{flops / 1e9:,.3f}', f'{flops / complexity.image:.1%}')
    table.add_section()
    table.add_row('one prediction', f'{complexity.image / 1e9:,.3f}', '', style='bold')
    if complexity.text is not None:
        table.add_row(f'text tower, once for {complexity.classes} classes', f'{complexity.text / 1e9:,.3f}', '')
    table.add_section()
    table.add_row('', 'M parameters', '')
    for label, count in (
        ('trained', parameters.trained),
        ('frozen', parameters.frozen),
        ('text tower', parameters.text_tower),
    ):
        table.add_row(label, f'{count / 1e6:,.3f}', '')
    return table


def main() -> None:
    """Count and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', type=Path, help='a config of this package or of mmseg (such as SAN)')
    parser.add_argument('--shape', type=positive, nargs=2, metavar=('H', 'W'), help='default: crop size in training')
    parser.add_argument('--classes', type=positive, help='number of classes (default: those of the config)')
    parser.add_argument('--json', action='store_true', help='print JSON instead of a table')
    args = parser.parse_args()
    if not args.config.is_file():
        parser.error(f'no config {args.config}: give the path of a .py file')
    logging.disable(logging.WARNING)  # open_clip warns about random weights, which are intended here,
    warnings.filterwarnings('ignore', module='mm(seg|cv)')  # and these two about their own code
    try:
        model, shape = build(args.config, args.classes)
    except ValueError as error:
        sys.exit(str(error))
    complexity = measure(model, tuple(args.shape or shape))
    if args.json:
        print(as_json(complexity))
    else:
        Console().print(
            as_table(complexity, f'{args.config.stem}, {complexity.shape[0]} × {complexity.shape[1]} pixels')
        )


if __name__ == '__main__':
    main()
