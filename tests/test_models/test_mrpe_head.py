import sys

import pytest
import torch
from torch.nn.functional import interpolate

from mmseg_alignzeg.models import PlainDecoderHead
from mmseg_alignzeg.models.mrpe_head import CrossAttention, MRPEHead
from mmseg_alignzeg.models.pixel_decoder_head import PixelDecoderHead


def test_cross_attention_is_equation_1():
    attention = CrossAttention(dim=6).double()
    x, context = torch.randn(2, 3, 6).double(), torch.randn(2, 5, 6).double()
    out = attention(x, context)
    for b in range(2):
        q, k, v = (
            x[b] @ attention.w_q.weight.T,
            context[b] @ attention.w_k.weight.T,
            context[b] @ attention.w_v.weight.T,
        )
        weights = (q @ k.T / 6**0.5).exp()
        weights = weights / weights.sum(dim=1, keepdim=True)
        torch.testing.assert_close(out[b], weights @ v)


def test_cross_attention_with_heads_equals_torch():
    ours, torchs = CrossAttention(8, num_heads=2), torch.nn.MultiheadAttention(8, 2, bias=False, batch_first=True)
    torchs.in_proj_weight.data = torch.cat([ours.w_q.weight, ours.w_k.weight, ours.w_v.weight]).data
    torchs.out_proj.weight.data = torch.eye(8)
    x, context = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    torch.testing.assert_close(ours(x, context), torchs(x, context, context)[0])


def plain_refinement(step, x, context):
    """Section 3.1 with plain matrices: X' = X + Eq. (1); MLP(LN(X')), plus X' if the MLP has a residual."""
    weights = {name: value.detach() for name, value in step.named_parameters()}
    q, k, v = (y @ weights[f'attention.w_{n}.weight'].T for y, n in ((x, 'q'), (context, 'k'), (context, 'v')))
    x = x + (q @ k.T / x.shape[1] ** 0.5).softmax(dim=1) @ v
    normed = (x - x.mean(dim=1, keepdim=True)) / (x.var(dim=1, keepdim=True, correction=0) + 1e-5).sqrt()
    normed = normed * weights['norm.weight'] + weights['norm.bias']
    hidden = normed @ weights['mlp.fc1.weight'].T + weights['mlp.fc1.bias']
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    refined = hidden @ weights['mlp.fc2.weight'].T + weights['mlp.fc2.bias']
    return x + refined if step.mlp_residual else refined


@pytest.mark.parametrize('mlp_residual', [True, False])
def test_mrpe_by_plain_matrices(mlp_residual):
    head = MRPEHead(embed_dim=16, num_queries=5, bias_heads=1, mlp_residual=mlp_residual).eval()
    for param in head.parameters():  # default norms and biases would hide a mistake
        param.data += 0.1 * torch.randn_like(param)
    queries, feats = torch.randn(1, 5, 16), torch.randn(1, 24, 16)
    first = plain_refinement(head.query_refinement, queries[0], feats[0])  # Q_m'
    refined_feats = plain_refinement(head.image_refinement, feats[0], first)  # Z_f'
    final = plain_refinement(head.final_decoding, first, refined_feats)  # Q_m''
    for ours, expected in zip(head.refine(queries, feats, (4, 6)), (final, refined_feats), strict=True):
        torch.testing.assert_close(ours[0], expected)


def test_the_three_steps_have_weights_and_heads_of_their_own():
    head = MRPEHead(embed_dim=16, num_queries=5, bias_heads=1, num_heads=4)
    steps = [head.query_refinement, head.image_refinement, head.final_decoding]
    assert [step.attention.num_heads for step in steps] == [4, 4, 4]
    own = {id(param) for step in steps for param in step.parameters()}
    assert len(own) == 3 * len(list(steps[0].parameters()))


