"""Find input images by path, folder, array, bytes or Pillow image, and read them upright as RGB."""

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

ROWS = 1024  # rows converted at a time, because a second full copy of a large image would double the memory


@dataclass(frozen=True)
class Source:
    """One image that has not been read yet.

    Attributes:
        name: Its path as given; for one in memory, its kind and position in the list: ``array 0``, ``image 1``, ….
        array: Its pixels, if it was given as an array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8.
        content: All bytes of its file, if they are already in memory; no file is opened then.
        picture: The Pillow image, if it was given as one; it is read, but not changed.
    """

    name: str
    array: np.ndarray | None = None
    content: bytes | None = None
    picture: Image.Image | None = None


def suffixes() -> frozenset[str]:
    """Return the file suffixes, in lower case with the dot, of the image formats that this Pillow can read."""
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in readable_formats())


def find_images(inputs: Any) -> list[Source]:
    """List images without reading them.

    For a folder, all files with an image suffix are listed in alphabetical order, without subfolders and hidden files.

    Args:
        inputs: A path, a folder, a uint8 array, a Pillow image, the bytes of an image file, or a list of those.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If the list is empty, or an item is none of these, or an array without the shape of an image.
    """
    items = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    if not items:
        raise ValueError('No image to segment: the list is empty.')
    return [source for position, item in enumerate(items) for source in _expand(item, position)]


def _expand(item: Any, position: int) -> Sequence[Source]:
    if isinstance(item, np.ndarray):
        _check_array(item, position)
        return [Source(f'array {position}', item)]
    if isinstance(item, Image.Image):
        if 0 in item.size:
            raise ValueError(f'Input {position} is a Pillow image of {item.width} × {item.height} pixels: it is empty.')
        return [Source(f'image {position}', picture=item)]
    if isinstance(item, (bytes, bytearray, memoryview)):
        return [Source(f'bytes {position}', content=bytes(item))]
    if not isinstance(item, (str, os.PathLike)):
        raise ValueError(
            f'Input {position} is of type {type(item).__name__}: expected a path, a uint8 RGB array (H, W, 3), a '
            'Pillow image or the bytes of an image file.'
        )
    path = Path(item)
    if not path.exists():
        raise FileNotFoundError(f'{os.fspath(item)!r} does not exist: give the path of an image or a folder.')
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
            f'The folder {os.fspath(item)!r} contains no image ({count:,} other entries; subfolders are not '
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
    """Read an image upright, as (H, W, 3) uint8 RGB.

    The EXIF orientation is applied, transparency becomes white, 16-bit grey is scaled to 8 bits, CMYK and palettes are
    converted by Pillow (without colour profiles), and only the first frame of an animation is read.

    Raises:
        ValueError: If it is not an image, is truncated, exceeds Pillow's size limit, or has pixels without a standard
            range; the message does not contain the name.
    """
    if source.array is not None:
        array = source.array
        if array.ndim == 3 and array.shape[2] == 3:
            return np.ascontiguousarray(array)
        return _pixels(_to_rgb(Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)))
    try:
        with warnings.catch_warnings():  # Pillow warns above half of its limit
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            if source.picture is not None:
                return _pixels(_to_rgb(ImageOps.exif_transpose(source.picture)))
            with open_picture(_file(source)) as image:
                ImageOps.exif_transpose(image, in_place=True)
                return _pixels(_to_rgb(image))
    except FileNotFoundError:
        raise ValueError('no longer exists') from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(f"has more than {limit:,} pixels, Pillow's limit against decompression bombs") from None
    except Image.UnidentifiedImageError:
        size = os.path.getsize(source.name) if source.content is None else len(source.content)
        raise ValueError(f'is not an image that Pillow can read ({size:,} bytes)' if size else 'is empty') from None
    except _UnclearRangeError:
        raise
    except Exception as error:  # each decoder has its own exceptions; they all mean that the file is unreadable
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f'cannot be read: {reason}') from error


def _file(source: Source) -> str | io.BytesIO:
    return source.name if source.content is None else io.BytesIO(source.content)


class _UnclearRangeError(ValueError):
    """The range of the pixel values is unknown."""


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB."""
    if image.mode == 'F':
        raise _UnclearRangeError('has floating-point pixels, which have no standard range: save it with 8 or 16 bits')
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
    """Copy RGB pixels to a new array."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, ROWS):
        bottom = min(top + ROWS, image.height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels
