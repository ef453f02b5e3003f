"""The plain ViT tower, the semantic decoder and the text bank against open_clip itself."""

import json
import os
import subprocess
import sys

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from mmseg_alignzeg.models import CLIPSemanticHead, CLIPSource, TextBank, build_tower, get_templates
from mmseg_alignzeg.models.semantic_head import background_score
from mmseg_alignzeg.models.towers.vit import LeanQuickGELU, attend_to_patches, run_block, use_lean_gelu


@pytest.fixture
def clip_file(tmp_path):
    """A CLIP of the embedded architecture with random weights, and its file in open_clip's format."""
    clip = open_clip.create_model('tiny_clip').eval()
    for param in clip.parameters():  # open_clip starts positions and biases too small to notice their absence
        param.data += 0.05 * torch.randn_like(param)
    path = tmp_path / 'clip.safetensors'
    save_file({name: value.contiguous() for name, value in clip.state_dict().items()}, path)
    return clip, path


def test_one_query_without_bias_is_encode_image(clip_file):
    clip, path = clip_file
    vision = build_tower(CLIPSource('tiny_clip', str(path)), tap_layer=3, tail_layers=3, scale_factor=1).eval()
    images = torch.randn(2, 3, 64, 64)
    stream = vision(images)
    feats = CLIPSemanticHead(64)(vision, stream, torch.zeros(2, 1, 1, 64))
    torch.testing.assert_close(feats[:, 0], clip.encode_image(images))
    assert vision.logit_scale == pytest.approx(clip.logit_scale.exp().item())


def test_tap_is_the_residual_stream_after_its_layer(clip_file):
    clip, path = clip_file
    images = torch.randn(1, 3, 64, 64)
    vision = build_tower(CLIPSource('tiny_clip', str(path)), tap_layer=2, tail_layers=3, scale_factor=1)
    expected = clip.visual.forward_intermediates(images, indices=[1], normalize_intermediates=False)
    torch.testing.assert_close(vision(images).tap, expected['image_intermediates'][0])


def test_separate_stream_equals_the_masked_concatenation():
    block = open_clip.transformer.ResidualAttentionBlock(16, 4)
    queries, tokens, bias = torch.randn(2, 3, 16), torch.randn(2, 1 + 5, 16), torch.randn(2, 4, 3, 5)
    out = attend_to_patches(block, queries, tokens, bias)
    # SAN's form: [copies, CLS, patches] in one sequence and one mask over all pairs.
    mask = torch.zeros(2, 4, 9, 9)
    mask[..., :3] = float('-inf')
    mask[..., range(3), range(3)] = 0
    mask[..., :3, 3] = float('-inf')
    mask[..., :3, 4:] = bias / 4**0.5
    whole = block(torch.cat([queries, tokens], dim=1), attn_mask=mask.flatten(0, 1))
    torch.testing.assert_close(out, whole[:, :3])
    torch.testing.assert_close(block(tokens), whole[:, 3:])


def test_a_block_is_open_clips_own_with_its_gradient():
    block = open_clip.transformer.ResidualAttentionBlock(16, 4, act_layer=open_clip.transformer.QuickGELU)
    tokens, weights = torch.randn(2, 7, 16, requires_grad=True), torch.randn(2, 7, 16)
    ours, theirs = run_block(block, tokens), block(tokens)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad((out * weights).sum(), tokens)[0] for out in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_quick_gelu_is_open_clips_and_keeps_half(saved_bytes):
    theirs, ours = open_clip.transformer.QuickGELU(), LeanQuickGELU()
    x = (3 * torch.randn(50, 40)).requires_grad_()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad(act(x).square().sum(), x)[0] for act in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
    hidden = x * 1  # like the output of a linear layer, which keeps nothing of it
    assert saved_bytes(ours, hidden) == hidden.nbytes and saved_bytes(theirs, hidden) >= 2 * hidden.nbytes


def test_checkpointing_keeps_less_and_changes_no_gradient(clip_file, saved_bytes):
    _, path = clip_file
    vision = build_tower(CLIPSource('tiny_clip', str(path)), tap_layer=3, tail_layers=3, num_prompts=2, scale_factor=1)
    images, found = torch.randn(2, 3, 64, 64), []
    for vision.with_cp in (False, True):
        vision.prompts.grad = None
        kept = saved_bytes(lambda: vision(images))
        vision(images).tail_inputs[-1].square().mean().backward()
        found.append((kept, vision.prompts.grad.clone()))
    (plain, expected), (checkpointed, gradient) = found
    assert checkpointed < 0.6 * plain
    torch.testing.assert_close(gradient, expected, rtol=0, atol=0)


