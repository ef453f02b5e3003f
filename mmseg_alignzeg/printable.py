"""Escaping of untrusted text before it is printed: file names, class names, metadata of checkpoints."""

from __future__ import annotations

import unicodedata

UNPRINTABLE = frozenset({'Cc', 'Cf', 'Cs', 'Zl', 'Zp'})  # control, format (bidi too), surrogate, line, paragraph
JOINERS = '\u200c\u200d'  # harmless format characters, needed for Persian spelling and for emoji


def printable(text: object) -> str:
    r"""Escape characters that could control a terminal or mislead a reader: ``\n``, ``\x1b``, ``\u202e`` and others.

    Control characters (including line ends and tabs), bidirectional and other format characters, surrogates (bytes of
    file names that are not UTF-8) and line separators are escaped, so the result is always a single line.
    """
    line = str(text)
    if line.isascii() and line.isprintable():
        return line
    return ''.join(map(_escaped, line))


def _escaped(letter: str) -> str:
    if unicodedata.category(letter) not in UNPRINTABLE or letter in JOINERS:
        return letter
    return letter.encode('unicode_escape').decode()
