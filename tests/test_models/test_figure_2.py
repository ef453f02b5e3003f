"""The forward pass of figure 2 from left to right, with Pillow's resizing and plain products."""

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image
from small_model import CLASSES, build

from mmseg_alignzeg.models import TextBank


@pytest.fixture
def model():
    """Norms and residual MLPs that start as the identity would hide a mistake."""
    model = build().eval()
    for module in (model.tap_norm, model.semantic_head.phi_cls):
        for param in module.parameters():
            param.data += 0.3 * torch.randn_like(param)
    return model


def resized(images, height, width):
    """Bilinear and, when it shrinks, antialiased, channel by channel."""
    planes = [
        np.asarray(Image.fromarray(plane.numpy()).resize((width, height), Image.Resampling.BILINEAR))
        for plane in images.flatten(0, 1)
    ]
    return torch.from_numpy(np.stack(planes)).unflatten(0, images.shape[:2])


@torch.no_grad()
def test_from_images_to_scores_by_hand(model):
    images = torch.randn(2, 3, 44, 76)  # neither square nor whole patches
    received = []
    model.decode_head.register_forward_hook(lambda _, inputs, outputs: received.append((*inputs, *outputs)))
    proposals = model.extract_feat(images)
    ((z_f, grid, mask_logits, attn_bias),) = received

    padded = torch.zeros(2, 3, 48, 80)
    padded[:, :, :44, :76] = images
    z_enc = model.image_encoder.vit.forward_features(padded).reshape(2, 6, 10, 96)  # patches of 8²
    stream = model.clip.stream(resized(padded, 24, 40))
    mean, var = stream.tap.mean(dim=1, keepdim=True), stream.tap.var(dim=1, keepdim=True, correction=0)
    tap = ((stream.tap - mean) / (var + 1e-5).sqrt()).permute(0, 2, 3, 1) * model.tap_norm.weight + model.tap_norm.bias
    z_clip = tap @ model.fusion.weight.T + model.fusion.bias
    expected = z_enc.permute(0, 3, 1, 2) + resized(z_clip.permute(0, 3, 1, 2), 6, 10)
    torch.testing.assert_close(z_f, expected, rtol=1e-4, atol=1e-4)
    assert grid == (3, 5) and torch.equal(proposals.mask_logits, mask_logits)

    torch.testing.assert_close(proposals.feats, model.clip.read(stream, attn_bias), rtol=1e-4, atol=1e-4)
    mlp, unit = model.semantic_head.phi_cls, proposals.feats / proposals.feats.norm(dim=2, keepdim=True)
    hidden = F.gelu(unit @ mlp.fc1.weight.T + mlp.fc1.bias)
    cls_feats = unit + hidden @ mlp.fc2.weight.T + mlp.fc2.bias
    torch.testing.assert_close(proposals.cls_feats, cls_feats / cls_feats.norm(dim=2, keepdim=True))

    embeds, scale = model.text_bank(CLASSES), float(open_clip.create_model('tiny_clip').logit_scale.exp())
    logits = scale * proposals.cls_feats @ model.semantic_head.backgrounds.T
    background = (logits.exp() / logits.exp().sum(dim=2, keepdim=True) * logits).sum(dim=2, keepdim=True)
    scores = torch.cat([scale * proposals.cls_feats @ embeds[:, 0].T, background], dim=2)
    torch.testing.assert_close(model.classify(proposals, embeds), scores)


def test_feature_expansion_mixes_the_first_prototype_of_a_class():
    names = [f'{name}, another {name}' for name in CLASSES]
    text = dict(templates='single', names=dict(source='comma', combine='max'))
    model, received = build(classes=names, unseen_classes=names[1:2], text=text).train(), []
    model.criterion.register_forward_pre_hook(lambda _, inputs: received.append(inputs))
    plain = TextBank(model.text_bank.source, 'single')
    for bank, asked in ((model.text_bank, model.vocabulary.seen_classes), (plain, ('cat', 'sky', 'grass'))):
        torch.manual_seed(1)  # of the random text tower
        prototypes = bank(asked)
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, 64, 64, dtype=torch.long)))
    model.loss(torch.randn(1, 3, 64, 64), [sample])
    ((_, scores, _, found, *_),) = received
    assert scores.shape == (1, 8, 4)
    torch.testing.assert_close(found, prototypes[:, 0])
