"""How good the masks are, whatever their classes: table 6 of the paper."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from .alignzeg import AlignZeg
from .inference import mask_stripes
from .proposals import Window, upright
from .question import Question


def oracle_probs(mask_logits: Tensor, labels: Tensor, num_classes: int, window: Window) -> Tensor:
    """Give each proposal the true class of most of its pixels (the rule is not given in the paper).

    A pixel belongs to a proposal where σ(M) > 0.5.

    Args:
        mask_logits: (N, h, w) of one image on the padded grid.
        labels: True labels (H, W) of integers, H × W being ``window.size``; what is no class is left out.
        num_classes: C.
        window: Where the grid shows the image.

    Returns:
        (N, C) rows with a single 1; zeros for a proposal without a labelled pixel.

    Raises:
        ValueError: If the labels have another size than the window.
    """
    if tuple(labels.shape) != tuple(window.size):
        raise ValueError(f'The labels have shape {tuple(labels.shape)}, the image {tuple(window.size)}.')
    labels = torch.where((labels >= 0) & (labels < num_classes), labels, num_classes).to(mask_logits.device)
    pixels = mask_logits.new_zeros(num_classes + 1, len(mask_logits))  # of each class in each mask
    for rows, masks in mask_stripes(mask_logits, window):
        pixels.index_add_(0, labels[rows].flatten(), (masks.flatten(0, 1) > 0.5).to(pixels))
    most, winner = pixels[:-1].max(dim=0)  # (N,)
    return F.one_hot(winner, num_classes) * (most > 0).to(mask_logits)[:, None]


@MODELS.register_module()
class OracleAlignZeg(AlignZeg):
    """AlignZeg whose proposals are told their true classes at test (table 6). Arguments as :class:`AlignZeg`."""

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, data_samples: list[SegDataSample] | None = None, question: Question | None = None
    ) -> list[SegDataSample]:
        """As :meth:`AlignZeg.predict`; ``data_samples`` must hold ``gt_sem_seg`` at the size of the original image.

        Raises:
            ValueError: If they do not.
        """
        if not data_samples or not all('gt_sem_seg' in sample for sample in data_samples):
            raise ValueError(
                'An oracle needs `gt_sem_seg` in every sample: put `LoadAnnotations` in the test pipeline.'
            )
        mask_logits = self.extract_feat(inputs).mask_logits
        question = question or self.question
        num_classes, shape = len(question.classes), inputs.shape[2:]
        images = zip(upright(mask_logits, data_samples, shape, self.stride), data_samples, strict=True)
        probs = [
            oracle_probs(masks, sample.gt_sem_seg.data[0].long(), num_classes, window)
            for (masks, window), sample in images
        ]
        return self.segment(mask_logits, torch.stack(probs), data_samples, shape, question)
