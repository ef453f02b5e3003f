"""A legend for people: names in any script, the share of each class, and a mark in words on unseen ones."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from matplotlib.font_manager import findfont, fontManager, get_font
from PIL import Image, ImageDraw, ImageFont

from .label_maps import shorten

#: Fonts that are tried for a name, in this order, where they are installed; the first comes with matplotlib.
FONTS = (
    'DejaVu Sans', 'Noto Sans', 'Noto Sans CJK SC', 'Noto Sans CJK JP', 'Microsoft YaHei', 'Hiragino Sans',
    'PingFang SC', 'Arial Unicode MS', 'Noto Emoji', 'Segoe UI Symbol',
)  # fmt: skip
LONGEST = 80  # characters of a name, however wide the picture


@dataclass(frozen=True)
class Entry:
    """One line of a legend.

    Attributes:
        name: Of the class.
        share: Of the pixels, 0..1.
        colour: RGB, 0..255.
        unseen: Whether it says so and is framed.
    """

    name: str
    share: float
    colour: tuple[int, int, int]
    unseen: bool = False


def draw_legend(entries: Sequence[Entry], width: int, size: int) -> np.ndarray:
    """Draw entries row by row, as many columns as fit.

    Args:
        entries: In the order to draw.
        width: Pixels; at least 12 times ``size``.
        size: Height of the text in pixels.

    Returns:
        (height, width, 3) uint8 RGB on white; no rows without entries.
    """
    drawn = [_fitting(entry, width - round(3.5 * size), size) for entry in entries]
    cell = max((font.getlength(name) + font.getlength(share) for name, share, font in drawn), default=0) + 3 * size
    columns = max(1, int((width - size) // cell))
    rows = -(-len(entries) // columns)
    step = round(1.75 * size)
    picture = Image.new('RGB', (width, rows * step + size if rows else 0), 'white')
    draw = ImageDraw.Draw(picture)
    line = max(1, round(size / 8))
    for number, (entry, (name, share, font)) in enumerate(zip(entries, drawn, strict=True)):
        left = size + round(number % columns * cell)
        top = size // 2 + number // columns * step
        frame = 'black' if entry.unseen else None
        draw.rectangle((left, top, left + size, top + size), fill=entry.colour, outline=frame, width=line)
        left += round(1.5 * size)
        draw.text((left, top + size / 2), name, fill='black', font=font, anchor='lm')
        # Apart from the name: in one line with a script that runs from right to left it would land on the wrong side.
        draw.text((left + font.getlength(name), top + size / 2), share, fill='black', font=font, anchor='lm')
    return np.asarray(picture)


def share_text(share: float) -> str:
    """A share, 0..1, in percent."""
    return '< 0.1 %' if 0 < share < 0.001 else f'{share:.1%}'.replace('%', ' %')


def _fitting(entry: Entry, room: int, size: int) -> tuple[str, str, ImageFont.FreeTypeFont]:
    """Name and share of an entry, the name cut so that both fit into ``room`` pixels, and their font."""
    path, name = _legible(entry.name)
    font = ImageFont.truetype(path, size)
    name += ' (unseen)' if entry.unseen else ''
    share = f'  {share_text(entry.share)}'
    length = min(len(name), LONGEST)
    while font.getlength(shorten(name, length)) + font.getlength(share) > room and length > 10:
        length -= 1
    return shorten(name, length), share, font


def _legible(name: str) -> tuple[str, str]:
    """A font file that has every character of a name and the name; without such a font, other characters in words."""
    fonts = _fonts()
    for path, characters in fonts:
        if all(ord(character) in characters for character in name):
            return path, name
    path, characters = fonts[0]
    return path, ''.join(c if ord(c) in characters else _in_words(c) for c in name)


def _in_words(character: str) -> str:
    """What Unicode calls a character; nothing for one that only joins or varies others."""
    category = unicodedata.category(character)
    if category in ('Cf', 'Mn', 'Me'):
        return ''
    return ' ' if category == 'Cc' else f'[{unicodedata.name(character, f"U+{ord(character):04X}").lower()}]'


@cache
def _fonts() -> list[tuple[str, frozenset[int]]]:
    """File and characters of each of ``FONTS`` that is there."""
    installed = set(fontManager.get_font_names())
    paths = [str(findfont(name)) for name in FONTS if name in installed]
    return [(path, frozenset(get_font(path).get_charmap())) for path in paths]
