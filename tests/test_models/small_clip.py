"""A small CLIP in OpenAI's layout, as architecture `small` of open_clip."""

import json

import open_clip
import torch

SMALL = dict(
    embed_dim=32,
    vision_cfg=dict(image_size=32, patch_size=8, layers=3, width=64),
    text_cfg=dict(context_length=9, vocab_size=50, width=64, heads=1, layers=2),
    quick_gelu=True,
)


def small_clip(folder):
    """Write the architectures `small` and `small-gelu` into a folder; return a CLIP with distinct random weights."""
    (folder / 'small.json').write_text(json.dumps(SMALL))
    (folder / 'small-gelu.json').write_text(json.dumps({**SMALL, 'quick_gelu': False}))
    open_clip.add_model_config(folder)
    return randomised(open_clip.create_model('small'))


def randomised(model):
    generator = torch.Generator().manual_seed(1)
    for param in model.parameters():
        # open_clip rounds OpenAI's weights to float16.
        param.data = (0.2 * torch.randn(param.shape, generator=generator)).half().float()
    model.logit_scale.data.fill_(2.5)
    return model.eval()


def same(state, expected):
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(state[name].float(), value.float(), rtol=0, atol=0, msg=name)
