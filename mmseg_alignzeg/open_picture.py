"""Opening a picture file that a stranger may have made."""

from __future__ import annotations

from typing import Any

from PIL import Image

# Pillow reads more, but some of it by running other programs (EPS) and none of it is a photograph or a label map.
FORMATS = ('AVIF', 'BMP', 'GIF', 'JPEG', 'JPEG2000', 'MPO', 'PNG', 'PPM', 'TIFF', 'WEBP')


def readable_formats() -> list[str]:
    """Those of ``FORMATS`` that this Pillow can open; it may be built without some."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def open_picture(file: Any) -> Image.Image:
    """``PIL.Image.open`` of a path or a stream, for the formats of photographs alone, whatever the file is called."""
    return Image.open(file, formats=readable_formats())
