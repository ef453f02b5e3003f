"""Names of CLIP's weights: conversion of ``transformers``' and mmseg's names to open_clip's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

State = dict[str, Tensor]
Rules = Sequence[tuple[str, str]]

# Attributes that some writers store beside the weights; none is learned.
IGNORED = ('input_resolution', 'context_length', 'vocab_size', 'attn_mask', 'position_ids', 'bg_embed')

OPEN_CLIP_BLOCK: Rules = (
    (r'\.layer_norm(\d)\.', r'.ln_\1.'),
    (r'\.self_attn\.', '.attn.'),
    (r'\.fc1\.', '.c_fc.'),
    (r'\.fc2\.', '.c_proj.'),
)
TIMM_BLOCK: Rules = ((r'\.layer_norm(\d)\.', r'.norm\1.'), (r'\.self_attn\.', '.attn.'), (r'\.out_proj\.', '.proj.'))

CLIP_RULES: Rules = (
    *OPEN_CLIP_BLOCK,
    (r'^vision_model\.embeddings\.patch_embedding', 'visual.conv1'),
    (r'^vision_model\.embeddings\.position_embedding\.weight', 'visual.positional_embedding'),
    (r'^vision_model\.embeddings\.', 'visual.'),
    (r'^vision_model\.pre_layrnorm', 'visual.ln_pre'),
    (r'^vision_model\.post_layernorm', 'visual.ln_post'),
    (r'^vision_model\.encoder\.layers', 'visual.transformer.resblocks'),
    (r'^visual_projection\.weight', 'visual.proj'),
    (r'^text_model\.embeddings\.position_embedding\.weight', 'positional_embedding'),
    (r'^text_model\.embeddings\.', ''),
    (r'^text_model\.encoder\.layers', 'transformer.resblocks'),
    (r'^text_model\.final_layer_norm', 'ln_final'),
    (r'^text_projection\.weight', 'text_projection'),
)

SIGLIP_VISION: Rules = (
    *TIMM_BLOCK,
    (r'^vision_model\.embeddings\.patch_embedding', 'visual.trunk.patch_embed.proj'),
    (r'^vision_model\.embeddings\.position_embedding\.weight', 'visual.trunk.pos_embed'),
    (r'^vision_model\.encoder\.layers', 'visual.trunk.blocks'),
    (r'^vision_model\.post_layernorm', 'visual.trunk.norm'),
    (r'^vision_model\.head\.probe', 'visual.trunk.attn_pool.latent'),
    (r'^vision_model\.head\.attention', 'visual.trunk.attn_pool'),
    (r'^vision_model\.head\.layernorm', 'visual.trunk.attn_pool.norm'),
    (r'^vision_model\.head\.', 'visual.trunk.attn_pool.'),
)

SIGLIP_TEXT: Rules = (
    *OPEN_CLIP_BLOCK,
    (r'^text_model\.embeddings\.position_embedding\.weight', 'text.positional_embedding'),
    (r'^text_model\.embeddings\.', 'text.'),
    (r'^text_model\.encoder\.layers', 'text.transformer.resblocks'),
    (r'^text_model\.final_layer_norm', 'text.ln_final'),
    (r'^text_model\.head', 'text.text_projection'),
)

MMSEG_RULES: Rules = (
    (r'\.(?:ln|norms\.)(?=\d\.)', '.ln_'),
    (r'\.(?:attn\.attn|attentions\.0\.attn)\.', '.attn.'),
    (r'\.(?:ffn|ffns\.0)\.layers\.0\.0\.', '.mlp.c_fc.'),
    (r'\.(?:ffn|ffns\.0)\.layers\.1\.', '.mlp.c_proj.'),
    (r'^image_encoder\.cls_token', 'visual.class_embedding'),
    (r'^image_encoder\.pos_embed', 'visual.positional_embedding'),
    (r'^image_encoder\.patch_embed\.projection', 'visual.conv1'),
    (r'^image_encoder\.layers', 'visual.transformer.resblocks'),
    (r'^image_encoder\.', 'visual.'),
    (r'^decode_head\.rec_with_attnbias\.layers', 'visual.transformer.resblocks'),
    (r'^decode_head\.rec_with_attnbias\.proj\.weight', 'visual.proj'),
    (r'^decode_head\.rec_with_attnbias\.', 'visual.'),
    (r'^text_encoder\.transformer\.', 'transformer.resblocks.'),
    (r'^text_encoder\.', ''),
)


def to_open_clip(state: Mapping[str, Tensor]) -> tuple[State, str]:
    """Convert a state dict of CLIP to open_clip's names and shapes.

    Args:
        state: Weights with the names of open_clip (or OpenAI), of ``transformers``' CLIP or SigLIP, or of mmseg's
            ``clip2mmseg.py``.

    Returns:
        The converted weights, with their values unchanged, and the name of the format.

    Raises:
        ValueError: If the names are none of these.
    """
    state = {name: value for name, value in state.items() if name.split('.')[-1] not in IGNORED}
    name, convert = _format(state)
    try:
        state = convert(state)
        state['logit_scale'] = state['logit_scale'].reshape(())
    except (KeyError, RuntimeError) as error:
        raise ValueError(f'weights are missing or have wrong shapes ({type(error).__name__}: {error})') from None
    if 'logit_bias' in state:
        state['logit_bias'] = state['logit_bias'].reshape(())
    return state, name


def _format(state: State) -> tuple[str, Callable[[State], State]]:
    if 'vision_model.head.probe' in state:
        return 'transformers SigLIP', _siglip
    if 'vision_model.embeddings.class_embedding' in state:
        return 'transformers CLIP', _clip
    if 'image_encoder.cls_token' in state:
        return 'mmseg CLIP', _mmseg
    if 'logit_scale' in state and any(name.startswith('visual.') for name in state):
        return 'open_clip', dict
    missing = 'logit_scale' if 'logit_scale' not in state else 'visual.…'
    raise ValueError(f'it has no `{missing}`; its first weight is {next(iter(state), "none")[:80]!r}')


def _renamed(state: Mapping[str, Tensor], rules: Rules) -> State:
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def _joined(state: Mapping[str, Tensor], joint: str) -> State:
    """Join the weights of query, key and value of each layer under the name ``joint``, with _ or . before the kind."""
    joined = {}
    for name, value in state.items():
        layer, found, kind = name.partition('.q_proj.')
        if found:
            parts = [state[f'{layer}.{part}_proj.{kind}'] for part in 'qkv']
            joined[f'{layer}.{joint}{kind}'] = torch.cat(parts)
        elif not re.search(r'\.[kv]_proj\.', name):
            joined[name] = value
    return joined


def _clip(state: State) -> State:
    state = _joined(_renamed(state, CLIP_RULES), 'in_proj_')
    for name in ('visual.proj', 'text_projection'):
        state[name] = state[name].t().contiguous()
    return state


def _siglip(state: State) -> State:
    vision = {name: value for name, value in state.items() if name.startswith('vision_model.')}
    rest = {name: value for name, value in state.items() if name not in vision}
    vision = _joined(_renamed(vision, SIGLIP_VISION), 'qkv.')
    vision['visual.trunk.pos_embed'] = vision['visual.trunk.pos_embed'][None]
    pool = 'visual.trunk.attn_pool.'
    for kind in ('weight', 'bias'):
        joint = vision.pop(f'{pool}in_proj_{kind}')  # (3·D, …)
        width = len(joint) // 3
        vision[f'{pool}q.{kind}'], vision[f'{pool}kv.{kind}'] = joint[:width].clone(), joint[width:].clone()
    return vision | _joined(_renamed(rest, SIGLIP_TEXT), 'in_proj_')


def _mmseg(state: State) -> State:
    first = 1 + max((int(name.split('.')[2]) for name in state if name.startswith('image_encoder.layers.')), default=-1)
    shifted = {}
    for name, value in state.items():
        tail = re.fullmatch(r'(decode_head\.rec_with_attnbias\.layers\.)(\d+)(\..+)', name)
        name = f'{tail[1]}{int(tail[2]) + first}{tail[3]}' if tail else name
        # The image encoder counts its norms from 1, the other parts from 0.
        name = re.sub(r'\.norms\.(\d)\.', lambda found: f'.norms.{int(found[1]) + 1}.', name)
        shifted[name] = value
    state = _renamed(shifted, MMSEG_RULES)
    state['visual.class_embedding'] = state['visual.class_embedding'].flatten()
    state['visual.positional_embedding'] = state['visual.positional_embedding'].flatten(0, 1)
    state['visual.proj'] = state['visual.proj'].t().contiguous()
    return state
