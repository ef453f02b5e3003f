"""CLIP's vision towers, one file per family, behind one interface: :class:`CLIPTower`."""

from __future__ import annotations

from typing import Any

from ..clip_source import CLIPSource
from .attention_pool import AttentionPoolTower
from .base import CLIPStream, CLIPTower
from .convnext import ConvNeXtTower
from .rotary import RotaryTower
from .statistics import with_statistics
from .vit import ViTTower

FAMILIES: tuple[type[CLIPTower], ...] = (ViTTower, RotaryTower, AttentionPoolTower, ConvNeXtTower)

__all__ = ['CLIPStream', 'CLIPTower', 'build_tower', 'with_statistics']


def build_tower(source: CLIPSource, **settings: Any) -> CLIPTower:
    """Build the vision tower of a CLIP model.

    Args:
        source: The CLIP model.
        **settings: Arguments of the family, such as ``tap_layer``; see :class:`TransformerTower`.

    Raises:
        ValueError: If no family fits the architecture; it is raised before weights are downloaded or read.
    """
    for family in FAMILIES:
        if family.fits(source.architecture['vision_cfg']):
            return family(source, *source.load_vision(), **settings)
    raise ValueError(
        f'The vision tower of {source.model_name} is not supported; supported are a plain ViT (ViT-B-16), EVA-CLIP '
        '(EVA02-L-14), SigLIP (ViT-B-16-SigLIP2) and ConvNeXt (convnext_large_d_320).'
    )
