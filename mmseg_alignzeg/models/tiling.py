"""Overlapping windows over an input of any size, as mmseg's ``test_cfg=dict(mode='slide')``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from mmseg.structures import SegDataSample
from torch import Tensor

from .answer import Answer, Drawing
from .proposals import Window, padded_size

if TYPE_CHECKING:
    from .question import Question
    from .zero_shot_segmentor import ZeroShotSegmentor

MOST_WINDOWS = 8  # that contain a pixel, along each axis
BAND_ELEMENTS = 2**25  # class scores blended at a time: 128 MB


@dataclass(frozen=True)
class Tiling:
    """Windows of one size at regular steps. The last ones are shifted to end at the border of the input.

    Attributes:
        crop_size: Rows and columns of a window, in pixels of the input. A smaller input is a single window.
        stride: Rows and columns from one window to the next, at most ``crop_size`` and at least an eighth of it,
            which limits the windows that contain a pixel to 64.

    Raises:
        ValueError: If a number is not positive, or a stride is outside these limits.
    """

    crop_size: tuple[int, int]
    stride: tuple[int, int]

    def __post_init__(self) -> None:
        axes = zip(self.crop_size, self.stride, strict=True)
        if not all(0 < stride <= crop <= MOST_WINDOWS * stride for crop, stride in axes):
            raise ValueError(
                f'Windows of crop_size={self.crop_size} with stride={self.stride}: both must be positive (rows, '
                f'columns), with each stride between 1/{MOST_WINDOWS} of its crop and the crop.'
            )

    @classmethod
    def square(cls, windows: Any) -> Tiling:
        """Return windows of a side and a stride, given as a pair of pixels.

        Raises:
            ValueError: If these are not two whole numbers within the limits of this class.
        """
        pair = tuple(windows) if isinstance(windows, (tuple, list)) else ()
        if len(pair) != 2 or any(isinstance(number, bool) or not isinstance(number, int) for number in pair):
            raise ValueError(f'windows={windows!r} must be two whole numbers of pixels, side and stride: (640, 480).')
        return cls((pair[0],) * 2, (pair[1],) * 2)

    def boxes(self, shape: Sequence[int]) -> list[tuple[slice, slice]]:
        """Return rows and columns of every window in an input of ``shape``."""
        rows, columns = map(_spans, shape, self.crop_size, self.stride)
        return [(row, column) for row in rows for column in columns]


def read_tiling(test_cfg: Mapping[str, Any]) -> Tiling | None:
    """Return the windows that ``test_cfg`` asks for; None for whole images.

    Raises:
        ValueError: If it has an unknown key, an unknown mode, or no valid windows.
    """
    mode = test_cfg.get('mode', 'whole')
    windows = ('crop_size', 'stride') if mode == 'slide' else ()
    known = {'mode', 'background_at_test', 'return_scores', *windows}
    if (
        mode not in ('whole', 'slide')
        or test_cfg.keys() - known
        or not all(isinstance(test_cfg.get(key), (list, tuple)) for key in windows)
    ):
        raise ValueError(
            f"`test_cfg` is {dict(test_cfg)}: `mode` must be 'whole', or 'slide' with `crop_size` and `stride`, (rows, "
            'columns) each; beside these there are `background_at_test` and `return_scores`.'
        )
    return Tiling(*(tuple(test_cfg[key]) for key in windows)) if windows else None


def _spans(length: int, crop: int, stride: int) -> list[slice]:
    count = max(0, math.ceil((length - crop) / stride)) + 1
    ends = (min(i * stride + crop, length) for i in range(count))
    return [slice(max(0, end - crop), end) for end in ends]


@dataclass(frozen=True)
class Tile:
    """Position of one window.

    Attributes:
        crop: Its rows and columns of the input.
        box: Its rows and columns of the upright input.
        origin: Row and column of the upright input where its masks begin.
        padded: Rows and columns of the input that its masks cover, including padding.
    """

    crop: tuple[slice, slice]
    box: tuple[slice, slice]
    origin: tuple[int, int]
    padded: tuple[int, int]


@dataclass(frozen=True)
class TiledAnswer(Drawing):
    """Result for one image in windows: at each pixel, the mean score of the windows that contain it.

    A window is encoded when a stripe needs it, and forgotten after its last row, so memory does not grow with the
    height of the image. Each call of :meth:`stripes` encodes the windows again.

    Attributes:
        tiles: The windows, which cover the input.
        encode: Returns the answer for a window; its masks also cover the padding.
        window: Position of the image in the input; its ``size`` is that of the image.
        shape: Rows and columns of the input.
        blank: A float32 tensor with C columns, on the device of the scores.
    """

    tiles: tuple[Tile, ...]
    encode: Callable[[Tile], Answer]
    window: Window
    shape: tuple[int, int]
    blank: Tensor

    @property
    def like(self) -> Tensor:
        """See :class:`Drawing`."""
        return self.blank

    @torch.no_grad()
    def stripes(self, window: Window | None = None) -> Iterator[tuple[slice, Tensor]]:
        """See :meth:`Drawing.stripes`."""
        window = window or self.window
        (height, width), num_classes = window.size, self.like.shape[1]
        axes = (
            Axis(self.shape[0], window.top, window.height / height, height),
            Axis(self.shape[1], window.left, window.width / width, width),
        )
        places = [(tile, axes[0].shown(tile.box[0]), axes[1].shown(tile.box[1])) for tile in self.tiles]
        answers: dict[int, Answer] = {}
        band = max(1, BAND_ELEMENTS // (width * num_classes))
        for top in range(0, height, band):
            rows = slice(top, min(top + band, height))
            scores = self.like.new_zeros(rows.stop - top, width, num_classes)
            counts = self.like.new_zeros(rows.stop - top, width, 1)
            for i, (tile, down, across) in enumerate(places):
                part = slice(max(down.start, rows.start), min(down.stop, rows.stop))
                if part.start >= part.stop or across.start >= across.stop:
                    continue
                answer = answers.pop(i, None) or self.encode(tile)
                here = slice(part.start - top, part.stop - top)
                for some, values in answer.stripes(_part(axes, (part, across), tile)):
                    scores[here, across][some] += values
                counts[here, across] += 1
                if down.stop > rows.stop:
                    answers[i] = answer
            yield rows, scores.div_(counts)


@dataclass(frozen=True)
class Axis:
    """Positions of output samples along one axis of an input.

    Attributes:
        length: Pixels of the input.
        start: Where the output begins, as a share of the input.
        step: Distance of two output samples, as a share of the input.
        size: Output samples.
    """

    length: int
    start: float
    step: float
    size: int

    def shown(self, span: slice) -> slice:
        """Return the output samples whose centres are in a span of the input, in pixels."""
        first, last = ((edge / self.length - self.start) / self.step - 0.5 for edge in (span.start, span.stop))
        return slice(max(0, math.ceil(first)), min(self.size, math.ceil(last)))

    def share(self, samples: slice, origin: int, padded: int) -> tuple[float, float]:
        """Return start and extent of output samples relative to ``padded`` pixels of the input from ``origin`` on."""
        begin = (self.start + samples.start * self.step) * self.length - origin
        return begin / padded, (samples.stop - samples.start) * self.step * self.length / padded


def _part(axes: tuple[Axis, Axis], samples: tuple[slice, slice], tile: Tile) -> Window:
    """Return the part of a tile's masks that contains some output samples."""
    (top, height), (left, width) = (
        axis.share(span, origin, padded)
        for axis, span, origin, padded in zip(axes, samples, tile.origin, tile.padded, strict=True)
    )
    rows, columns = samples
    return Window(top, left, height, width, (rows.stop - rows.start, columns.stop - columns.start))