def test_every_quick_gelu_of_a_tower_is_replaced():
    clip = open_clip.create_model('ViT-B-32-quickgelu')
    before = sum(isinstance(module, open_clip.transformer.QuickGELU) for module in clip.visual.modules())
    use_lean_gelu(clip.visual)
    kinds = [type(module).__name__ for module in clip.visual.modules()]
    assert before == kinds.count('LeanQuickGELU') == 12 and 'QuickGELU' not in kinds


@pytest.mark.parametrize('num_prompts', [0, 2])
def test_no_layer_falls_back_to_multihead_attention(clip_file, monkeypatch, num_prompts):
    _, path = clip_file
    monkeypatch.setattr(torch.nn.MultiheadAttention, 'forward', lambda *args, **kwargs: pytest.fail('it was called'))
    vision = build_tower(
        CLIPSource('tiny_clip', str(path)), tap_layer=3, tail_layers=3, num_prompts=num_prompts, scale_factor=1
    )
    stream = vision(torch.randn(1, 3, 64, 64))
    CLIPSemanticHead(64)(vision, stream, torch.zeros(1, 1, 2, 64))


def test_bias_stands_inside_the_softmax_before_the_division():
    block = open_clip.transformer.ResidualAttentionBlock(8, 1)
    query, tokens, bias = torch.randn(1, 1, 8), torch.randn(1, 1 + 2, 8), torch.tensor([[[[3.0, -1.0]]]])
    seen = torch.cat([query, tokens[:, 1:]], dim=1)[0]
    q, k, v = F.linear(block.ln_1(seen), block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
    logits = (q[0] @ k.T + torch.tensor([0.0, 3.0, -1.0])) / 8**0.5
    x = query[0, 0] + block.attn.out_proj(logits.softmax(0) @ v)
    expected = x + block.mlp(block.ln_2(x))
    torch.testing.assert_close(attend_to_patches(block, query, tokens, bias)[0, 0], expected)


def test_position_embedding_follows_the_image_size(clip_file):
    _, path = clip_file
    vision = build_tower(CLIPSource('tiny_clip', str(path)), tap_layer=3, tail_layers=3, scale_factor=0.5)
    stream = vision(torch.randn(1, 3, 96, 160))
    assert stream.grid == (6, 10)
    assert [tokens.shape for tokens in stream.tail_inputs] == [(1, 61, 96)] * 3


def test_skip_bridge_leaves_the_middle_layers_out(clip_file):
    _, path = clip_file
    whole = build_tower(CLIPSource('tiny_clip', str(path)), tap_layer=2, tail_layers=3, scale_factor=1)
    literal = build_tower(
        CLIPSource('tiny_clip', str(path)), tap_layer=2, tail_layers=3, skip_bridge=True, scale_factor=1
    )
    images = torch.randn(1, 3, 64, 64)
    assert len(literal.visual.transformer.resblocks) == 5
    torch.testing.assert_close(literal(images).tap, whole(images).tap)
    torch.testing.assert_close(literal(images).tail_inputs[0][:, 1:], literal(images).tap.flatten(2).transpose(1, 2))


def test_prompts_are_the_only_thing_that_learns(clip_file):
    _, path = clip_file
    vision = build_tower(CLIPSource('tiny_clip', str(path)), tap_layer=3, tail_layers=3, num_prompts=4, scale_factor=1)
    vision(torch.randn(1, 3, 64, 64)).tail_inputs[-1].square().sum().backward()
    assert {name for name, param in vision.named_parameters() if param.grad is not None} == {'prompts'}
    assert vision.prompts.grad.abs().amin(dim=(1, 2)).gt(0).all() and set(vision.state_dict()) == {'prompts'}


def test_half_and_a_quarter_of_the_layers_by_default():
    tower = build_tower(CLIPSource('tiny_clip', None))  # six layers; of the paper's twelve, 6 and 3
    assert (tower.tap_layer, tower.num_stream_layers) == (3, 6 - 1)


def test_prompts_start_in_the_range_of_vpt():
    tower = build_tower(CLIPSource('tiny_clip', None), tap_layer=3, tail_layers=3, num_prompts=50)
    bound = (6 / (3 * 8 * 8 + 96)) ** 0.5  # patches of 8², width 96
    assert 0.99 * bound < tower.prompts.abs().max() <= bound
    assert abs(tower.prompts.mean()) < 0.02 * bound and tower.prompts.shape[1:] == (50, 96)


def test_frozen_tower_needs_no_gradient_and_stays_in_eval_mode(clip_file):
    _, path = clip_file
    vision = build_tower(CLIPSource('tiny_clip', str(path)), tap_layer=3, tail_layers=3).train()
    assert not vision.visual.training and not vision(torch.randn(1, 3, 128, 128)).tap.requires_grad
    assert vision.state_dict() == {}
    assert vision.load_state_dict({}, strict=True).missing_keys == []


def test_background_score_is_the_weighted_sum():
    feats, backgrounds = F.normalize(torch.randn(4, 8), dim=1), F.normalize(torch.randn(3, 8), dim=1)
    for i in range(4):
        logits = [7.0 * float(feats[i] @ backgrounds[m]) for m in range(3)]
        weights = torch.tensor(logits).exp() / torch.tensor(logits).exp().sum()
        expected = sum(w * logit for w, logit in zip(weights, logits, strict=True))
        torch.testing.assert_close(background_score(feats[i], backgrounds, 7.0)[0], expected)


def test_scores_start_as_clips_own():
    head = CLIPSemanticHead(16, num_backgrounds=1)
    feats, text = torch.randn(2, 5, 16), F.normalize(torch.randn(3, 16), dim=1)
    scores = head.scores(head.classify(feats), text[:, None], 10.0)
    torch.testing.assert_close(scores[..., :3], 10 * F.cosine_similarity(feats[:, :, None], text, dim=-1))
    background = F.cosine_similarity(feats, head.background_prototypes[0], dim=-1)
    torch.testing.assert_close(scores[..., 3], 10 * background)


def test_scores_are_exact_under_autocast():
    head = CLIPSemanticHead(64, num_backgrounds=3)
    feats = F.normalize(torch.randn(100, 64), dim=1)
    text = F.normalize(torch.randn(1, 64) + 0.05 * torch.randn(50, 64), dim=1)[:, None]  # classes that are near
    exact = head.scores(feats, text, 100.0)
    with torch.autocast('cpu', torch.bfloat16):
        scores = head.scores(feats, text, 100.0)
        rounded = 100.0 * feats @ text[:, 0].t()
    assert scores.dtype == torch.float32 and torch.equal(scores, exact)
    assert (rounded.argmax(dim=1) != exact[:, :50].argmax(dim=1)).any()  # what bfloat16 alone would do


def test_text_bank_equals_the_text_tower_prompt_by_prompt(clip_file, tmp_path):
    clip, path = clip_file
    classes = ['cat', 'a much longer class name with many words', 'wall-concrete']
    bank = TextBank(CLIPSource('tiny_clip', str(path)), 'vild', cache_dir=str(tmp_path / 'bank'))(classes)
    tokenizer = open_clip.get_tokenizer('tiny_clip')
    for name, embed in zip(classes, bank, strict=True):
        each = [F.normalize(clip.encode_text(tokenizer([t.format(name)])), dim=-1)[0] for t in get_templates('vild')]
        torch.testing.assert_close(embed[0], F.normalize(torch.stack(each).mean(dim=0), dim=0))


def test_text_bank_is_read_back_from_disk_and_keyed_by_everything(clip_file, tmp_path, monkeypatch):
    _, path = clip_file
    bank = TextBank(CLIPSource('tiny_clip', str(path)), 'single', cache_dir=str(tmp_path / 'bank'))
    first = bank(['cat', 'dog'])
    monkeypatch.setattr(CLIPSource, 'load_full', lambda self: pytest.fail('the text tower ran again'))
    again = TextBank(CLIPSource('tiny_clip', str(path)), 'single', cache_dir=str(tmp_path / 'bank'))
    assert torch.equal(again(['cat', 'dog']), first)
    assert [file.name for file in (tmp_path / 'bank').iterdir()] == [bank.path(['cat', 'dog']).name]
    others = [
        bank.path(['dog', 'cat']),
        TextBank(CLIPSource('tiny_clip', str(path)), 'vild', cache_dir=str(tmp_path / 'bank')).path(['cat', 'dog']),
        TextBank(CLIPSource('tiny_clip', 'embedded'), 'single', cache_dir=str(tmp_path / 'bank')).path(['cat', 'dog']),
    ]
    assert len({bank.path(['cat', 'dog']), *others}) == 4


def test_zegclip_templates():
    assert get_templates('single') == ('a photo of a {}',)
    templates = get_templates('zegclip_coco')
    assert len(set(templates)) == 15 and all(template.count('{}') == 1 for template in templates)
    assert len(get_templates('vild')) == 14


def test_unknown_template_set():
    with pytest.raises(ValueError, match=r"Unknown template set 'vlid': choose one of .*'vild'"):
        get_templates('vlid')


@pytest.mark.parametrize(
    ('model_name', 'pretrained', 'error', 'message'),
    [
        ('ViT-Z-99', None, ValueError, "no architecture 'ViT-Z-99'"),
        ('ViT-B-16', 'opnai', ValueError, "no weights 'opnai' for ViT-B-16; its tags: .*'openai'"),
        ('ViT-B-16', 'missing/clip.safetensors', FileNotFoundError, "'missing/clip.safetensors' do not exist: put"),
    ],
)
def test_missing_clip(model_name, pretrained, error, message):
    with pytest.raises(error, match=message):
        CLIPSource(model_name, pretrained).load_vision()


@pytest.mark.parametrize(
    ('model_name', 'pretrained', 'fits'),
    [
        ('ViT-B-16', 'openai', "'ViT-B-16-quickgelu'"),
        ('ViT-B-16', 'dfn2b', "'ViT-B-16-quickgelu'"),
        ('ViT-H-14-worldwide', 'metaclip2_worldwide', "'ViT-H-14-worldwide-quickgelu'"),
    ],
)
def test_weights_of_another_activation_are_refused_before_they_are_fetched(model_name, pretrained, fits, monkeypatch):
    monkeypatch.setattr(open_clip, 'download_pretrained', lambda cfg: pytest.fail('it was fetched'))
    with pytest.raises(ValueError, match=f'trained with QuickGELU, .* set `model_name` to {fits}'):
        CLIPSource(model_name, pretrained).load_vision()


def test_wrong_clip_file(tmp_path, clip_file):
    _, path = clip_file
    with pytest.raises(ValueError, match='holds no weights of ViT-B-16'):
        CLIPSource('ViT-B-16', str(path)).load_vision()
    text = tmp_path / 'clip.pt'
    text.write_text(json.dumps({'not': 'weights'}))
    with pytest.raises(ValueError, match=r'clip\.pt is not a readable CLIP state dict'):
        CLIPSource('ViT-B-16', str(text)).load_vision()
    torch.save({'weight': torch.zeros(1)}, text)
    with pytest.raises(ValueError, match='has no `logit_scale`'):
        CLIPSource('ViT-B-16', str(text)).load_vision()


def test_tag_without_network_says_what_to_fetch(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError('no route to host')

    monkeypatch.setattr(open_clip, 'download_pretrained', offline)
    with pytest.raises(FileNotFoundError, match=r'ViT-B-16-quickgelu/openai .* `model.clip.pretrained`'):
        CLIPSource('ViT-B-16-quickgelu', 'openai').load_vision()


def test_several_processes_fill_one_cache(clip_file, tmp_path):
    """Two processes meet an empty cache at once; both read the same numbers and one whole file is left."""
    _, path = clip_file
    code = (
        'from mmseg_alignzeg.models import CLIPSource, TextBank; import hashlib\n'
        f'bank = TextBank(CLIPSource("tiny_clip", {str(path)!r}), "single", {str(tmp_path / "bank")!r})\n'
        'print(hashlib.sha256(bank(["cat", "dog"]).numpy().tobytes()).hexdigest())'
    )
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'}
    workers = [
        subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    digests = {worker.communicate()[0].splitlines()[-1] for worker in workers}
    assert len(digests) == 1 and [worker.returncode for worker in workers] == [0, 0]
    assert len(list((tmp_path / 'bank').iterdir())) == 1


def test_damaged_or_forbidden_cache_is_no_obstacle(clip_file, tmp_path):
    _, path = clip_file
    source = CLIPSource('tiny_clip', str(path))
    bank = TextBank(source, 'single', cache_dir=str(tmp_path / 'bank'))
    first = bank(['cat'])
    bank.path(['cat']).write_bytes(b'torn')
    assert torch.equal(TextBank(source, 'single', cache_dir=str(tmp_path / 'bank'))(['cat']), first)
    (tmp_path / 'file').write_text('a file where the folder should be')
    assert torch.equal(TextBank(source, 'single', cache_dir=str(tmp_path / 'file'))(['cat']), first)


def test_embedded_weights_are_for_tiny_clip_alone():
    with pytest.raises(ValueError, match=r"pretrained='embedded'.*'ViT-B-16'"):
        CLIPSource('ViT-B-16', 'embedded').load_vision()


def test_clip_without_a_vit():
    with pytest.raises(ValueError, match='The vision tower of RN50 is not supported'):
        build_tower(CLIPSource('RN50', None))
