"""Hints that a result may be poor: no proposal is sure, or words are far from what the model was trained on.

The limits were measured with the included model. Of 300 scenes with its own 20 words, the least sure has a best score
of .340; with street words, the surest of 160 photographs has .155. Among its words, none is further from the trained
ones than .59 (limit .45), but words that its text tower never read all have the embedding of ``x``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmseg_alignzeg.aliases import fold
from mmseg_alignzeg.models import EmbeddingBank
from mmseg_alignzeg.models.class_embeddings import Bank
from mmseg_alignzeg.vocabulary import Vocabulary, abridged

SURE = 1 / 3  # best score of a picture's proposals, below which none is sure
PROBES = tuple(' '.join('x' * count) for count in range(1, 7))  # names that mean nothing, of one token to six
SAME = 0.999  # cosine similarity, from which two names are one to the text tower


def all_hints(best_score: float | None, far_words: Sequence[str], count: int) -> tuple[str, ...]:
    """Return the hints about a picture, one line each.

    Args:
        best_score: Highest score of a proposal, 0..1, or None if unknown.
        far_words: Words far from the trained ones.
        count: Number of all words.
    """
    return (*unsure_hint(best_score), *far_hint(far_words, count))


def unsure_hint(best_score: float | None) -> tuple[str, ...]:
    """Return a hint if no proposal is sure."""
    if best_score is None or best_score >= SURE:
        return ()
    return (f'no proposal is sure: the best score is {best_score:.3f} of 1, the labels are probably wrong',)


def far_hint(far_words: Sequence[str], count: int) -> tuple[str, ...]:
    """Return a hint if words are far from the trained ones."""
    if not far_words:
        return ()
    are = 'is' if len(far_words) == 1 else 'are'
    told = f'{len(far_words):,} of {count:,} words {are}' if count > 1 else 'the word is'
    return (f'{told} far from what this model was trained on: {abridged(far_words)}',)


@torch.no_grad()
def far_words(classes: Sequence[str], trained: Vocabulary, bank: Bank) -> tuple[str, ...]:
    """Return the class names that are far from everything that the model was trained on.

    These are names less similar to each trained name than every trained name is to some other one, and names that the
    text tower reads as if they meant nothing. Names of the training vocabulary, unseen ones too, are never among them.

    Args:
        classes: Class names.
        trained: Vocabulary of the training.
        bank: Embeds names.
    """
    known = set(map(fold, trained.classes))
    asked = [i for i, name in enumerate(classes) if fold(name) not in known and not trained.has_labels_for(name)]
    if not asked or len(trained.seen_classes) < 2:
        return ()
    found = bank(classes)[asked]  # (A, S, D)
    if isinstance(bank, EmbeddingBank):
        seen = bank(trained.seen_classes)
    else:  # with the unseen ones, these embeddings are in the cache
        seen = bank(trained.classes)[~trained.unseen_mask]
    limit = _similarity(seen, seen).fill_diagonal_(-1).amax(dim=1).min()
    far = _similarity(found, seen).amax(dim=1) < limit
    if not isinstance(bank, EmbeddingBank):
        far |= _similarity(found, bank(PROBES)).amax(dim=1) > SAME
    return tuple(classes[i] for i, is_far in zip(asked, far.tolist(), strict=True) if is_far)


def _similarity(names: Tensor, others: Tensor) -> Tensor:
    """Return the highest cosine similarity of any phrases of names (A, S, D) and (B, S, D), (A, B)."""
    return torch.einsum('asd,btd->abst', names, others).amax(dim=(2, 3))
