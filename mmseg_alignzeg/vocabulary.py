"""The vocabulary of a zero-shot benchmark: an ordered list of names and which of them are unseen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .aliases import canonical
from .printable import printable


@dataclass(frozen=True)
class Vocabulary:
    """Class names in label order, and the subset without labels in training.

    Args:
        classes: All class names; position ``i`` is label ``i``.
        unseen_classes: The subset of ``classes`` without training labels; may be empty.

    Raises:
        ValueError: If the list is empty, a name is empty or repeated, or an unseen name is not in ``classes``.
    """

    classes: tuple[str, ...]
    unseen_classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Configs pass lists; tuples make the vocabulary hashable and immutable.
        object.__setattr__(self, 'classes', tuple(self.classes))
        object.__setattr__(self, 'unseen_classes', tuple(self.unseen_classes))
        if not self.classes:
            raise ValueError('The vocabulary is empty: `classes` needs at least one class name.')
        for kind, names in (('classes', self.classes), ('unseen_classes', self.unseen_classes)):
            blank = [i for i, name in enumerate(names) if not isinstance(name, str) or not name.strip()]
            if blank:
                raise ValueError(f'`{kind}` has no name at position(s) {blank}: every class needs a non-empty string.')
            repeated = [name for name, count in Counter(names).items() if count > 1]
            if repeated:
                raise ValueError(f'`{kind}` names {repeated} more than once: class names must be unique.')
        known = set(self.classes)
        foreign = [name for name in self.unseen_classes if name not in known]
        if foreign:
            raise ValueError(
                f'`unseen_classes` names {foreign}, which are not among the {len(self.classes)} classes '
                f'({abridged(self.classes)}): use the exact names of `classes`.'
            )

    @classmethod
    def from_metainfo(cls, metainfo: Mapping[str, Any]) -> Vocabulary:
        """Read a vocabulary from a dataset's ``metainfo`` (keys ``classes`` and, optionally, ``unseen_classes``)."""
        if not metainfo.get('classes'):
            raise ValueError(f'The dataset metainfo has no `classes`; its keys are {sorted(metainfo)}.')
        return cls(metainfo['classes'], metainfo.get('unseen_classes') or ())

    @classmethod
    def of_test_data(cls, metainfo: Mapping[str, Any], trained: Vocabulary) -> Vocabulary:
        """Read the vocabulary of evaluated data; if ``unseen_classes`` is None, the classes not trained are unseen."""
        return trained.at_test(cls.from_metainfo(metainfo).classes, metainfo.get('unseen_classes'))

    def at_test(self, classes: Sequence[str], unseen: Sequence[str] | None = None) -> Vocabulary:
        """Return the vocabulary of a test after training on this one.

        Args:
            classes: Class names of the test, in label order.
            unseen: Names that count as unseen; by default all names without training labels.
        """
        asked = Vocabulary(tuple(classes))
        missing = (name for name in asked.classes if not self.has_labels_for(name))
        return Vocabulary(asked.classes, tuple(missing if unseen is None else unseen))

    @cached_property
    def seen_classes(self) -> tuple[str, ...]:
        """Names with training labels, in label order."""
        return tuple(name for name in self.classes if name not in self._unseen)

    @property
    def unseen_mask(self) -> Tensor:
        """(C,) bool, True for unseen classes."""
        # Not cached: torch.export cannot trace the lock that cached_property takes on Python 3.11.
        return names_mask(self.classes, self.unseen_classes)

    def has_labels_for(self, name: str) -> bool:
        """Return whether a class of any dataset was trained, under this name or an alias (see :func:`canonical`).

        Of a list of synonyms, as in A-847, the first one counts too; others may be words with further meanings.
        """
        first, _, _ = name.partition(',')
        return name not in self._unseen and not self._seen.isdisjoint({canonical(name), canonical(first)})

    @cached_property
    def _unseen(self) -> frozenset[str]:
        return frozenset(self.unseen_classes)

    @cached_property
    def _seen(self) -> frozenset[str]:
        return frozenset(map(canonical, self.seen_classes))


def names_mask(classes: Sequence[str], names: Collection[str]) -> Tensor:
    """Return (C,) bool, True for the classes in ``names``."""
    wanted = set(names)
    return torch.tensor([name in wanted for name in classes])


def abridged(names: Sequence[str], limit: int = 5) -> str:
    """Join the first names of a list, for a message."""
    return ', '.join(map(printable, names[:limit])) + (', …' if len(names) > limit else '') if names else 'none'
