"""Pictures as people have them: found by path, folder or array, read upright as RGB."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from mmseg_alignzeg.open_picture import open_picture, readable_formats

ROWS = 1024  # rows that leave Pillow at a time: a second copy of a large picture would double the memory


@dataclass(frozen=True)
class Source:
    """One picture that is still to be read.

    Attributes:
        name: Its path as given, or ``array 0``, ``array 1``, … by the position in the list.
        array: Its pixels, if it came as an array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8.
        content: All bytes of its file, if they are in memory already; no file is opened then.
    """

    name: str
    array: np.ndarray | None = None
    content: bytes | None = None


def suffixes() -> frozenset[str]:
    """Endings of file names, lower case with their dot, that this Pillow can read as a picture."""
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in readable_formats())


def find_images(inputs: Any) -> list[Source]:
    """List pictures, without reading them.

    Of a folder, the files with a picture's ending are taken in the order of their names; not those of folders within
    it, nor hidden ones.

    Args:
        inputs: A path, a folder, an array, or a list of those.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If there is no picture, or something is neither path nor a uint8 array of a picture's shape.
    """
    items = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    if not items:
        raise ValueError('There is no picture to segment: the list is empty.')
    return [source for position, item in enumerate(items) for source in _expand(item, position)]


def _expand(item: Any, position: int) -> Sequence[Source]:
    if isinstance(item, np.ndarray):
        _check_array(item, position)
        return [Source(f'array {position}', item)]
    if not isinstance(item, (str, os.PathLike)):
        raise ValueError(
            f'Input {position} is of type {type(item).__name__}: give a path, a folder, or a uint8 RGB array (H, W, 3).'
        )
    path = Path(item)
    if not path.exists():
        raise FileNotFoundError(f'{os.fspath(item)!r} does not exist: give the path of a picture or of a folder.')
    if path.is_file():
        return [Source(os.fspath(item))]
    if not path.is_dir():
        raise ValueError(f'{os.fspath(item)!r} is neither a file nor a folder.')
    endings = suffixes()
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in endings and not file.name.startswith('.'))
    files = [file for file in files if file.is_file()]
    if not files:
        count = sum(1 for _ in path.iterdir())
        raise ValueError(
            f'The folder {os.fspath(item)!r} holds no picture ({count:,} other entries; folders within it are not '
            'searched): give a folder with files such as .jpg or .png.'
        )
    return [Source(str(file)) for file in files]


def _check_array(array: np.ndarray, position: int) -> None:
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if array.dtype != np.uint8 or not shaped or not array.size:
        raise ValueError(
            f'Input {position} is an array of {array.dtype} with shape {array.shape}: expected uint8 RGB (H, W, 3), '
            'RGBA (H, W, 4) or grey (H, W).'
        )


def read_rgb(source: Source) -> np.ndarray:
    """Read a picture upright, as (H, W, 3) uint8 RGB.

    EXIF's orientation is obeyed, transparency becomes white, 16-bit grey is scaled to 8 bits, CMYK and palettes are
    converted as Pillow does (without colour profiles), and of an animation the first frame counts.

    Raises:
        ValueError: If it is no picture, cut off, larger than Pillow's limit, or has pixels without an agreed range;
            without the name.
    """
    if source.array is not None:
        array = source.array
        if array.ndim == 3 and array.shape[2] == 3:
            return np.ascontiguousarray(array)
        return _pixels(_to_rgb(Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)))
    try:
        with warnings.catch_warnings():  # Pillow warns from half of its limit on
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            with open_picture(_file(source)) as image:
                ImageOps.exif_transpose(image, in_place=True)
                return _pixels(_to_rgb(image))
    except FileNotFoundError:
        raise ValueError('does not exist any more') from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(f"has more than {limit:,} pixels, Pillow's limit against decompression bombs") from None
    except Image.UnidentifiedImageError:
        size = os.path.getsize(source.name) if source.content is None else len(source.content)
        raise ValueError(f'is no picture that Pillow can read ({size:,} bytes)' if size else 'is empty') from None
    except _UnclearRangeError:
        raise
    except Exception as error:  # every decoder has its own exceptions; all mean the same to the user
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f'cannot be read: {reason}') from error


def _file(source: Source) -> str | io.BytesIO:
    return source.name if source.content is None else io.BytesIO(source.content)


class _UnclearRangeError(ValueError):
    """Pixels whose range nobody can know."""


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB."""
    if image.mode == 'F':
        raise _UnclearRangeError('has floating-point pixels, which have no agreed range: save it with 8 or 16 bits')
    if image.mode == 'I' or image.mode.startswith('I;16'):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise _UnclearRangeError('has 32-bit integer pixels beyond 0..65535: save it with 8 or 16 bits')
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert('RGB')
    if image.has_transparency_data:
        image = image.convert('RGBA')
        return Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image).convert('RGB')
    return image if image.mode == 'RGB' else image.convert('RGB')


def _pixels(image: Image.Image) -> np.ndarray:
    """RGB pixels as an array of their own."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, ROWS):
        bottom = min(top + ROWS, image.height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels
