"""mmseg's SAN in the embedded world: the same CLIP, the same proposal features, and a training that runs."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from alignzeg.benchmark.peers import san_state_dict
from mmseg_alignzeg.models import CLIPSemanticHead, CLIPSource, build_tower


@pytest.fixture
def san(tmp_path):
    """SAN as its config builds it, on the weights that ``tools/clip_to_san.py`` writes."""
    path = tmp_path / 'tiny_clip.pth'
    torch.save(san_state_dict(CLIPSource('tiny_clip', 'embedded'), split=3), path)
    cfg = Config.fromfile('configs/peers/training/san_patterns.py')
    cfg.model.pretrained = str(path)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model, cfg


def test_proposal_features_are_those_of_san(san):
    model, _ = san
    vision = build_tower(CLIPSource('tiny_clip', 'embedded'), tap_layer=3, tail_layers=3, scale_factor=1)
    images, bias = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 100, 8, 8)
    # SAN adds its bias after the division by √D, AlignZeg before: B here is √32 · B there.
    ours = CLIPSemanticHead(64)(vision, vision(images), 32**0.5 * bias.flatten(3))
    with torch.no_grad():
        theirs = model.decode_head.rec_with_attnbias([bias], model.image_encoder(images)[-1])
    torch.testing.assert_close(F.normalize(ours, dim=-1), theirs, rtol=1e-4, atol=1e-5)


def test_san_learns_in_the_embedded_world(san):
    model, cfg = san
    model.train()
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {name: value.clone() for name, value in model.named_parameters()}
    labels = torch.randint(0, 12, (1, 2, 2)).repeat_interleave(64, 1).repeat_interleave(64, 2)
    data = dict(
        inputs=[torch.randint(0, 256, (3, 128, 128))], data_samples=[SegDataSample(gt_sem_seg=PixelData(data=labels))]
    )
    losses = model.train_step(data, optim_wrapper)
    assert all(loss.isfinite() for loss in losses.values())
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert 'text_encoder.bg_embed' in moved and any('side_adapter_network' in name for name in moved)
    assert not any(name.startswith('decode_head.rec_with_attnbias') for name in moved)


def test_background_turns_as_fast_as_that_of_alignzeg(san):
    model, cfg = san
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    (background,) = (group for group in groups if group['params'][0] is model.text_encoder.bg_embed)
    ours = Config.fromfile('configs/alignzeg_patterns.py').optim_wrapper
    assert background['lr'] == ours.optimizer.lr * ours.paramwise_cfg.custom_keys.background_prototypes.lr_mult
    assert background['weight_decay'] == 0


def test_san_is_tested_on_all_classes():
    cfg = Config.fromfile('configs/peers/san_patterns.py')
    model = MODELS.build({**cfg.model, 'pretrained': None})
    embeds = model.text_encoder()
    assert embeds.shape == (21, 64)
    scale = CLIPSource('tiny_clip', 'embedded').load_vision()[1]
    torch.testing.assert_close(embeds.norm(dim=1), torch.full((21,), scale))
