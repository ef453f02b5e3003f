"""Weight files of other projects against open_clip's and transformers' own models and converters."""

import hashlib
import json
import runpy
from pathlib import Path

import mmseg
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from small_clip import randomised, same, small_clip
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer

from mmseg_alignzeg.models import CLIPSource
from mmseg_alignzeg.models.clip_source import ASSETS
from mmseg_alignzeg.models.clip_weights import digest, read_clip, weights_digest

SIGLIP = dict(
    embed_dim=192,
    init_logit_bias=-10,
    vision_cfg=dict(image_size=32, timm_model_name='vit_tiny_patch16_siglip_small', timm_pool='map', timm_proj='none'),
    text_cfg=dict(
        context_length=8, vocab_size=50, width=192, heads=3, layers=2, no_causal_mask=True, proj_bias=True,
        pool_type='last', norm_kwargs=dict(eps=1e-6), act_kwargs=dict(approximate='tanh'),
    ),
)  # fmt: skip


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    return small_clip(tmp_path_factory.mktemp('configs'))


# ------------------------------------------------------------------ transformers


def hf_layers(prefix, state, ours):
    """Weights of `transformers` for the layers under `ours` in an open_clip state dict."""
    names = {'ln_1': 'layer_norm1', 'ln_2': 'layer_norm2', 'attn.out_proj': 'self_attn.out_proj'}
    names |= {'mlp.c_fc': 'mlp.fc1', 'mlp.c_proj': 'mlp.fc2'}
    for i in range(1 + max(int(name[len(ours) + 1 :].split('.')[0]) for name in state if name.startswith(ours))):
        for kind in ('weight', 'bias'):
            for name, theirs in names.items():
                yield f'{prefix}.{i}.{theirs}.{kind}', state[f'{ours}.{i}.{name}.{kind}']
            thirds = state[f'{ours}.{i}.attn.in_proj_{kind}'].chunk(3)
            yield from ((f'{prefix}.{i}.self_attn.{x}_proj.{kind}', t) for x, t in zip('qkv', thirds, strict=True))


def hf_clip(state):
    single = {
        'vision_model.embeddings.class_embedding': 'visual.class_embedding',
        'vision_model.embeddings.patch_embedding.weight': 'visual.conv1.weight',
        'vision_model.embeddings.position_embedding.weight': 'visual.positional_embedding',
        'text_model.embeddings.token_embedding.weight': 'token_embedding.weight',
        'text_model.embeddings.position_embedding.weight': 'positional_embedding',
        'logit_scale': 'logit_scale',
    }
    pairs = {'vision_model.pre_layrnorm': 'visual.ln_pre', 'vision_model.post_layernorm': 'visual.ln_post'}
    pairs['text_model.final_layer_norm'] = 'ln_final'
    single |= {f'{a}.{kind}': f'{b}.{kind}' for a, b in pairs.items() for kind in ('weight', 'bias')}
    return {
        **{theirs: state[ours] for theirs, ours in single.items()},
        **dict(hf_layers('vision_model.encoder.layers', state, 'visual.transformer.resblocks')),
        **dict(hf_layers('text_model.encoder.layers', state, 'transformer.resblocks')),
        'visual_projection.weight': state['visual.proj'].t(),
        'text_projection.weight': state['text_projection'].t(),
        'vision_model.embeddings.position_ids': torch.arange(17)[None],
    }


def hf_folder(state, folder, parts=1, **vision):
    folder.mkdir(parents=True)
    state = {name: value.clone().contiguous() for name, value in hf_clip(state).items()}
    (folder / 'config.json').write_text(json.dumps(dict(model_type='clip', vision_config=vision)))
    if parts == 1:
        save_file(state, folder / 'model.safetensors')
        return folder
    weight_map = {name: f'model-{i % parts}.safetensors' for i, name in enumerate(state)}
    for file in set(weight_map.values()):
        save_file({name: value for name, value in state.items() if weight_map[name] == file}, folder / file)
    (folder / 'model.safetensors.index.json').write_text(json.dumps(dict(metadata={}, weight_map=weight_map)))
    return folder


@pytest.mark.parametrize('parts', [1, 3])
def test_a_transformers_folder_in_one_or_more_parts(small, tmp_path, parts):
    weights = read_clip(hf_folder(small.state_dict(), tmp_path / 'clip', parts))
    assert (weights.format, weights.quick_gelu) == ('transformers CLIP', True)
    same(weights.state, small.state_dict())
    images, tokens = torch.randn(2, 3, 32, 32), torch.randint(0, 50, (2, 9))
    source = CLIPSource('small', f'{tmp_path}/clip')
    torch.testing.assert_close(source.load_vision()[0](images), small.encode_image(images))
    torch.testing.assert_close(source.load_full().encode_text(tokens), small.encode_text(tokens))


def test_the_activation_of_a_transformers_folder_must_fit(small, tmp_path):
    folder = hf_folder(small.state_dict(), tmp_path / 'clip', hidden_act='gelu')
    with pytest.raises(ValueError, match='trained without QuickGELU, but the architecture has QuickGELU'):
        CLIPSource('small', str(folder)).load_full()
    CLIPSource('small-gelu', str(folder)).load_full()


def test_missing_parts(small, tmp_path):
    folder = hf_folder(small.state_dict(), tmp_path / 'clip', 2)
    (folder / 'model-1.safetensors').unlink()
    with pytest.raises(FileNotFoundError, match=r"'model-1\.safetensors', which does not exist"):
        read_clip(folder)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='expected one of open_clip_model'):
        read_clip(tmp_path / 'empty')


def test_transformers_own_clip(tmp_path, small):
    transformers = pytest.importorskip('transformers')
    text = dict(vocab_size=50, hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=1)
    text |= dict(max_position_embeddings=9, projection_dim=32, eos_token_id=49, bos_token_id=48, pad_token_id=0)
    vision = dict(hidden_size=64, intermediate_size=256, num_hidden_layers=3, num_attention_heads=1, image_size=32)
    vision |= dict(patch_size=8, projection_dim=32)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)
    theirs = randomised(transformers.CLIPModel(config))
    theirs.save_pretrained(tmp_path)
    source = CLIPSource('small', f'{tmp_path}/')
    compare(theirs, source.load_full(), torch.randint(1, 48, (2, 9)).index_fill(1, torch.tensor([8]), 49))
    assert read_clip(tmp_path).quick_gelu is True


def test_transformers_own_siglip(tmp_path, small_siglip):
    transformers = pytest.importorskip('transformers')
    shared = dict(hidden_size=192, intermediate_size=768, num_hidden_layers=2, num_attention_heads=3)
    text = dict(vocab_size=50, max_position_embeddings=8, projection_size=192, **shared)
    vision = dict(image_size=32, patch_size=16, **shared)
    config = transformers.SiglipConfig(text_config=text, vision_config=vision)
    theirs = randomised(transformers.SiglipModel(config))
    theirs.save_pretrained(tmp_path)
    weights = read_clip(tmp_path)
    assert (weights.format, weights.quick_gelu) == ('transformers SigLIP', False)
    small_siglip.load_state_dict(weights.state)
    compare(theirs, small_siglip, torch.randint(0, 50, (2, 8)))


def compare(theirs, ours, tokens):
    images = torch.randn(2, 3, 32, 32)
    pooled = [theirs.get_image_features(images), theirs.get_text_features(tokens)]
    pooled = [getattr(found, 'pooler_output', found) for found in pooled]
    for found, expected in zip((ours.encode_image(images), ours.encode_text(tokens)), pooled, strict=True):
        assert expected.std() > 0.01
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@register_model
def vit_tiny_patch16_siglip_small(pretrained=False, **kwargs):
    """SigLIP's vision tower with two layers, for timm's registry."""
    args = dict(img_size=32, patch_size=16, embed_dim=192, depth=2, num_heads=3, class_token=False, global_pool='map')
    return VisionTransformer(**args, act_layer='gelu_tanh', num_classes=kwargs['num_classes'])


@pytest.fixture
def small_siglip():
    return open_clip.CustomTextCLIP(**SIGLIP).eval()


# ------------------------------------------------------------------ mmseg


@pytest.mark.parametrize('split', [0, 2, 3])
def test_mmsegs_converter_is_inverted(small, tmp_path, split):
    converter = runpy.run_path(str(Path(mmseg.__file__).parent / '.mim/tools/model_converters/clip2mmseg.py'))
    state = converter['convert_tensor'](converter['convert_key_name'](small.state_dict(), split))
    torch.save(state, tmp_path / 'clip.pth')
    weights = read_clip(tmp_path / 'clip.pth')
    assert (weights.format, weights.quick_gelu) == ('mmseg CLIP', None)
    same(weights.state, small.state_dict())


# ------------------------------------------------------------------ identity


def test_a_tower_is_the_same_in_every_container(small, tmp_path):
    state = {name: value.half() for name, value in small.state_dict().items()}  # values that both precisions have
    full = {name: value.float() for name, value in reversed(state.items())}
    save_file(state, tmp_path / 'half.safetensors')
    torch.save({'state_dict': {f'module.{name}': value for name, value in full.items()}}, tmp_path / 'full.pt')
    hf_folder(full, tmp_path / 'clip')
    torch.save(state | {'logit_scale': state['logit_scale'][None]}, tmp_path / 'vector.bin')
    names = ('half.safetensors', 'full.pt', 'clip', 'vector.bin')
    found = {CLIPSource('small', f'{tmp_path}/{name}').identity for name in names}
    assert found == {f'small:{digest(full)}'}
    changed = {**full, 'visual.proj': full['visual.proj'].nextafter(torch.tensor(9.0))}
    exchanged = {
        **full,
        'visual.ln_pre.bias': full['visual.ln_post.bias'],
        'visual.ln_post.bias': full['visual.ln_pre.bias'],
    }
    assert len({digest(full), digest(changed), digest(exchanged)}) == 3


def test_the_identity_of_a_large_file_is_kept_until_the_file_changes(small, tmp_path, monkeypatch):
    from mmseg_alignzeg.models import clip_weights

    path, read = tmp_path / 'clip.safetensors', []
    save_file(small.state_dict(), path)
    monkeypatch.setattr(clip_weights, 'SLOW', 1)
    monkeypatch.setattr(clip_weights, 'read_clip', lambda path: read.append(path) or read_clip(path))
    first = weights_digest(path)
    assert weights_digest(path) == first and len(read) == 1
    save_file({**small.state_dict(), 'logit_scale': torch.tensor(3.0)}, path)
    assert weights_digest(path) != first and len(read) == 2
    monkeypatch.setenv('MMSEG_ALIGNZEG_CACHE', str(path / 'nowhere'))
    assert weights_digest(path) != first


def test_the_digest_of_the_file_is_accepted_as_in_old_checkpoints():
    source = CLIPSource('tiny_clip', 'embedded')
    content = (ASSETS / 'tiny_clip/tiny_clip.safetensors').read_bytes()
    old = f'tiny_clip:{hashlib.sha256(content).hexdigest()[:16]}'
    assert source.identity != old and source.identity_as(old) == old
    for other in (source.identity, 'tiny_clip:0123456789abcdef', old.replace('tiny', 'other'), None, 5):
        assert source.identity_as(other) == source.identity
