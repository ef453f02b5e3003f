"""A legend with names in any script, the share of each class, and a text mark for unseen classes."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from matplotlib.font_manager import findfont, fontManager, get_font
from PIL import Image, ImageDraw, ImageFont

from .label_maps import shorten

#: Fonts for names, in order of preference, if installed; matplotlib includes the first.
FONTS = (
    'DejaVu Sans', 'Noto Sans', 'Noto Sans CJK SC', 'Noto Sans CJK JP', 'Microsoft YaHei', 'Hiragino Sans',
    'PingFang SC', 'Arial Unicode MS', 'Noto Emoji', 'Segoe UI Symbol',
)  # fmt: skip
LONGEST = 80  # maximum number of characters of a name


@dataclass(frozen=True)
class Entry:
    """One line of a legend.

    Attributes:
        name: Name of the class.
        share: Share of the pixels, 0..1.
        colour: RGB, 0..255.
        unseen: Whether the class is marked as unseen and framed.
    """

    name: str
    share: float
    colour: tuple[int, int, int]
    unseen: bool = False


def draw_legend(entries: Sequence[Entry], width: int, size: int) -> np.ndarray:
    """Draw entries row by row, in as many columns as fit.

    Args:
        entries: Entries in drawing order.
        width: Width in pixels; at least 12 times ``size``.
        size: Height of the text in pixels.

    Returns:
        (height, width, 3) uint8 RGB on white; no rows without entries.
    """
    drawn = [_fitting(entry, width - round(3.5 * size), size) for entry in entries]
    cell = max((font.getlength(name) + font.getlength(share) for name, share, font in drawn), default=0) + 3 * size
    columns = max(1, int((width - size) // cell))
    rows = -(-len(entries) // columns)
    step = round(1.75 * size)
    picture = Image.new('RGB', (width, legend_height(rows, size)), 'white')
    draw = ImageDraw.Draw(picture)
    line = max(1, round(size / 8))
    for number, (entry, (name, share, font)) in enumerate(zip(entries, drawn, strict=True)):
        left = size + round(number % columns * cell)
        top = size // 2 + number // columns * step
        frame = 'black' if entry.unseen else None
        draw.rectangle((left, top, left + size, top + size), fill=entry.colour, outline=frame, width=line)
        left += round(1.5 * size)
        draw.text((left, top + size / 2), name, fill='black', font=font, anchor='lm')
        # Drawn separately from the name: in one line with a right-to-left script, it would be on the wrong side.
        draw.text((left + font.getlength(name), top + size / 2), share, fill='black', font=font, anchor='lm')
    return np.asarray(picture)


def legend_height(rows: int, size: int) -> int:
    """Return the height in pixels of a legend with this number of rows of text of ``size`` pixels."""
    return rows * round(1.75 * size) + size if rows else 0


def share_text(share: float) -> str:
    """Format a share, 0..1, in percent."""
    return '< 0.1 %' if 0 < share < 0.001 else f'{share:.1%}'.replace('%', ' %')


def _fitting(entry: Entry, room: int, size: int) -> tuple[str, str, ImageFont.FreeTypeFont]:
    """Return name, share and font of an entry; the name is shortened so that both fit into ``room`` pixels."""
    path, name = _legible(entry.name)
    font = ImageFont.truetype(path, size)
    name += ' (unseen)' if entry.unseen else ''
    share = f'  {share_text(entry.share)}'
    length = min(len(name), LONGEST)
    while font.getlength(shorten(name, length)) + font.getlength(share) > room and length > 10:
        length -= 1
    return shorten(name, length), share, font


def _legible(name: str) -> tuple[str, str]:
    """Return a font file with every character of a name, and the name; if there is none, spell out other characters."""
    fonts = _fonts()
    for path, characters in fonts:
        if all(ord(character) in characters for character in name):
            return path, name
    path, characters = fonts[0]
    return path, ''.join(c if ord(c) in characters else _in_words(c) for c in name)


def _in_words(character: str) -> str:
    """Return the Unicode name of a character; an empty string if it only joins or modifies others."""
    category = unicodedata.category(character)
    if category in ('Cf', 'Mn', 'Me'):
        return ''
    return ' ' if category == 'Cc' else f'[{unicodedata.name(character, f"U+{ord(character):04X}").lower()}]'


@cache
def _fonts() -> list[tuple[str, frozenset[int]]]:
    """Return file and characters of each installed font of ``FONTS``."""
    installed = set(fontManager.get_font_names())
    paths = [str(findfont(name)) for name in FONTS if name in installed]
    return [(path, frozenset(get_font(path).get_charmap())) for path in paths]
