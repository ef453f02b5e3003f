"""Views of an image, merged by the library and by brute force."""

import math

import torch
import torch.nn.functional as F

from mmseg_alignzeg.models import Answer
from mmseg_alignzeg.models.answer import ViewProposals
from mmseg_alignzeg.models.proposals import Window


def brute_force(views, height, width, temperature=1.0, bias=None):
    """Pixel by pixel, proposal by proposal."""
    num_classes = views[0].class_probs.shape[1]
    masks = [F.interpolate(v.mask_logits[None], size=(height, width), mode='bilinear')[0].sigmoid() for v in views]
    merged = torch.zeros(num_classes, height, width)
    for y in range(height):
        for x in range(width):
            preferred = []
            for view, mask in zip(views, masks, strict=True):
                weights = [float(mask[n, y, x] * view.class_probs[n].sum()) for n in range(len(mask))]
                scores = [0.0] * len(mask) if view.preference is None else view.preference.tolist()
                preferred.append(sum(w * r for w, r in zip(weights, scores, strict=True)) / sum(weights))
            shares = [math.exp(r / temperature) for r in preferred]
            for share, view, mask in zip(shares, views, masks, strict=True):
                for n in range(len(mask)):
                    merged[:, y, x] += share / sum(shares) * mask[n, y, x] * view.class_probs[n]
    return merged if bias is None else merged + bias[:, None, None]


def random_views(scored):
    probs = torch.rand(3, 4, 6).softmax(dim=-1)[..., :-1]  # the last column was the background
    grids = [torch.randn(4, 4, 6), torch.randn(4, 3, 5), torch.randn(4, 5, 7)]
    scores = torch.randn(3, 4) if scored else [None] * 3
    return [ViewProposals(*view) for view in zip(grids, probs, scores, strict=True)]


def merge(views, height=9, width=11, **options):
    return Answer(tuple(views), Window(0, 0, 1, 1, (height, width)), **options).scores()