def test_training_leaves_out_the_image_refinement_of_some_images():
    torch.manual_seed(0)
    head = MRPEHead(embed_dim=16, num_queries=5, bias_heads=1, image_drop=0.25)
    queries, feats = torch.randn(1, 5, 16).expand(400, -1, -1), torch.randn(1, 6, 16).expand(400, -1, -1)
    whole_queries, whole_feats = head.eval().refine(queries, feats, (2, 3))
    found_queries, found_feats = head.train().refine(queries, feats, (2, 3))
    dropped = (found_feats == feats).all(dim=(1, 2))
    assert 70 < dropped.sum() < 130  # 100 expected, standard deviation 8.7
    torch.testing.assert_close(found_feats[~dropped], whole_feats[~dropped])
    torch.testing.assert_close(found_queries[~dropped], whole_queries[~dropped])
    torch.testing.assert_close(
        found_queries[dropped], head.final_decoding(head.query_refinement(queries, feats), feats)[dropped]
    )
    found_feats[dropped].sum().backward()
    assert not any(param.grad is not None and param.grad.any() for param in head.image_refinement.parameters())


def test_an_image_refinement_that_is_never_trained_is_refused():
    with pytest.raises(ValueError, match=r'image_drop=1\.0 must be in'):
        MRPEHead(embed_dim=16, image_drop=1.0)


@pytest.mark.parametrize('head_type', [MRPEHead, PlainDecoderHead])
@pytest.mark.parametrize('bias_heads', [1, 3])
def test_masks_and_bias_are_products_with_the_refined_queries(head_type, bias_heads):
    head = head_type(embed_dim=16, num_queries=5, bias_heads=bias_heads, mask_scale=0.75).eval()
    feats = torch.randn(2, 16, 4, 6)
    mask_logits, attn_bias = head(feats, (2, 3))
    queries, tokens = head.refine(head.queries.expand(2, -1, -1), feats.flatten(2).transpose(1, 2), (4, 6))
    products = torch.einsum('bnd,bld->bnl', queries, tokens).unflatten(2, (4, 6))
    torch.testing.assert_close(mask_logits, 0.75 * products)
    # The whole MLP at full resolution, resized last: what the head computes in a cheaper order.
    keys = head.bias_out(head.bias_hidden(tokens)).unflatten(2, (bias_heads, 16))
    full = torch.einsum('bnd,blhd->bhnl', queries, keys).unflatten(3, (4, 6)).flatten(0, 1)
    expected = interpolate(full, size=(2, 3), mode='bilinear').unflatten(0, (2, bias_heads)).flatten(3)
    torch.testing.assert_close(attn_bias, expected)


def test_pixel_decoder_head_reads_queries_from_the_encoder_and_masks_from_the_pixel_decoder():
    head = PixelDecoderHead(embed_dim=16, num_queries=5, bias_heads=1, num_groups=4).eval()
    queries, feats = torch.randn(2, 5, 16), torch.randn(2, 16, 5, 7)
    tokens = feats.flatten(2).transpose(1, 2)
    refined, pixels = head.refine(queries, tokens, (5, 7))
    torch.testing.assert_close(refined, head.mask_embed(head.decoder(queries, tokens)))
    # mmdet's module on a pyramid made by hand: 5 × 7 cells, then means over 2 × 2 and 4 × 4 of them.
    levels = [feats]
    for step in (2, 4):
        cells = [
            [feats[:, :, y : y + step, x : x + step].mean((2, 3)) for x in range(0, 7, step)] for y in range(0, 5, step)
        ]
        levels.append(torch.stack([torch.stack(row, dim=2) for row in cells], dim=2))
    torch.testing.assert_close(pixels, head.pixel_decoder(levels, [])[0].flatten(2).transpose(1, 2))
    assert head(feats, (2, 3))[0].shape == (2, 5, 5, 7)


def test_without_mmdet_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmdet.models.layers', None)
    with pytest.raises(ImportError, match=r"needs mmdet .* run `pip install 'mmdet.*MRPEHead"):
        PixelDecoderHead(embed_dim=16, num_groups=4)
