"""What the model sees in images, whatever the class names, and the predictions that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from mmengine.dataset import pseudo_collate
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_alignzeg.models import AlignZeg
from mmseg_alignzeg.models.answer import Answer, Drawing
from mmseg_alignzeg.models.proposals import Proposals

from .prediction import OTHERS, Prediction, best_score, drawn, find_proposals, label_map
from .preparation import Item
from .request import OTHERS_BELOW, Request


@dataclass(frozen=True)
class Look:
    """Proposals of images with the same input size. They answer any number of questions.

    Attributes:
        items: The B images.
        views: For each view of the decoder, the proposals of the B images.
        samples: B data samples with meta information.
        shape: Rows and columns of the input.
    """

    items: list[Item]
    views: list[Proposals]
    samples: list[SegDataSample]
    shape: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Bytes of the images, the inputs and the proposals."""
        tensors = [tensor for view in self.views for tensor in (view.mask_logits, view.feats, view.cls_feats)]
        tensors += [item.packed['inputs'] for item in self.items]
        return sum(item.image.nbytes for item in self.items) + sum(tensor.nbytes for tensor in tensors)


@torch.no_grad()
def look_at(model: AlignZeg, items: list[Item]) -> Look:
    """Compute the proposals of images with the same input size."""
    data = model.data_preprocessor(pseudo_collate([item.packed for item in items]), False)
    return Look(items, model.look(data['inputs']), data['data_samples'], tuple(data['inputs'].shape[2:]))


def predictions(
    items: Sequence[Item],
    answers: Sequence[Drawing],
    indicator: Tensor | None,
    request: Request,
    notes: Sequence[str] = (),
) -> list[Prediction]:
    """Draw the answers for images.

    Args:
        items: B images.
        answers: B answers.
        indicator: I, (B, N) probabilities, or None.
        request: What was asked.
        notes: Notes that come first in each prediction.
    """
    found, words = [], request.words
    for i, (item, answer) in enumerate(zip(items, answers, strict=True)):
        told, proposals = [*notes, *item.notes, *words.notes], None
        canvas = answer.window if request.tiling else drawn(answer.window)
        if canvas != answer.window:
            told.append('labels drawn at {1} × {0} pixels and enlarged'.format(*canvas.size))
        if isinstance(answer, Answer) and request.proposals:
            own = None if indicator is None else indicator[i].float()
            proposals, more = find_proposals(answer, own, words.classes)
            if more:
                told.append(f'{more} more proposals are left out: their masks would take too much memory')
        labels = label_map(answer, canvas, OTHERS_BELOW if request.others else None)
        classes = (*words.classes, OTHERS) if request.others else words.classes
        sure = best_score(answer) if isinstance(answer, Answer) else None
        result = Prediction(item.source.name, item.image, labels, classes, words.unseen, tuple(told), proposals)
        found.append(replace(result, best_score=sure, far_words=words.far))
    return found
