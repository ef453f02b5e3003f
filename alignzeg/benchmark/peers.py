"""Components to run mmseg's SAN in the embedded world: conversion of CLIP's weights, and class embeddings."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmseg
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_alignzeg.models import CLIPSource, TextBank


@MODELS.register_module()
class TextBankEncoder(BaseModule):
    """Replacement of mmseg's ``CLIPTextEncoder``: the same interface, with the embeddings of :class:`TextBank`.

    mmseg's encoder always uses QuickGELU, but the embedded CLIP was trained without it.

    Args:
        vocabulary: C class names, in label order.
        model_name: See :class:`CLIPSource`.
        weights: ``pretrained`` of :class:`CLIPSource`.
        templates: Name of the prompt template set.
        init_cfg: MMEngine's initialisation config. mmseg's segmentor sets it to its own weights; it is ignored.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        model_name: str,
        weights: str | None,
        templates: str = 'vild',
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        source = CLIPSource(model_name, weights)
        visual, self.logit_scale = source.load_vision()
        width = int(visual.output_dim)  # type: ignore[arg-type]
        self.bank = TextBank(source, templates)
        self.vocabulary = tuple(vocabulary)
        self.bg_embed = nn.Parameter(torch.empty(1, width))
        nn.init.normal_(self.bg_embed, std=width**-0.5)  # as in mmseg

    def forward(self) -> Tensor:
        """Return (C + 1, D): unit rows of the classes and the background, times τ."""
        embeds = self.bank(self.vocabulary, self.bg_embed.device)[:, 0]
        return self.logit_scale * F.normalize(torch.cat([embeds, self.bg_embed]), dim=-1)


def san_state_dict(source: CLIPSource, split: int) -> dict[str, Tensor]:
    """Return CLIP's vision weights with the names of mmseg's SAN, converted by mmseg's ``clip2mmseg.py``.

    Args:
        source: A CLIP whose vision tower is an open_clip ViT.
        split: Number of layers of the image encoder; the rest belongs to ``decode_head.rec_with_attnbias``.
    """
    converter = runpy.run_path(str(Path(mmseg.__file__).parent / '.mim/tools/model_converters/clip2mmseg.py'))
    visual = {f'visual.{name}': value for name, value in source.load_vision()[0].state_dict().items()}
    return dict(converter['convert_tensor'](converter['convert_key_name'](visual, split)))
