"""Build AlignZeg and mmseg's SAN with random weights: for their speed, not for their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mmseg
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor, nn

import mmseg_alignzeg  # noqa: F401  (SAN needs the placeholder for compiled operators too)

from ..shipped import shipped
from .rows import Row

SAN = Path(mmseg.__file__).parent / '.mim/configs/san'
CONFIGS = {
    ('alignzeg', 'b16'): 'configs/alignzeg_coco.py',
    ('alignzeg', 'l14'): 'configs/alignzeg_coco.py',
    ('alignzeg', 'tiny'): 'configs/alignzeg_patterns.py',
    ('san', 'b16'): str(SAN / 'san-vit-b16_coco-stuff164k-640x640.py'),
    ('san', 'l14'): str(SAN / 'san-vit-l14_coco-stuff164k-640x640.py'),
    ('san', 'tiny'): 'configs/peers/training/san_patterns.py',
}
# Split and input size of CLIP ViT-L/14 as in mmseg's SAN: 448² for 640², and the last 6 of 24 layers.
VIT_L = dict(model_name='ViT-L-14-336-quickgelu', tap_layer=12, tail_layers=6, scale_factor=0.7)
ENCODERS = {
    'alignzeg': ('clip', 'image_encoder'),
    'san': ('image_encoder', 'decode_head.side_adapter_network', 'decode_head.rec_with_attnbias'),
}
WINDOWS = dict(mode='slide', crop_size=(640, 640), stride=(480, 480))


def load(name: str, row: Row, weights: str | None = None) -> Config:
    """Return the config of a model for a row.

    Args:
        name: 'alignzeg' or 'san'.
        row: The row.
        weights: A CLIP file for AlignZeg, or None for random weights.
    """
    init_default_scope('mmseg')
    cfg = Config.fromfile(shipped(CONFIGS[name, row.backbone]))
    model = cfg.model
    if row.windows:
        model.test_cfg = WINDOWS
    if name == 'san':
        model.pretrained = None
        if row.backbone != 'tiny':
            model.decode_head.num_classes = row.classes
            model.decode_head.loss_decode[0].class_weight = [1.0] * row.classes + [0.1]
        return cfg
    model.clip.pretrained = weights
    if row.backbone == 'tiny':
        return cfg
    model.unseen_classes = []
    if row.classes != len(model.classes):
        model.classes = [f'class {i}' for i in range(row.classes)]
    model.clip.num_prompts = row.prompts
    if row.backbone == 'l14':
        model.clip.update(VIT_L)
        model.decode_head.bias_heads = 16
    return cfg


def build(name: str, row: Row, weights: str | None = None, text: bool = False) -> tuple[Any, Config]:
    """Build a model; return it with its config.

    Args:
        name: 'alignzeg' or 'san'.
        row: The row.
        weights: See :func:`load`.
        text: Whether the model encodes its class names. By default their embeddings are random and ready, as after a
            first prediction.
    """
    cfg = load(name, row, weights)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    if name == 'san':
        _fill(model)
    if name == 'san' and row.backbone != 'tiny' and not text:
        encoder = model.text_encoder
        names = [f'class {i}' for i in range(row.classes)]
        encoder.dataset_name, encoder.vocabulary = None, names
        encoder.cache = dict(zip(names, _unit_rows(row.classes, encoder.text_projection.shape[1]), strict=True))
    if name == 'alignzeg' and not text:
        bank = ReadyBank(model.clip.embed_dim)
        model.text_bank = bank
        model.question = replace(model.question, text_bank=bank)
    if row.precision == 'compile':
        for part in ENCODERS[name]:
            model.get_submodule(part).compile()
    return model, cfg


class ReadyBank:
    """Random embeddings in place of :class:`~mmseg_alignzeg.models.text_bank.TextBank`.

    Args:
        width: D of the CLIP model.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._embeds: dict[tuple[int, str], Tensor] = {}

    def __call__(self, classes: Sequence[str], device: torch.device | str = 'cpu') -> Tensor:
        """Return (C, 1, D) float32 unit vectors on ``device``."""
        key = len(classes), str(device)
        if key not in self._embeds:
            self._embeds[key] = _unit_rows(len(classes), self.width)[:, None].to(device)
        return self._embeds[key]


def _unit_rows(count: int, width: int) -> Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(0)), dim=-1)


def _fill(model: nn.Module) -> None:
    """Fill the weights of SAN: without its checkpoint, some are uninitialised memory."""
    for param in model.parameters():
        if param.ndim > 1:
            nn.init.normal_(param, std=0.02)


def write_random_clip(path: Path) -> None:
    """Write a CLIP file in open_clip's format, so that loading weights is part of a first prediction."""
    import open_clip
    from safetensors.torch import save_file

    clip = open_clip.create_model('ViT-B-16-quickgelu')
    save_file({name: value.contiguous() for name, value in clip.state_dict().items()}, path)
