"""Read and write videos frame by frame, with OpenCV's FFmpeg, which MMCV installs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from mmseg_alignzeg.files import whole_file

CODEC = 'VP80'  # in WebM: every browser and player has it, and OpenCV's wheels can write it, unlike H.264
RATE, FASTEST = 25.0, 240.0  # frames per second, if the file does not say; and the most that is believed


@dataclass(frozen=True)
class Video:
    """An open video.

    Attributes:
        frames: (H, W, 3) uint8 RGB, upright, one after the other; they are read when they are needed.
        rate: Frames per second.
    """

    frames: Iterator[np.ndarray]
    rate: float


@contextmanager
def open_video(path: str | os.PathLike) -> Iterator[Video]:
    """Open a video file. Network addresses, playlists and patterns of file names are refused.

    Raises:
        ValueError: If it is not an MP4, QuickTime, Matroska, WebM or AVI file, cannot be decoded, or exceeds Pillow's
            limit of pixels per frame; the message does not contain the name.
    """
    file = os.path.abspath(path)
    if not os.path.isfile(file):
        raise ValueError('is not a file')
    with open(file, 'rb') as stream:
        start = stream.read(12)
    # FFmpeg also reads playlists, which may name other files; the first bytes keep them out, whatever the suffix.
    if not (start[4:8] in (b'ftyp', b'moov', b'mdat', b'wide', b'free') or start[:4] in (b'\x1aE\xdf\xa3', b'RIFF')):
        raise ValueError('is not an MP4, QuickTime, Matroska, WebM or AVI file')
    capture = cv2.VideoCapture(file, cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise ValueError('cannot be decoded: FFmpeg finds no video in it')
        pixels = capture.get(cv2.CAP_PROP_FRAME_WIDTH) * capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
        if Image.MAX_IMAGE_PIXELS is not None and pixels > 2 * Image.MAX_IMAGE_PIXELS:
            raise ValueError(f"has {pixels:,.0f} pixels per frame, more than Pillow's limit for images")
        rate = capture.get(cv2.CAP_PROP_FPS)
        yield Video(_frames(capture), rate if math.isfinite(rate) and 0 < rate <= FASTEST else RATE)
    finally:
        capture.release()


def _frames(capture: Any) -> Iterator[np.ndarray]:
    while True:
        there, frame = capture.read()
        if not there:
            return
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def write_video(target: Path, frames: Iterator[np.ndarray], rate: float) -> int:
    """Write frames to a WebM file, atomically, as they come, and return their number.

    Args:
        target: The file; its folder is created if necessary.
        frames: (H, W, 3) uint8 RGB, all of the same size.
        rate: Frames per second.

    Raises:
        ValueError: If no frame can be decoded, or OpenCV cannot write the codec.
        OSError: If fewer frames than that are in the file, as on a full disk.
    """
    count = 0
    with whole_file(target, flush=False) as part:
        named = part.with_name(f'{part.name}.webm')  # FFmpeg chooses the container by the suffix
        writer = None
        try:
            for frame in frames:
                if writer is None:
                    size = (frame.shape[1] + frame.shape[1] % 2, frame.shape[0] + frame.shape[0] % 2)
                    with _silent():
                        code = cv2.VideoWriter.fourcc(*CODEC)
                        writer = cv2.VideoWriter(str(named), cv2.CAP_FFMPEG, code, rate, size)
                    if not writer.isOpened():
                        raise ValueError(f'cannot be written: this OpenCV {cv2.__version__} lacks the codec {CODEC}')
                # Colours have half the resolution: sides are even.
                even = np.pad(frame, ((0, size[1] - len(frame)), (0, size[0] - frame.shape[1]), (0, 0)), 'edge')
                writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
                count += 1
            if writer is None:
                raise ValueError('has no frame that can be decoded')
            writer.release()
            if (kept := _count(named)) < count:  # OpenCV does not report a failed write
                raise OSError(f'{target} has only {kept} of {count} frames: the disk may be full.')
            os.replace(named, part)
        finally:
            if writer is not None:
                writer.release()
            named.unlink(missing_ok=True)
    return count


def _count(file: Path) -> int:
    """Return the number of frames in a video file."""
    capture = cv2.VideoCapture(str(file), cv2.CAP_FFMPEG)
    try:
        return sum(1 for _ in iter(capture.grab, False))
    finally:
        capture.release()


@contextmanager
def _silent() -> Iterator[None]:
    """Drop what C code writes to stderr: OpenCV complains about a tag of the codec, which WebM does not use."""
    kept = os.dup(2)
    try:
        with open(os.devnull, 'wb') as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
