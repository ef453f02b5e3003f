"""When two names mean one class: spellings that CLIP does not tell apart, and aliases between datasets."""

from __future__ import annotations

import unicodedata
from functools import cache
from importlib import resources


def fold(name: str) -> str:
    """What two spellings of one name share: CLIP does not tell cases and blanks apart."""
    return ' '.join(unicodedata.normalize('NFC', name).casefold().split())


def canonical(name: str) -> str:
    """One name for all aliases of a class, such as ``'couch'`` for ``'Sofa '``.

    Aliases are in ``assets/names/aliases.txt``. A name that is not there stands for itself.
    """
    return _aliases().get(fold(name), fold(name))


@cache
def _aliases() -> dict[str, str]:
    """The first name of its line for every name of the file."""
    text = (resources.files('mmseg_alignzeg') / 'assets/names/aliases.txt').read_text(encoding='utf-8')
    lines = [line.split(',') for line in text.splitlines() if line and not line.startswith('#')]
    return {fold(name): fold(names[0]) for names in lines for name in names}
