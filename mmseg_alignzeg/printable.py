"""Foreign text that is safe to print: names of files, words, metadata of checkpoints."""

from __future__ import annotations

import unicodedata

UNPRINTABLE = frozenset({'Cc', 'Cf', 'Cs', 'Zl', 'Zp'})  # control, format (bidi too), surrogate, line, paragraph
JOINERS = '\u200c\u200d'  # format characters that spelling (Persian) and emoji need; they move nothing


def printable(text: object) -> str:
    r"""The text with escapes such as ``\n``, ``\x1b`` and ``\u202e`` for what would steer a terminal or a reader.

    Control characters (line ends and tabs included), bidirectional and other format characters, surrogates (bytes of
    file names that are not UTF-8) and line separators are escaped, so that one text stays one line.
    """
    line = str(text)
    if line.isascii() and line.isprintable():
        return line
    return ''.join(map(_escaped, line))


def _escaped(letter: str) -> str:
    if unicodedata.category(letter) not in UNPRINTABLE or letter in JOINERS:
        return letter
    return letter.encode('unicode_escape').decode()
