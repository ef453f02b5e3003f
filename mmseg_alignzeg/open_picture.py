"""Safe opening of untrusted image files."""

from __future__ import annotations

from typing import Any

from PIL import Image

# Pillow supports more formats, but some start other programs (EPS), and none of them is used for images or label maps.
FORMATS = ('AVIF', 'BMP', 'GIF', 'JPEG', 'JPEG2000', 'MPO', 'PNG', 'PPM', 'TIFF', 'WEBP')


def readable_formats() -> list[str]:
    """Return those of ``FORMATS`` that this build of Pillow can open."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def open_picture(file: Any) -> Image.Image:
    """Open an image with Pillow from a path or a stream; only ``FORMATS`` are accepted, whatever the file name."""
    return Image.open(file, formats=readable_formats())