def tiled_answers(
    model: ZeroShotSegmentor,
    tiling: Tiling,
    inputs: Sequence[Tensor] | Tensor,
    samples: Sequence[SegDataSample],
    question: Question | None,
) -> list[TiledAnswer]:
    """Return answers for images, which are encoded window by window when their pixels are asked for.

    Args:
        model: In evaluation mode.
        tiling: The windows.
        inputs: B images (3, H, W), of the same size or not; normalised, or uint8 pixels as a data pipeline gives them.
        samples: B data samples with their meta information.
        question: See :meth:`ZeroShotSegmentor.answer`.
    """
    question = question or model.question
    blank = torch.empty(0, len(question.vocabulary.classes), device=next(model.parameters()).device)

    def encode(image: Tensor, sample: SegDataSample, tile: Tile) -> Answer:
        crop = image[None, :, tile.crop[0], tile.crop[1]]
        if not crop.is_floating_point():
            rows, columns = crop.shape[2:]
            data = {'inputs': list(crop), 'data_samples': [SegDataSample()]}
            crop = model.data_preprocessor(data, False)['inputs'][..., :rows, :columns]  # without a padding of its own
        return model.answer(model.look(crop), [sample], crop.shape[2:], question)[0]

    answers = []
    for image, sample in zip(inputs, samples, strict=True):
        shape = (image.shape[1], image.shape[2])
        tiles = tuple(_tile(crop, shape, model.stride, sample.metainfo) for crop in tiling.boxes(shape))
        window = Window.of_image(sample.metainfo, shape, 1)
        answers.append(TiledAnswer(tiles, partial(encode, image, sample), window, shape, blank))
    return answers


def _tile(crop: tuple[slice, slice], shape: tuple[int, int], stride: int, metainfo: Mapping[str, Any]) -> Tile:
    """Return a window at its position in the unflipped input, where its padding is on the opposite side."""
    padded = padded_size([span.stop - span.start for span in crop], stride)
    flipped = metainfo['flip_direction'] if metainfo.get('flip') else None
    spans, origin = list(crop), [crop[0].start, crop[1].start]
    for axis, direction in enumerate(('vertical', 'horizontal')):
        if flipped == direction:
            spans[axis] = slice(shape[axis] - crop[axis].stop, shape[axis] - crop[axis].start)
            origin[axis] = spans[axis].stop - padded[axis]
    return Tile(crop, (spans[0], spans[1]), (origin[0], origin[1]), padded)
