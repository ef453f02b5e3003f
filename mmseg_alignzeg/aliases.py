"""Equivalence of class names: spellings that CLIP does not distinguish, and aliases between datasets."""

from __future__ import annotations

import unicodedata
from functools import cache
from importlib import resources


def fold(name: str) -> str:
    """Normalise case, spaces and Unicode form, which CLIP does not distinguish."""
    return ' '.join(unicodedata.normalize('NFC', name).casefold().split())


def canonical(name: str) -> str:
    """Return the same name for all aliases of a class, such as ``'couch'`` for ``'Sofa '``.

    Aliases are listed in ``assets/names/aliases.txt``. A name that is not listed is only normalised.
    """
    return _aliases().get(fold(name), fold(name))


@cache
def _aliases() -> dict[str, str]:
    """Return, for every name in the file, the first name of its line."""
    text = (resources.files('mmseg_alignzeg') / 'assets/names/aliases.txt').read_text(encoding='utf-8')
    lines = [line.split(',') for line in text.splitlines() if line and not line.startswith('#')]
    return {fold(name): fold(names[0]) for names in lines for name in names}
