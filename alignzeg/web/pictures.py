"""Exchange of pictures with the browser, which keeps them as data URLs; the server keeps no files."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mmseg_alignzeg.open_picture import open_picture

from ..apis.image_files import Source, read_rgb
from .limits import MOST_ANSWER_BYTES, LimitError, available_memory, most_pixels
from .uploads import Uploads, clean_name

START = 30  # characters of a data URL before its data


@dataclass(frozen=True)
class Picture:
    """A picture file in memory.

    Attributes:
        content: The bytes of the file.
        name: The file name that the browser sent, sanitized.
    """

    content: bytes
    name: str

    @classmethod
    def take(cls, value: object, uploads: Uploads) -> Picture | None:
        """Read the value of gradio's ``Image``. A client sends it, so it may be anything.

        Args:
            value: gradio's ``ImageData``, with a data URL or the path of an upload; None without a picture.
            uploads: The store of uploads, from which this one is removed.

        Raises:
            ValueError: If ``value`` is something else, the upload is gone, or the URL contains no data or too much.
        """
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise ValueError('That is not a picture: upload one.')
        url, path, name = value.get('url'), value.get('path'), clean_name(value.get('orig_name'))
        if not url and not path:
            return None
        try:
            if isinstance(url, str) and url.startswith('data:'):
                return cls(decode(url, uploads), name)
            return cls(uploads.take(path), name)
        except ValueError as error:
            raise ValueError(f'{name} {error}.') from error

    def kind(self, memory: int | None = None) -> str:
        """Return Pillow's name of the format. Only the header is read.

        Args:
            memory: Bytes that may be used; by default the available memory.

        Raises:
            LimitError: If the picture has too many pixels to be decoded (413).
            ValueError: If the file is not a picture.
        """
        most = most_pixels(available_memory() if memory is None else memory)
        if not self.content:
            raise ValueError(f'{self.name} is empty')
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore', Image.DecompressionBombWarning)
                with open_picture(io.BytesIO(self.content)) as image:
                    (width, height), kind = image.size, image.format or 'strange'
        except Image.DecompressionBombError:
            raise LimitError(413, f'{self.name} has too many pixels: at most {most:,} are accepted.') from None
        except Image.UnidentifiedImageError:
            raise ValueError(
                f'{self.name} is not a picture that Pillow can read ({len(self.content):,} bytes)'
            ) from None
        except Exception as error:  # every decoder has its own exceptions; all mean the same to the user
            raise ValueError(f'{self.name} cannot be read: {str(error)[:200] or type(error).__name__}') from error
        if width * height > most:
            raise LimitError(
                413, f'{self.name} has {width:,} × {height:,} pixels, which is too many: at most {most:,} are accepted.'
            )
        return kind

    def pixels(self) -> np.ndarray:
        """Decode the picture: (H, W, 3) uint8 RGB, upright.

        Raises:
            ValueError: If the picture cannot be used; see also :meth:`kind`.
        """
        self.kind()
        try:
            return read_rgb(Source(self.name, content=self.content))
        except ValueError as error:
            raise ValueError(f'{self.name} {error}') from error


def decode(url: str, uploads: Uploads) -> bytes:
    """Decode a base64 data URL, after a check of its size.

    Raises:
        ValueError: If it contains no data, or too much. The message does not name the file.
    """
    uploads.check_size(max(0, len(url) - START) * 3 // 4)
    _, separator, data = url.partition(';base64,')
    try:
        if not separator:
            raise binascii.Error
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError('was not received completely: upload it again') from None
    uploads.check_size(len(content))
    return content


def png_url(pixels: np.ndarray, most_bytes: int = MOST_ANSWER_BYTES) -> tuple[str, str]:
    """Encode pixels, (H, W, 3) uint8 RGB, as a data URL of a PNG.

    Returns:
        The URL, and a note if the picture was scaled down to fit into ``most_bytes``, or ''.
    """
    image, note = Image.fromarray(pixels), ''
    while True:
        content = png(image)
        if len(content) <= most_bytes:
            return data_url(content), note
        shrink = 0.95 * (most_bytes / len(content)) ** 0.5
        image = image.resize((max(1, int(image.width * shrink)), max(1, int(image.height * shrink))))
        note = f'shown at {image.width} × {image.height} pixels; `alignzeg predict` writes the full size'


def labels_url(labels: np.ndarray, most_bytes: int = MOST_ANSWER_BYTES) -> str:
    """Encode labels, (H, W) unsigned integers up to 16 bits, as a data URL of a PNG; '' if it is too large."""
    content = png(Image.fromarray(labels if labels.dtype == np.uint8 else labels.astype(np.uint16)))
    return data_url(content) if len(content) <= most_bytes else ''


def png(image: Image.Image) -> bytes:
    """Encode an image as a PNG."""
    buffer = io.BytesIO()
    image.save(buffer, 'PNG', compress_level=3)
    return buffer.getvalue()


def data_url(content: bytes) -> str:
    """Return a PNG as a data URL."""
    return f'data:image/png;base64,{base64.b64encode(content).decode()}'
