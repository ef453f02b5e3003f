"""Vision towers against open_clip and timm: the feature of a whole image, and reading with a bias by other means."""

import open_clip
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from tower_worlds import TOWERS, add_towers, saved_clip

from mmseg_alignzeg.models import CLIPSource, build_tower
from mmseg_alignzeg.models.text_bank import encode_tokens, ignores_padding
from mmseg_alignzeg.models.towers import CLIPStream

TRANSFORMERS = [name for name in TOWERS if name != 'convnext']
CLOSE = dict(rtol=1e-4, atol=1e-5)


@pytest.fixture(scope='module', autouse=True)
def _small_towers(tmp_path_factory):
    add_towers(tmp_path_factory.mktemp('towers'))


@pytest.fixture(params=TOWERS)
def name(request):
    return request.param


@pytest.fixture
def world(name, tmp_path):
    """open_clip's model, the tower from its file, and images of its size."""
    clip = saved_clip(name, tmp_path / 'clip.safetensors')
    source = CLIPSource(f'small_{name}', str(tmp_path / 'clip.safetensors'))
    return clip, build_tower(source, scale_factor=1), torch.randn(2, 3, *clip.visual.image_size)


@torch.no_grad()
def test_zero_bias_is_encode_image(world):
    clip, tower, images = world
    stream = tower(images)
    cells = stream.grid[0] * stream.grid[1]
    feats = tower.read(stream, torch.zeros(2, 1, 1, cells))
    torch.testing.assert_close(feats[:, 0], clip.encode_image(images), **CLOSE)
    assert feats.shape[-1] == tower.embed_dim and feats.std(dim=-1).min() > 0.1
    assert stream.tap.shape[:2] == (2, tower.width)
    assert stream.grid == tuple(side // tower.patch_size for side in images.shape[2:])
    several = tower.read(stream, torch.zeros(2, tower.num_heads, 3, cells))
    torch.testing.assert_close(several, feats.expand(-1, 3, -1), **CLOSE)
    assert tower.logit_scale == pytest.approx(clip.logit_scale.exp().item())


@torch.no_grad()
def test_another_size_is_timms_own(world, name):
    clip, tower, _ = world
    images = torch.randn(1, 3, 48, 64) if name != 'convnext' else torch.randn(1, 3, 96, 64)
    stream = tower(images)
    if name == 'vit':  # open_clip has no other size
        assert stream.grid == (6, 8)
        return
    clip.visual.set_input_size(tuple(images.shape[2:]))
    feats = tower.read(stream, torch.zeros(1, 1, 1, stream.grid[0] * stream.grid[1]))
    torch.testing.assert_close(feats[:, 0], clip.encode_image(images), **CLOSE)


def by_concatenation(tower, stream, bias):
    """[copies, CLS, patches] in one sequence through timm's own layers, with one mask over all pairs."""
    trunk, copies = tower.visual.trunk, bias.shape[2]
    tokens = stream.tail_inputs[0]
    length = copies + tokens.shape[1]
    mask = torch.zeros(2, tower.num_heads, length, length)
    mask[..., : copies + 1] = float('-inf')
    mask[..., range(copies + 1), range(copies + 1)] = 0
    mask[..., copies:, copies] = 0
    mask[..., :copies, copies + 1 :] = bias / (trunk.embed_dim / trunk.blocks[0].attn.num_heads) ** 0.5
    x = torch.cat([tokens[:, :1].expand(-1, copies, -1), tokens], dim=1)
    rope = None if trunk.rope is None else trunk.rope.get_embed(list(stream.grid))
    for block in tower.tail:
        block.attn.num_prefix_tokens = copies + 1
        x = block(x, rope=rope, attn_mask=mask)
    return trunk.head(trunk.norm(x[:, :copies]))


def by_pooling_one_by_one(tower, stream, bias):
    """timm's own pooling, once for each proposal."""
    pool = tower.visual.trunk.attn_pool
    masks = bias / pool.head_dim**0.5
    return torch.stack([pool(stream.tail_inputs[0], masks[:, :, n : n + 1]) for n in range(bias.shape[2])], dim=1)


def by_weights(tower, stream, bias):
    """A loop over images, proposals and cells."""
    (features,) = stream.tail_inputs
    rows = []
    for image, logits in zip(features, bias[:, 0], strict=True):
        for proposal in logits:
            weights = [float(1 / (1 + torch.exp(-x))) for x in proposal]
            cells = image.flatten(1).T
            rows.append(sum(w * cell for w, cell in zip(weights, cells, strict=True)) / sum(weights))
    trunk = tower.visual.trunk
    maps = torch.stack(rows)[..., None, None].expand(-1, -1, 2, 3)  # the tower pools a constant map to itself
    return tower.visual.head(trunk.head(maps)).unflatten(0, bias.shape[:1] + bias.shape[2:3])


REFERENCES = dict(
    eva02=by_concatenation,
    eva01=by_concatenation,
    eva_e=by_concatenation,
    probe=by_pooling_one_by_one,
    convnext=by_weights,
)


@pytest.mark.parametrize('name', list(REFERENCES), indirect=True)
@torch.no_grad()
def test_bias_by_other_means(world, name):
    _, tower, images = world
    stream = tower(torch.cat([images, images[:, :, :, :8]], dim=3) if name == 'eva02' else images)
    bias = 4 * torch.randn(2, tower.num_heads, 3, stream.grid[0] * stream.grid[1])
    feats = tower.read(stream, bias)
    torch.testing.assert_close(feats, REFERENCES[name](tower, stream, bias), **CLOSE)
    assert (feats - tower.read(stream, -bias)).abs().max() > 0.01


def test_masked_cells_have_no_influence_and_the_bias_a_gradient(world):
    _, tower, images = world
    stream = tower(torch.cat([images, images.flip(2)], dim=3))
    cells = stream.grid[0] * stream.grid[1]
    bias = torch.zeros(2, 1, 2, cells)
    bias[:, :, 0, ::2] = -1e4
    bias.requires_grad_()
    feats = tower.read(stream, bias)

    def altered(start):
        """The features after a change of every second cell before the tail."""
        inputs = []
        for tensor in stream.tail_inputs:
            tokens = tensor.flatten(2).transpose(1, 2) if tensor.dim() == 4 else tensor
            noise = torch.zeros_like(tokens)
            noise[:, len(tokens[0]) - cells + start :: 2] = 1
            noise = noise.transpose(1, 2).unflatten(2, stream.grid) if tensor.dim() == 4 else noise
            inputs.append(tensor + noise * torch.randn_like(tensor))
        return tower.read(CLIPStream(stream.tap, inputs, stream.grid), bias)

    hidden, shown = altered(0), altered(1)
    torch.testing.assert_close(hidden[:, 0], feats[:, 0], **CLOSE)
    assert (hidden[:, 1] - feats[:, 1]).abs().amax(-1).min() > 1e-3
    assert (shown[:, 0] - feats[:, 0]).abs().amax(-1).min() > 1e-3
    feats[:, 1].square().sum().backward()
    assert bias.grad[:, :, 1].abs().min() > 0 and bias.grad[:, :, 0].abs().max() == 0


@pytest.mark.parametrize('name', TRANSFORMERS, indirect=True)
def test_prompts_learn_alone(name, tmp_path):
    saved_clip(name, tmp_path / 'clip.safetensors')
    source = CLIPSource(f'small_{name}', str(tmp_path / 'clip.safetensors'))
    tower, gradients = build_tower(source, num_prompts=3, scale_factor=0.5).train(), []
    for tower.with_cp in (False, True):
        tower.prompts.grad = None
        stream = tower(torch.ones(1, 3, 64, 64))
        tower.read(stream, torch.zeros(1, 1, 2, 16)).square().sum().backward()
        gradients.append(tower.prompts.grad)
    assert gradients[0].abs().amin(dim=(1, 2)).gt(0).all() and torch.equal(*gradients)
    assert {key for key, param in tower.named_parameters() if param.grad is not None} == {'prompts'}
    assert set(tower.state_dict()) == {'prompts'} and not tower.visual.training


@pytest.mark.parametrize('name', TRANSFORMERS, indirect=True)
def test_checkpointing_of_a_tower_that_learns(name, tmp_path, saved_bytes):
    saved_clip(name, tmp_path / 'clip.safetensors')
    source = CLIPSource(f'small_{name}', str(tmp_path / 'clip.safetensors'))
    tower, found = build_tower(source, freeze=False, scale_factor=0.5).train(), []
    for tower.with_cp in (False, True):
        tower.zero_grad()
        kept = saved_bytes(lambda: tower(torch.ones(1, 3, 64, 64)))
        stream = tower(torch.ones(1, 3, 64, 64))
        tower.read(stream, torch.zeros(1, 1, 2, 16)).square().sum().backward()
        found.append((kept, [param.grad for param in tower.parameters() if param.grad is not None]))
    (plain, expected), (checkpointed, gradients) = found
    assert checkpointed < 0.8 * plain
    torch.testing.assert_close(gradients, expected)


@pytest.mark.parametrize('name', ['eva02'], indirect=True)
@torch.no_grad()
def test_prompts_have_no_position(world):
    _, tower, _ = world
    block, tokens, prompts = tower.layers[0], torch.randn(1, 17, 48), torch.randn(1, 2, 48)
    ours = tower.run_layer(block, torch.cat([tokens, prompts], dim=1), (4, 4))
    block.attn.num_prefix_tokens = 3
    rope = tower.visual.trunk.rope.get_embed([4, 4])
    theirs = block(torch.cat([tokens[:, :1], prompts, tokens[:, 1:]], dim=1), rope=rope)
    torch.testing.assert_close(ours, theirs[:, [0, *range(3, 19), 1, 2]], **CLOSE)


@torch.no_grad()
def test_tap_is_the_output_of_its_layer(world, name):
    clip, tower, images = world
    index = tower.tap_layer - 1
    options = dict(indices=[index], normalize_intermediates=False)
    expected = clip.visual.forward_intermediates(images, **options)['image_intermediates'][0]
    torch.testing.assert_close(tower(images).tap, expected, **CLOSE)
    assert index == (2 if name == 'convnext' else 1)


@torch.no_grad()
def test_text_of_every_tower_is_encode_text(world, name):
    clip, _, _ = world
    tokens = open_clip.get_tokenizer(f'small_{name}')(['a cat', 'two words more'])
    torch.testing.assert_close(encode_tokens(clip, tokens), clip.encode_text(tokens), **CLOSE)
    assert ignores_padding(clip) == (name != 'probe') and tokens.shape[1] == (16 if name == 'probe' else 77)


def test_every_tower_trains_and_predicts(world, name):
    _, tower, _ = world
    cfg = Config.fromfile('configs/alignzeg_patterns.py').model
    cfg.clip = dict(model_name=f'small_{name}', pretrained=None, scale_factor=1.0 if name == 'convnext' else 0.25)
    cfg.decode_head.bias_heads = tower.num_heads
    model = MODELS.build(cfg).train()
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx([122.7709, 116.746, 104.0937])
    labels = torch.randint(0, 12, (1, 4, 4)).repeat_interleave(32, 1).repeat_interleave(32, 2)
    losses = model.loss(torch.randn(1, 3, 128, 128), [SegDataSample(gt_sem_seg=PixelData(data=labels))])
    sum(losses.values()).backward()
    moving = {key for key, param in model.named_parameters() if param.grad is not None and param.grad.abs().max() > 0}
    assert {'fusion.weight', 'decode_head.bias_out.weight', 'semantic_head.background_prototypes'} <= moving
    assert not any(key.startswith('clip.') for key in model.state_dict())
    labels = model.eval().predict(torch.randn(1, 3, 100, 90))[0].pred_sem_seg.data
    assert labels.shape == (1, 100, 90)
