"""Small CLIP models of every family of vision towers, as open_clip builds them.

``probe`` is SigLIP's: open_clip takes another tokenizer for models with its name.
"""

import copy
import json
import math
from functools import cache

import open_clip
import timm.models
import torch
from safetensors.torch import save_file
from timm.models.convnext import ConvNeXt
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

SIZES = dict(img_size=32, patch_size=8, embed_dim=48, depth=4, num_heads=3)


def eva02(**kwargs):
    kinds = dict(qkv_fused=False, mlp_ratio=8 / 3, swiglu_mlp=True, scale_mlp=True, scale_attn_inner=True)
    return Eva(**SIZES, **kinds, use_rot_pos_emb=True, ref_feat_shape=(4, 4), **kwargs)


def eva01(**kwargs):
    return Eva(**SIZES, init_values=0.1, **kwargs)


def eva_e(**kwargs):
    return Eva(**SIZES, use_post_norm=True, **kwargs)


def probe(**kwargs):
    return VisionTransformer(**SIZES, class_token=False, act_layer='gelu_tanh', **kwargs)


def convnext(**kwargs):
    model = ConvNeXt(depths=(1, 1, 2, 1), dims=(8, 12, 24, 40), **kwargs)
    model.default_cfg = dict(pool_size=(1, 1))
    return model


MODULES = {eva02: 'eva', eva01: 'eva', eva_e: 'eva', probe: 'vision_transformer', convnext: 'convnext'}
for make, module in MODULES.items():

    def entry(make=make, **kwargs):
        """Drop what timm passes to every model."""
        known = {key: value for key, value in kwargs.items() if not key.startswith(('pretrained', 'cache'))}
        return make(**known)

    entry.__name__, entry.__module__ = f'test_{make.__name__}', f'timm.models.{module}'
    if not timm.models.is_model(entry.__name__):
        timm.models.register_model(entry)

TEXT = dict(context_length=77, vocab_size=49408, width=32, heads=2, layers=1)
VISION = {
    'vit': dict(image_size=32, patch_size=8, width=48, head_width=16, layers=4),
    'eva02': dict(image_size=32, timm_model_name='test_eva02', timm_pool='token', timm_proj=None),
    'eva01': dict(image_size=32, timm_model_name='test_eva01', timm_pool='token', timm_proj=None),
    'eva_e': dict(image_size=32, timm_model_name='test_eva_e', timm_pool='token', timm_proj=None),
    'probe': dict(image_size=32, timm_model_name='test_probe', timm_pool='map', timm_proj='none'),
    'convnext': dict(image_size=64, timm_model_name='test_convnext', timm_pool='', timm_proj='mlp', timm_drop_path=0.1),
}
TOWERS = list(VISION)


def add_towers(folder):
    """Make ``small_vit`` and the others known to open_clip."""
    for name, vision in VISION.items():
        model = dict(embed_dim=48, vision_cfg=vision, text_cfg=TEXT)
        if name == 'probe':
            text = dict(TEXT, context_length=16, no_causal_mask=True, proj_bias=True, pool_type='last')
            model.update(custom_text=True, init_logit_bias=-10, text_cfg=text)
        elif name.startswith('eva'):
            model.update(custom_text=True)
        (folder / f'small_{name}.json').write_text(json.dumps(model))
    open_clip.add_model_config(folder)


@cache
def made_clip(name):
    """A model with random weights, of which every part matters."""
    clip = open_clip.create_model(f'small_{name}').eval()
    for param in clip.parameters():
        param.data += torch.randn_like(param) / math.sqrt(param.shape[-1] if param.dim() > 1 else 16)
    return clip


def saved_clip(name, path):
    """A copy of the model, and the file that holds its weights."""
    clip = copy.deepcopy(made_clip(name))
    save_file({key: value.contiguous() for key, value in clip.state_dict().items()}, path)
    return clip
