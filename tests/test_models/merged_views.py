"""Views of an image, merged by the library and by brute force."""

import torch
import torch.nn.functional as F

from mmseg_alignzeg.models import Answer
from mmseg_alignzeg.models.answer import ViewProposals
from mmseg_alignzeg.models.proposals import Window


def brute_force(views, height, width, bias=None):
    """Pixel by pixel, proposal by proposal."""
    num_classes = views[0].class_probs.shape[1]
    masks = [F.interpolate(v.mask_logits[None], size=(height, width), mode='bilinear')[0].sigmoid() for v in views]
    merged = torch.zeros(num_classes, height, width)
    for y in range(height):
        for x in range(width):
            for view, mask in zip(views, masks, strict=True):
                for n in range(len(mask)):
                    merged[:, y, x] += mask[n, y, x] * view.class_probs[n] / len(views)
    return merged if bias is None else merged + bias[:, None, None]


def random_views():
    probs = torch.rand(3, 4, 6).softmax(dim=-1)[..., :-1]  # the last column was the background
    grids = [torch.randn(4, 4, 6), torch.randn(4, 3, 5), torch.randn(4, 5, 7)]
    return [ViewProposals(*view) for view in zip(grids, probs, strict=True)]


def merge(views, height=9, width=11, **options):
    return Answer(tuple(views), Window(0, 0, 1, 1, (height, width)), **options).scores()
