"""Run a graph of ``alignzeg export --format onnx``. This file needs no other of the package and can be copied.

pip install numpy onnxruntime opencv-python-headless pillow
python onnx_runner.py model.onnx photo.jpg labels.png
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import cv2
import numpy as np


def load(path: Any) -> Any:
    """Return the onnxruntime session of a graph."""
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])


def segment(session: Any, image: np.ndarray) -> np.ndarray:
    """Return the labels that `alignzeg predict` gives, positions in the graph's metadata ``classes``.

    Args:
        session: Result of :func:`load`.
        image: (H, W, 3) uint8 RGB, upright.

    Returns:
        (H, W) int64.
    """
    metadata = session.get_modelmeta().custom_metadata_map
    scale, most = json.loads(metadata['input_scale']), json.loads(metadata['drawn_pixels'])
    size = image.shape[:2]
    factor = min(max(scale) / max(size), min(scale) / min(size))
    fixed = session.get_inputs()[0].shape[2:]  # numbers, or names of free axes
    rows, columns = (
        axis if isinstance(axis, int) else max(1, int(side * factor + 0.5))
        for axis, side in zip(fixed, size, strict=True)
    )
    if (rows, columns) != size:
        how = cv2.INTER_AREA if 4 * rows * columns < size[0] * size[1] else cv2.INTER_LINEAR
        image = cv2.resize(image, (columns, rows), interpolation=how)
    shrink = min(1.0, math.sqrt(most / (size[0] * size[1])))  # labels of large pictures are enlarged
    drawn = [max(1, int(side * shrink)) for side in size]
    inputs = {'images': np.ascontiguousarray(image.transpose(2, 0, 1)[None]), 'size': np.array(drawn, np.int64)}
    labels = session.run(['labels'], inputs)[0][0]
    down, across = (((np.arange(side) + 0.5) * few / side).astype(int) for side, few in zip(size, drawn, strict=True))
    return labels[down][:, across]


def read(path: str) -> np.ndarray:
    """Read a picture as `alignzeg predict` does: upright, transparency as white, 16-bit grey scaled to 8 bits.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    from PIL import Image, ImageOps

    Image.init()  # other formats than these may start programs
    formats = Image.OPEN.keys() & {'BMP', 'GIF', 'JPEG', 'JPEG2000', 'MPO', 'PNG', 'PPM', 'TIFF', 'WEBP'}
    with Image.open(path, formats=sorted(formats)) as picture:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode.startswith('I;16'):
            upright = Image.fromarray(((np.asarray(upright).astype(int) + 128) // 257).astype(np.uint8))
        if upright.has_transparency_data:
            upright = Image.alpha_composite(Image.new('RGBA', upright.size, 'white'), upright.convert('RGBA'))
        return np.asarray(upright.convert('RGB'))


if __name__ == '__main__':
    from PIL import Image

    if len(sys.argv) != 4:
        sys.exit('usage: python onnx_runner.py model.onnx photo.jpg labels.png')
    graph, picture, target = sys.argv[1:]
    Image.fromarray(segment(load(graph), read(picture)).astype(np.uint16)).save(target)
