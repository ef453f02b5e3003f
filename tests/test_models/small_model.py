"""A small AlignZeg with random weights."""

import torch
from mmengine.config import Config
from mmseg.registry import MODELS

CLASSES = ['cat', 'dog', 'sky', 'grass']


def build(seed=0, **options):
    cfg = Config.fromfile('configs/alignzeg_patterns.py').model
    cfg.update(classes=CLASSES, unseen_classes=['dog'], text=dict(templates='single'))
    cfg.criterion.num_points = 256
    cfg.clip.pretrained = None
    cfg.decode_head.num_queries = options.pop('num_queries', 8)
    cfg.class_indicator.top_k = 4
    cfg.update(options)
    torch.manual_seed(seed)
    return MODELS.build(cfg)
