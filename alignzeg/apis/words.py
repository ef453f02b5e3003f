"""Checks of users' class names, and their split into seen and unseen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from mmseg_alignzeg.aliases import fold
from mmseg_alignzeg.models import EmbeddingBank
from mmseg_alignzeg.models.class_embeddings import Bank
from mmseg_alignzeg.vocabulary import Vocabulary, abridged


@dataclass(frozen=True)
class Words:
    """The class names to predict.

    Attributes:
        classes: Class names in label order, without surrounding spaces.
        unseen: Those that count as unseen, in label order.
        notes: Messages for the user, one line each.
        far: Those far from everything that the model was trained on.
    """

    classes: tuple[str, ...]
    unseen: tuple[str, ...]
    notes: tuple[str, ...] = ()
    far: tuple[str, ...] = ()


def check_words(classes: Sequence[str] | None, unseen: Sequence[str] | None, trained: Vocabulary) -> Words:
    """Check class names and determine which are unseen.

    Args:
        classes: Class names, or None for those of the model.
        unseen: Names that count as unseen, whether trained or not; None for all that were not trained.
        trained: The vocabulary of the model.

    Raises:
        ValueError: If the list is empty, a name is blank or repeated, or an unseen name is not in ``classes``.
    """
    names = trained.classes if classes is None else _names(classes, 'classes')
    if not names:
        raise ValueError('`classes` is empty: give at least one word, or None for the classes of the model.')
    position: dict[str, int] = {}
    for i, name in enumerate(names):
        if fold(name) in position:
            raise ValueError(f'`classes` has {name!r} twice (positions {position[fold(name)]} and {i}).')
        position[fold(name)] = i
    if unseen is None:
        return Words(names, tuple(name for name in names if not trained.has_labels_for(name)))
    asked = [fold(name) for name in _names(unseen, 'unseen')]
    foreign = [name for name in asked if name not in position]
    if foreign:
        raise ValueError(
            f'`unseen` names {abridged(foreign)}, not among the {len(names):,} classes ({abridged(names)}).'
        )
    chosen = set(asked)
    chosen_names = tuple(name for name in names if fold(name) in chosen)
    told = list(filter(trained.has_labels_for, chosen_names))
    notes = (f'treated as unseen as requested, although trained: {abridged(told)}',) if told else ()
    return Words(names, chosen_names, notes)


def cut_words(words: Words, bank: Bank) -> Words:
    """Add a note about names whose prompts exceed CLIP's context length: its tokenizer cuts their ends silently."""
    if isinstance(bank, EmbeddingBank):
        return words
    room = bank.source.architecture['text_cfg'].get('context_length', 77)
    longest = max(bank.templates, key=len)
    prompts = [(name, longest.format(phrase)) for name in words.classes for phrase in bank.names.phrases(name)]
    # A token covers at least one byte; two more mark the start and the end.
    suspects = [(name, prompt) for name, prompt in prompts if len(prompt.encode()) + 2 > room]
    if not suspects:
        return words
    tokenizer = bank.source.load_tokenizer()
    cut = list(dict.fromkeys(name for name, prompt in suspects if num_tokens(prompt, tokenizer) > room))
    if not cut:
        return words
    note = f'CLIP reads only {room} tokens and ignores the end of {len(cut):,} long name(s): {cut[0][:40]!r}…'
    return replace(words, notes=(*words.notes, note))


def num_tokens(prompt: str, tokenizer: Callable[..., Tensor]) -> int:
    """Return the number of tokens of a prompt, with start and end mark, for any tokenizer of open_clip."""
    tokens = tokenizer([prompt], context_length=len(prompt.encode()) + 3)[0]  # the last one is padding
    return int((tokens != tokens[-1]).nonzero().max()) + 1


def _names(given: Any, argument: str) -> tuple[str, ...]:
    """Return the words of a list, stripped; raise ValueError if an item is not a word."""
    if isinstance(given, (str, bytes)) or not hasattr(given, '__iter__'):
        raise ValueError(f'`{argument}` must be a list of words, got {given!r}.')
    names = []
    for i, name in enumerate(given):
        if not isinstance(name, str) or not any(letter.isprintable() and not letter.isspace() for letter in name):
            raise ValueError(f'`{argument}` has no word at position {i} ({name!r}): every class needs one.')
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError(f'`{argument}` has {name!r} at position {i}, which is not valid Unicode.') from None
        names.append(' '.join(name.split()))
    return tuple(names)
