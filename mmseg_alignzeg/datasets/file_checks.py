"""Checks of single image files and of lists of names. Each fault is a :class:`Problem`, printed as one line."""

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
    """A fault: the file, what is wrong, and how to fix it. ``kind`` groups problems with the same cause."""

    kind: str
    file: str
    what: str
    todo: str

    def __str__(self) -> str:
        return printable(f'{self.file}: {self.what}: {self.todo}')


def is_local(path: str) -> bool:
    """Return whether a path is in the file system, unlike ``s3://…`` or ``patterns://…``."""
    return '://' not in path


def evenly_spaced(length: int, count: int | None) -> list[int]:
    """Return at most ``count`` evenly spaced positions of ``length``, with first and last; all if ``count`` is None."""
    if count is None or count >= length:
        return list(range(length))
    return sorted(set(np.linspace(0, length - 1, count).round().astype(int).tolist()))


def list_fault(lines: Sequence[str]) -> tuple[str, str] | None:
    """Return the fault of a list of names and how to fix it; None if there is no fault."""
    blank = [number for number, line in enumerate(lines, 1) if not line.strip()]
    if blank:
        return f'line {blank[0]} is empty', 'remove it'
    repeated = [name for name, count in Counter(map(str.strip, lines)).items() if count > 1]
    if repeated:
        return f'{len(repeated):,} name(s) occur more than once, first: {repeated[0]!r}', 'remove the repeats'
    return None


def missing_files(paths: Sequence[str]) -> list[str]:
    """Return the paths that do not exist.

    Each folder is listed once, because a query for each file is slow on a network drive.
    """
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
    """Guess from the neighbouring files why a file is missing, and what to do; '' if there is no clue.

    Args:
        path: The missing file.
        suffix: The ending of its name.
        setting: The setting that gives the ending, ``'img_suffix'`` or ``'seg_map_suffix'``.
        names: The sorted content of its folder, if it is already known.
    """
    folder, name = osp.split(path)
    stem = name.removesuffix(suffix)
    if ' ' in stem or not osp.isdir(folder or '.'):
        return 'each line of the list must be a name, without `img_path` and suffix'
    names = sorted(names_in(folder)) if names is None else names
    # The first name from each of these on: the stem itself, or another suffix.
    begins = {begin: bisect_left(names, begin) for begin in (stem, f'{stem}.', f'{stem}_')}
    close = [(names[at], begin) for begin, at in begins.items() if at < len(names)]
    beside = next((name for name, begin in close if name == stem or (begin != stem and name.startswith(begin))), '')
    if not beside:
        return ''
    if suffix == '_labelTrainIds.png':
        return f'there is {beside}, which has not been converted to TrainIds'
    if beside == stem:
        return f'there is {beside}: names in the list must not have a suffix'
    return f'there is {beside}: rename it, or set `{setting}={beside.removeprefix(stem)!r}`'


def names_in(folder: str) -> list[str]:
    """Return the content of a folder; an empty list if the folder does not exist."""
    return os.listdir(folder or '.') if osp.isdir(folder or '.') else []


@dataclass(frozen=True)
class Header:
    """The properties in the header of an image file.

    Args:
        size: Width and height as stored.
        mode: PIL's mode, such as ``'RGB'``, ``'L'`` or ``'P'``.
        format: PIL's format, such as ``'PNG'``.
        turned: Whether EXIF specifies a quarter turn, which cv2 obeys when it loads an image (not a label map).
        palette: RGB values of a palette file, flat; empty otherwise.
    """

    size: tuple[int, int]
    mode: str
    format: str
    turned: bool = False
    palette: tuple[int, ...] = ()


def read_image(path: str, decode: bool = False) -> tuple[Header, np.ndarray | None]:
    """Read the header of an image file, and optionally its pixels.

    Args:
        path: A local file.
        decode: Whether to decode the pixels. If False, only a file without its end mark is decoded, to test it.

    Returns:
        The header, and the values as stored, (H, W) or (H, W, channels), or None.

    Raises:
        ValueError: If the file is missing, truncated or not an image. The message does not contain the path.
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
        reason = 'not an image' if unknown else next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f'cannot be read ({osp.getsize(path):,} bytes; {reason})') from None


def _has_end(path: str, file_format: str) -> bool:
    """Return whether the end mark of a JPEG or PNG is among the last bytes; a truncated download lacks it."""
    with open(path, 'rb') as file:
        file.seek(max(0, osp.getsize(path) - 1024))
        return END_MARKS.get(file_format, b'') in file.read()


def unreadable(path: str, error: ValueError) -> Problem:
    """Return the problem of a file that :func:`read_image` refuses."""
    return Problem('unreadable', path, str(error), 'download or create this file again')


def label_problems(path: str, label: Header) -> list[Problem]:
    """Return why a file cannot be a label map, judged by its header."""
    if label.format in ('JPEG', 'MPO'):
        todo = 'JPEG changes values; create PNG label maps from the original labels'
        return [Problem('jpeg', path, 'a label map that is a JPEG', todo)]
    if label.mode not in SINGLE_CHANNEL:
        what = f'has several channels (mode {label.mode}) where a label map has one, the class numbers'
        todo = (
            'convert colours to numbers as in docs/custom_dataset.md (alignzeg check lists the colours), or '
            'copy palette PNG files as they are instead of saving them as RGB'
        )
        return [Problem('channels', path, what, todo)]
    return []


def size_problems(path: str, image: Header, label: Header) -> list[Problem]:
    """Return a problem if an image and its label map, at ``path``, have different sizes."""
    shown = image.size[::-1] if image.turned else image.size
    if shown == label.size:
        return []
    what = 'a label map of {} × {} pixels for an image of {} × {}'.format(*label.size, *shown)
    if image.turned and image.size == label.size:
        todo = 'EXIF rotates the image when it is loaded; save it without that tag'
    else:
        todo = 'create the label map in the size of its image (resize labels with NEAREST, which mixes no values)'
    return [Problem('size', path, what, todo)]
