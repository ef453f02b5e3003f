"""Pictures between browser and server without files that stay: the browser keeps them, as data URLs."""

from __future__ import annotations

import base64
import binascii
import io
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..apis.image_files import Source, read_rgb

#: What browsers show, by Pillow's names; MPO is a JPEG with more pictures behind the first.
MIME = {
    'AVIF': 'image/avif', 'BMP': 'image/bmp', 'GIF': 'image/gif', 'JPEG': 'image/jpeg', 'MPO': 'image/jpeg',
    'PNG': 'image/png', 'WEBP': 'image/webp',
}  # fmt: skip


@dataclass(frozen=True)
class Upload:
    """A picture file in memory.

    Attributes:
        content: All of its bytes.
        name: As the browser gave it.
    """

    content: bytes
    name: str

    @classmethod
    def take(cls, value: dict[str, Any] | None) -> Upload | None:
        """Read what gradio gives for a picture, and delete the file, if it is one.

        Args:
            value: gradio's ``ImageData``, with a data URL or the path of an upload; None without a picture.

        Raises:
            ValueError: If the file is gone, or the URL holds no data.
        """
        if not value or not (value.get('url') or value.get('path')):
            return None
        name = Path(value.get('orig_name') or 'picture').name
        url = value.get('url') or ''
        if url.startswith('data:'):
            try:
                return cls(base64.b64decode(url.partition('base64,')[2], validate=True), name)
            except binascii.Error:
                raise ValueError(f'{name} did not arrive whole: upload it again.') from None
        path = Path(value['path'])
        try:
            return cls(path.read_bytes(), name)
        except FileNotFoundError:
            raise ValueError(f'{name} is gone already: upload it again.') from None
        finally:
            delete(path)

    def pixels(self, folder: str) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright.

        Args:
            folder: Where a file may be for as long as this takes.

        Raises:
            ValueError: If it is no picture that can be used.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:  # the reader that knows all bad files wants a path
            file.write(self.content)
            file.flush()
            try:
                return read_rgb(Source(file.name))
            except ValueError as error:
                raise ValueError(f'{self.name} {error}') from error

    def shown(self, folder: str) -> dict[str, Any]:
        """For gradio's ``Image``, the same bytes as a data URL.

        Args:
            folder: See :meth:`pixels`.

        Raises:
            ValueError: If it is no picture that can be used, or one that browsers do not show.
        """
        self.pixels(folder)
        with Image.open(io.BytesIO(self.content)) as image:
            kind = image.format or 'strange'
        if kind not in MIME:
            raise ValueError(
                f'{self.name} is a {kind} file, which browsers do not show: save it as PNG or JPEG, or use '
                '`alignzeg predict`.'
            )
        return data_value(self.content, MIME[kind], self.name)


def delete(path: Path) -> None:
    """Delete an upload, and the folder that gradio made for it."""
    path.unlink(missing_ok=True)
    with suppress(OSError):  # it is not empty
        path.parent.rmdir()


def png_value(pixels: np.ndarray, name: str) -> dict[str, Any]:
    """Pixels, (H, W, 3) uint8 RGB, for gradio's ``Image``."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'PNG', compress_level=3)
    return data_value(buffer.getvalue(), 'image/png', name)


def data_value(content: bytes, mime: str, name: str) -> dict[str, Any]:
    """gradio's ``ImageData`` of a picture that is in no file."""
    url = f'data:{mime};base64,{base64.b64encode(content).decode()}'
    return {'path': None, 'url': url, 'orig_name': name, 'mime_type': mime, 'meta': {'_type': 'gradio.FileData'}}
