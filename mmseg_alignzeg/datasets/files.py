"""What can be told of image files and lists of names by themselves; every fault is a :class:`Problem`, one line."""

from __future__ import annotations

import os
import os.path as osp
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image

from ..open_picture import open_picture
from ..printable import printable

SINGLE_CHANNEL = ('1', 'L', 'P', 'I', 'I;16', 'I;16L', 'I;16B', 'F')
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
IMAGE_ENDINGS = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
SUFFIX_SETTING = {'img_path': 'img_suffix', 'seg_map_path': 'seg_map_suffix'}  # of a dataset, by the folder's key
END_MARKS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND'}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what, and the way out. ``kind`` groups problems of one cause."""

    kind: str
    file: str
    what: str
    todo: str

    def __str__(self) -> str:
        return printable(f'{self.file}: {self.what}: {self.todo}')


def is_local(path: str) -> bool:
    """Whether a path is one of the file system, not ``s3://…`` or ``patterns://…``."""
    return '://' not in path


def evenly_spaced(length: int, count: int | None) -> list[int]:
    """At most ``count`` positions of ``length``, first and last included; all of them without a count."""
    if count is None or count >= length:
        return list(range(length))
    return sorted(set(np.linspace(0, length - 1, count).round().astype(int).tolist()))


def list_fault(lines: Sequence[str]) -> tuple[str, str] | None:
    """What is wrong with the lines of a list of names, and what to do; None if nothing is."""
    blank = [number for number, line in enumerate(lines, 1) if not line.strip()]
    if blank:
        return f'line {blank[0]} is empty', 'remove it'
    repeated = [name for name, count in Counter(map(str.strip, lines)).items() if count > 1]
    if repeated:
        return f'{len(repeated):,} name(s) stand in it more than once, first: {repeated[0]!r}', 'remove the repeats'
    return None


def missing_files(paths: Sequence[str]) -> list[str]:
    """Paths that do not exist, found with one listing per folder: asking for each file is slow on a network drive."""
    listings: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = osp.split(path)
        if folder not in listings:
            listings[folder] = set(names_in(folder))
        if name not in listings[folder]:
            missing.append(path)
    return missing


def missing_hint(path: str, suffix: str, setting: str, names: Sequence[str] | None = None) -> str:
    """Why a file may be missing and what to do, from what lies beside it; '' if nothing tells.

    Args:
        path: The missing file.
        suffix: How it ends.
        setting: Where the config says so, ``'img_suffix'`` or ``'seg_map_suffix'``.
        names: What its folder holds, sorted, where that is known already.
    """
    folder, name = osp.split(path)
    stem = name.removesuffix(suffix)
    if ' ' in stem or not osp.isdir(folder or '.'):
        return 'a line of the list is one name, without `img_path` and suffix'
    names = sorted(names_in(folder)) if names is None else names
    # The first name from each of these on: the stem itself, or another suffix.
    begins = {begin: bisect_left(names, begin) for begin in (stem, f'{stem}.', f'{stem}_')}
    close = [(names[at], begin) for begin, at in begins.items() if at < len(names)]
    beside = next((name for name, begin in close if name == stem or (begin != stem and name.startswith(begin))), '')
    if not beside:
        return ''
    if suffix == '_labelTrainIds.png':
        return f'there is {beside}, which is not converted to TrainIds yet'
    if beside == stem:
        return f'there is {beside}: the lines of a list have no suffix'
    return f'there is {beside}: rename it, or set `{setting}={beside.removeprefix(stem)!r}`'


def names_in(folder: str) -> list[str]:
    """What lies in a folder; nothing if there is no such folder."""
    return os.listdir(folder or '.') if osp.isdir(folder or '.') else []


@dataclass(frozen=True)
class Header:
    """What the head of an image file says.

    Args:
        size: Width and height as stored.
        mode: PIL's mode, such as ``'RGB'``, ``'L'`` or ``'P'``.
        format: PIL's format, such as ``'PNG'``.
        turned: Whether EXIF asks for a quarter turn, which cv2 obeys when it loads an image (not a label map).
        palette: RGB of the values of a palette file, flat; empty otherwise.
    """

    size: tuple[int, int]
    mode: str
    format: str
    turned: bool = False
    palette: tuple[int, ...] = ()


def read_image(path: str, decode: bool = False) -> tuple[Header, np.ndarray | None]:
    """Read an image file: its head, and its pixels if asked.

    Args:
        path: A local file.
        decode: Whether to decode the pixels. Without, only a file whose end mark is missing is decoded.

    Returns:
        The head, and the values as stored, (H, W) or (H, W, channels), or None.

    Raises:
        ValueError: If the file is missing, no image, or cut off; without its path.
    """
    try:
        with open_picture(path) as image:
            turned = 'exif' in image.info and image.getexif().get(ExifTags.Base.Orientation) in TURNED
            palette = tuple(image.getpalette() or ()) if image.mode == 'P' else ()
            header = Header(image.size, image.mode, image.format or '', turned, palette)
            if decode or not _has_end(path, header.format):
                image.load()
            return header, np.asarray(image) if decode else None
    except FileNotFoundError:
        raise ValueError('does not exist') from None
    except Exception as error:  # every decoder has its own exceptions; all mean the same to the user
        unknown = isinstance(error, Image.UnidentifiedImageError)
        reason = 'no image' if unknown else next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f'cannot be read ({osp.getsize(path):,} bytes; {reason})') from None


def _has_end(path: str, file_format: str) -> bool:
    """Whether the mark that ends a JPEG or PNG is among the last bytes: a download that broke off lacks it."""
    with open(path, 'rb') as file:
        file.seek(max(0, osp.getsize(path) - 1024))
        return END_MARKS.get(file_format, b'') in file.read()


def unreadable(path: str, error: ValueError) -> Problem:
    """The problem of a file that :func:`read_image` refuses."""
    return Problem('unreadable', path, str(error), 'fetch or make this file again')


def label_problems(path: str, label: Header) -> list[Problem]:
    """Why a file cannot be a label map, from its head."""
    if label.format in ('JPEG', 'MPO'):
        todo = 'JPEG changes values; make PNG label maps from the original labels'
        return [Problem('jpeg', path, 'a label map that is a JPEG', todo)]
    if label.mode not in SINGLE_CHANNEL:
        what = f'has several channels (mode {label.mode}) where a label map has one, the number of the class'
        todo = (
            'turn colours into numbers as docs/custom_dataset.md shows (tools/check_dataset.py lists the colours), or '
            'copy palette PNG files as they are instead of saving them as RGB'
        )
        return [Problem('channels', path, what, todo)]
    return []


def size_problems(path: str, image: Header, label: Header) -> list[Problem]:
    """Whether an image and its label map, at ``path``, have different sizes."""
    shown = image.size[::-1] if image.turned else image.size
    if shown == label.size:
        return []
    what = 'a label map of {} × {} pixels for an image of {} × {}'.format(*label.size, *shown)
    if image.turned and image.size == label.size:
        todo = 'EXIF turns the image when it is loaded; save it without that tag'
    else:
        todo = 'make the label map in the size of its image (resize labels with NEAREST, which mixes no values)'
    return [Problem('size', path, what, todo)]
