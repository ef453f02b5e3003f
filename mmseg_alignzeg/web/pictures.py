"""Pictures between browser and server without files that stay: the browser keeps them, as data URLs."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..apis.image_files import Source, read_rgb
from ..open_picture import open_picture
from .limits import MOST_ANSWER_BYTES, LimitError, available_memory, most_pixels
from .uploads import Uploads, clean_name

#: What browsers show, by Pillow's names; MPO is a JPEG with more pictures behind the first.
MIME = {
    'AVIF': 'image/avif', 'BMP': 'image/bmp', 'GIF': 'image/gif', 'JPEG': 'image/jpeg', 'MPO': 'image/jpeg',
    'PNG': 'image/png', 'WEBP': 'image/webp',
}  # fmt: skip
START = 30  # characters of a data URL before its data


@dataclass(frozen=True)
class Picture:
    """A picture file in memory.

    Attributes:
        content: All of its bytes.
        name: As the browser gave it, cleaned.
    """

    content: bytes
    name: str

    @classmethod
    def take(cls, value: object, uploads: Uploads) -> Picture | None:
        """Read what gradio gives for a picture, which is what a client sent: anything.

        Args:
            value: gradio's ``ImageData``, with a data URL or the path of an upload; None without a picture.
            uploads: Where uploads are; this one is not there any more afterwards.

        Raises:
            ValueError: If it is something else, the upload is gone, or the URL holds no data or too much.
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
        """Pillow's name of the format, by the header alone: nothing is decoded.

        Args:
            memory: Bytes that may be used; by default those that are available.

        Raises:
            LimitError: If the picture has too many pixels to be decoded, 413.
            ValueError: If it is not a picture.
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
            raise LimitError(413, f'{self.name} has too many pixels: at most {most:,} are taken.') from None
        except Image.UnidentifiedImageError:
            raise ValueError(f'{self.name} is no picture that Pillow can read ({len(self.content):,} bytes)') from None
        except Exception as error:  # every decoder has its own exceptions; all mean the same to the user
            raise ValueError(f'{self.name} cannot be read: {str(error)[:200] or type(error).__name__}') from error
        if width * height > most:
            raise LimitError(
                413, f'{self.name} has {width:,} × {height:,} pixels, which are too many: at most {most:,} are taken.'
            )
        return kind

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright.

        Raises:
            ValueError: If it is no picture that can be used; see also :meth:`kind`.
        """
        self.kind()
        try:
            return read_rgb(Source(self.name, content=self.content))
        except ValueError as error:
            raise ValueError(f'{self.name} {error}') from error

    def shown(self) -> dict[str, Any]:
        """For gradio's ``Image``, the same bytes as a data URL.

        Raises:
            ValueError: If it is no picture that can be used, or one that browsers do not show.
        """
        kind = self.kind()
        self.pixels()
        if kind not in MIME:
            raise ValueError(
                f'{self.name} is a {kind} file, which browsers do not show: save it as PNG or JPEG, or use '
                '`alignzeg predict`.'
            )
        return data_value(self.content, MIME[kind], self.name)


def decode(url: str, uploads: Uploads) -> bytes:
    """The bytes of a data URL in base64; their number is checked before they are decoded.

    Raises:
        ValueError: If it holds no data, or too much; without the name.
    """
    uploads.check_size(max(0, len(url) - START) * 3 // 4)
    start, separator, data = url.partition(';base64,')
    try:
        if not separator:
            raise binascii.Error
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError('did not arrive whole: upload it again') from None
    uploads.check_size(len(content))
    return content


def png_value(pixels: np.ndarray, name: str, most_bytes: int = MOST_ANSWER_BYTES) -> tuple[dict[str, Any], str]:
    """Pixels, (H, W, 3) uint8 RGB, for gradio's ``Image``.

    Returns:
        The value, and what the user should know: that it had to be made smaller, or ''.
    """
    image, note = Image.fromarray(pixels), ''
    while True:
        buffer = io.BytesIO()
        image.save(buffer, 'PNG', compress_level=3)
        if buffer.tell() <= most_bytes:
            return data_value(buffer.getvalue(), 'image/png', name), note
        shrink = 0.95 * (most_bytes / buffer.tell()) ** 0.5
        image = image.resize((max(1, int(image.width * shrink)), max(1, int(image.height * shrink))))
        note = f'shown at {image.width} × {image.height} pixels; `alignzeg predict` writes all of them'


def data_value(content: bytes, mime: str, name: str) -> dict[str, Any]:
    """gradio's ``ImageData`` of a picture that is in no file."""
    url = f'data:{mime};base64,{base64.b64encode(content).decode()}'
    return {'path': None, 'url': url, 'orig_name': name, 'mime_type': mime, 'meta': {'_type': 'gradio.FileData'}}
