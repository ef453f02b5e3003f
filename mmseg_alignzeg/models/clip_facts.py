"""What the weights of a CLIP model say about its architecture, from their names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

import open_clip
import torch
from open_clip.model import convert_to_custom_text_state_dict
from torch import Tensor

from .clip_source import untrained


@dataclass(frozen=True)
class Tower:
    """Sizes of a tower; None where the weights do not say.

    Attributes:
        kind: ``'ViT'``, ``'timm'`` or another kind of vision tower; ``'text'`` or ``'none'``.
        layers: Number of transformer blocks.
        width: Channels of a token.
        parameters: Number of parameters.
        patch: Pixels of a patch's side (vision).
        image_size: Pixels of an image's side (vision).
        context: Tokens of a prompt (text).
        vocabulary: Number of known tokens (text).
    """

    kind: str
    layers: int | None
    width: int | None
    parameters: int
    patch: int | None = None
    image_size: int | None = None
    context: int | None = None
    vocabulary: int | None = None


def vision_tower(state: Mapping[str, Tensor]) -> Tower:
    """Return the sizes of the vision tower in weights with open_clip's names."""
    own = {name: value for name, value in state.items() if name.startswith('visual.')}
    parameters = sum(value.numel() for value in own.values())
    trunk = any(name.startswith('visual.trunk.') for name in own)
    embed = own.get('visual.trunk.patch_embed.proj.weight' if trunk else 'visual.conv1.weight')
    positions = own.get('visual.trunk.pos_embed' if trunk else 'visual.positional_embedding')
    if embed is None or positions is None:
        return Tower('ConvNeXt or another timm tower' if trunk else 'ResNet or another tower', None, None, parameters)
    layers = _count(own, r'visual\.(?:trunk\.blocks|transformer\.resblocks)\.(\d+)\.')
    patch, cells = embed.shape[-1], isqrt(positions.shape[-2])  # [CLS] does not change the root
    kind = 'timm ViT' if trunk else 'ViT'
    return Tower(kind, layers, embed.shape[0], parameters, patch=patch, image_size=patch * cells)


def text_tower(state: Mapping[str, Tensor]) -> Tower:
    """Return the sizes of the text tower in weights with open_clip's names."""
    own = {name.removeprefix('text.'): value for name, value in state.items() if not name.startswith('visual.')}
    own = {name: value for name, value in own.items() if name not in ('logit_scale', 'logit_bias')}
    parameters = sum(value.numel() for value in own.values())
    embed, positions = own.get('token_embedding.weight'), own.get('positional_embedding')
    if embed is None or positions is None:
        return Tower('another text tower' if own else 'none', None, None, parameters)
    layers = _count(own, r'transformer\.resblocks\.(\d+)\.')
    context, (vocabulary, width) = positions.shape[0], embed.shape
    return Tower('text', layers, width, parameters, context=context, vocabulary=vocabulary)


def joint_dimension(state: Mapping[str, Tensor]) -> int | None:
    """Return D, the dimension in which images and texts are compared; None if it cannot be told."""
    for name in ('visual.proj', 'text_projection', 'text.text_projection'):
        if name in state:
            return state[name].shape[1]
    bias = state.get('text.text_projection.bias')
    return None if bias is None else len(bias)


def fitting_models(state: Mapping[str, Tensor], quick_gelu: bool | None = None) -> list[str]:
    """Return the architectures of open_clip with exactly these names and shapes.

    Args:
        state: Weights with open_clip's names and shapes.
        quick_gelu: Whether the weights were trained with QuickGELU; None if unknown, which admits both.
    """
    found = []
    for name in open_clip.list_models():
        cfg = open_clip.get_model_config(name)
        if not _may_fit(cfg, state) or quick_gelu not in (None, bool(cfg.get('quick_gelu', False))):
            continue
        try:
            with torch.device('meta'):
                model = untrained(name)
        except Exception:  # an architecture that these versions of timm and open_clip cannot build
            continue
        given = state if isinstance(model, open_clip.CLIP) else convert_to_custom_text_state_dict(dict(state))
        if _shapes(given) == _shapes(model.state_dict()):
            found.append(name)
    return found


def _may_fit(cfg: Mapping[str, Any], state: Mapping[str, Tensor]) -> bool:
    """Return whether the sizes in an architecture's configuration agree with the weights: building it takes longer."""
    image, text = vision_tower(state), text_tower(state)
    theirs, words = cfg['vision_cfg'], cfg['text_cfg']
    if 'hf_model_name' in words or 'multimodal_cfg' in cfg or cfg['embed_dim'] != joint_dimension(state):
        return False
    sizes = (words['width'], words['layers'], words.get('context_length', 77), words.get('vocab_size', 49408))
    if sizes != (text.width, text.layers, text.context, text.vocabulary):
        return False
    if image.image_size not in (None, theirs.get('image_size')):
        return False
    if image.kind == 'ViT':
        vision = (theirs.get('width'), theirs.get('layers'), theirs.get('patch_size'))
        return vision == (image.width, image.layers, image.patch)
    return ('timm_model_name' in theirs) == any(name.startswith('visual.trunk.') for name in state)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    scalars = ('logit_scale', 'logit_bias')
    return {name: () if name in scalars else tuple(value.shape) for name, value in state.items()}


def _count(names: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max((int(found[1]) for found in map(re.compile(pattern).match, names) if found), default=-1)
