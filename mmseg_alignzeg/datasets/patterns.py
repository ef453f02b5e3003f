"""The embedded world: small scenes of coloured patterns, drawn from a seed, without any download."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from mmengine.fileio import BaseStorageBackend, register_backend
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_alignzeg.vocabulary import Vocabulary

# Mean RGB of each colour, 0..255.
COLOURS = {'red': (205, 50, 45), 'green': (50, 160, 65), 'blue': (50, 85, 205), 'yellow': (220, 195, 50)}
PATTERNS = ('stripes', 'checks', 'dots', 'zigzags', 'grid')
CLASSES = tuple(f'{colour} {pattern}' for colour in COLOURS for pattern in PATTERNS)
# Two unseen pairs per colour, and at most two per pattern, so that each colour and pattern is seen in other pairs.
UNSEEN_CLASSES = (
    'red dots', 'red grid', 'green stripes', 'green zigzags',
    'blue checks', 'blue grid', 'yellow dots', 'yellow zigzags',
)  # fmt: skip

IGNORE_LABEL = 255
BLOBS_PER_SCENE = (2, 5)  # both ends included
BLOB_AREA = (0.10, 0.35)  # share of the image before occlusion
MIN_VISIBLE_AREA = 0.04  # share of the image; a blob with less visible area is omitted
CANVAS = 128.0  # lengths below are in units of 1/128 of the image side, whatever its resolution
MIN_IMAGE_SIZE = 32


def draw_scene(seed: int, index: int, image_size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Draw one scene: two to five overlapping blobs, each with a colour and a pattern, on a textured ground.

    Pixels are computed with additions, products, quotients and square roots only. IEEE 754 defines the results of these
    operations to the last bit, so a scene is the same on every machine and in every worker.

    Args:
        seed: World seed, at least 0; scenes of different seeds are independent.
        index: Number of the scene in that world, at least 0.
        image_size: Side length in pixels, at least 32. It sets the resolution, not the size of things in the scene.

    Returns:
        The image, uint8 RGB of shape (S, S, 3), and its labels, uint8 of shape (S, S): positions in ``CLASSES``, and
        255 on the ground.

    Raises:
        ValueError: If an argument is not an integer or is below its minimum.
    """
    _check_integer('seed', seed, 0)
    _check_integer('index', index, 0)
    _check_integer('image_size', image_size, MIN_IMAGE_SIZE)
    rng = np.random.default_rng([seed, index])
    axis = (np.arange(image_size) + 0.5) * (CANVAS / image_size)
    labels = _place_blobs(rng, axis)

    canvas = np.empty((image_size, image_size, 3))
    canvas[:] = rng.uniform(85, 165) + rng.uniform(-18, 18, size=3)
    texture = 70 * (_smooth_noise(rng, axis, cells=6) - 0.5) + 60 * (_smooth_noise(rng, axis, cells=30) - 0.5)
    canvas += texture[..., None]
    for label in np.unique(labels[labels != IGNORE_LABEL]):
        rows, cols = np.nonzero(labels == label)
        canvas[rows, cols] = _paint(rng, int(label), axis[cols], axis[rows])
    # Light falls unevenly, and the sensor adds grain.
    canvas *= (0.75 + 0.45 * _smooth_noise(rng, axis, cells=1))[..., None]
    canvas += rng.integers(-9, 10, size=canvas.shape)
    return np.clip(np.floor(canvas + 0.5), 0, 255).astype(np.uint8), labels


def _check_integer(name: str, value: Any, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < minimum:
        raise ValueError(f'`{name}` must be an integer of at least {minimum}, got {value!r}.')


def _smooth_noise(rng: np.random.Generator, axis: np.ndarray, cells: int) -> np.ndarray:
    """Return value noise (S, S) in 0..1, interpolated between random values at corners of ``cells`` x ``cells``."""
    corners = rng.uniform(size=(cells + 1, cells + 1))
    position = axis * (cells / CANVAS)
    lower = np.minimum(position.astype(np.int64), cells - 1)
    weight = position - lower
    weight = weight * weight * (3 - 2 * weight)
    rows = corners[lower] + weight[:, None] * (corners[lower + 1] - corners[lower])
    left = rows[:, lower]
    return left + weight * (rows[:, lower + 1] - left)


def _direction(rng: np.random.Generator, spread: float) -> tuple[float, float]:
    """Draw a unit vector (x, y) at most 2 atan(spread) off the x axis, without a sine, which is not exact."""
    t = rng.uniform(-spread, spread)
    return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)


def _place_blobs(rng: np.random.Generator, axis: np.ndarray) -> np.ndarray:
    """Return labels (S, S) uint8 of blobs placed from front to back, so that a mostly hidden blob can be omitted."""
    side = len(axis)
    labels = np.full((side, side), IGNORE_LABEL, dtype=np.uint8)
    wanted = int(rng.integers(BLOBS_PER_SCENE[0], BLOBS_PER_SCENE[1] + 1))
    placed = 0
    for label in rng.permutation(len(CLASSES)):
        centre_x, centre_y = rng.uniform(0.12 * CANVAS, 0.88 * CANVAS, size=2)
        cos, sin = _direction(rng, spread=1.0)
        stretch = rng.uniform(1.0, 1.7)
        dx, dy = axis[None, :] - centre_x, axis[:, None] - centre_y
        along, across = dx * cos + dy * sin, (dy * cos - dx * sin) * stretch
        distance = np.sqrt(along * along + across * across) + 34 * _smooth_noise(rng, axis, cells=4)
        # The threshold is a rank, so the blob has the drawn area even if the image border cuts it.
        area = int(rng.uniform(*BLOB_AREA) * side * side)
        visible = (distance < np.partition(distance, area, axis=None)[area]) & (labels == IGNORE_LABEL)
        if np.count_nonzero(visible) >= MIN_VISIBLE_AREA * side * side:
            labels[visible] = label
            placed += 1
        if placed == wanted:
            break
    return labels


def _triangle_wave(phase: np.ndarray) -> np.ndarray:
    """Return 1 at whole numbers and 0 half-way between them, with linear interpolation."""
    return np.abs(2 * (phase - np.floor(phase)) - 1)


def _pattern(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the share of the class colour, 0..1, at the pattern coordinates ``u``, ``v`` (one period = 1)."""
    if name == 'stripes':
        edge = 8 * (_triangle_wave(u) - 0.5)
    elif name == 'checks':
        edge = 32 * (_triangle_wave(0.75 * u) - 0.5) * (_triangle_wave(0.75 * v) - 0.5)
    elif name == 'dots':
        du, dv = u - np.floor(u) - 0.5, v - np.floor(v) - 0.5
        edge = 14 * (0.36 - np.sqrt(du * du + dv * dv))
    elif name == 'zigzags':
        edge = 8 * (_triangle_wave(u + 0.75 * _triangle_wave(0.6 * v)) - 0.5)
    else:  # grid
        edge = 8 * (np.maximum(_triangle_wave(u), _triangle_wave(v)) - 0.68)
    return np.clip(edge + 0.5, 0, 1)


def _paint(rng: np.random.Generator, label: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return RGB (P, 3), 0..255, unclipped, of a blob's P pixels at ``x``, ``y``: class colour on a neutral tone."""
    mean, name = tuple(COLOURS.values())[label // len(PATTERNS)], PATTERNS[label % len(PATTERNS)]
    colour = (np.array(mean) + rng.uniform(-24, 24, size=3)) * rng.uniform(0.8, 1.15)
    tone = rng.uniform(190, 240) + rng.uniform(-10, 10, size=3)
    # Patterns vary little in angle, scale and phase. With free values, a CLIP this small (one patch is 16 units wide)
    # would need much longer training to distinguish them.
    cos, sin = _direction(rng, spread=0.06)
    frequency = 1 / rng.uniform(15, 17)
    phase_u, phase_v = rng.uniform(-0.15, 0.15, size=2)
    share = _pattern(name, (x * cos + y * sin) * frequency + phase_u, (y * cos - x * sin) * frequency + phase_v)
    return tone + share[:, None] * (colour - tone)


def _palette() -> list[list[int]]:
    """Return one RGB colour per class: the hue of its colour, from dark to light over the patterns."""
    return [
        [round(channel * (0.45 + 0.2 * i) if i < 3 else channel + (255 - channel) * 0.28 * (i - 2)) for channel in mean]
        for mean in COLOURS.values()
        for i in range(len(PATTERNS))
    ]


@register_backend('patterns', prefixes='patterns')
class PatternsBackend(BaseStorageBackend):
    """Backend with which MMEngine reads scenes as files.

    ``patterns://seed/size/index`` is the image and ``patterns://seed/size/index/labels`` the label map, both PPM.
    """

    def get(self, filepath: str) -> bytes:
        """Return the encoded image (RGB) or label map (one channel)."""
        seed, size, index, *labels = str(filepath).removeprefix('patterns://').split('/')
        buffer = io.BytesIO()
        scene = _last_scene(int(seed), int(index), int(size))
        Image.fromarray(scene[len(labels)]).save(buffer, 'PPM')  # the fastest to write and to read
        return buffer.getvalue()

    def get_text(self, filepath: str) -> str:
        """Raise NotImplementedError, because scenes are images."""
        raise NotImplementedError(f'{filepath} is an image, which has no text.')


_last_scene = lru_cache(maxsize=1)(draw_scene)  # a pipeline reads the image, then the label map


@DATASETS.register_module()
class PatternsDataset(BaseSegDataset):
    """Scenes of :func:`draw_scene`, read like files by mmseg's own loaders, through :class:`PatternsBackend`.

    To train without labels of unseen classes, use mmseg's class subset,
    ``metainfo=dict(classes=<seen names>, unseen_classes=[])``: pixels of every other class become 255.

    Args:
        length: Number of scenes, at least 1.
        seed: World seed, at least 0. By convention 0 is for training, 1 for validation, 2 for test; seeds from 1000 on
            belong to the pre-training of ``tiny_clip``.
        image_size: Side length of the scenes in pixels, at least 32.
        pipeline: Transforms, as in any mmseg dataset; without them, a sample contains only the paths.
        metainfo: Overrides of ``classes``, ``unseen_classes`` and ``palette``.
        test_mode: As in mmseg.
        **kwargs: Other arguments of ``BaseSegDataset``, such as ``indices`` or ``lazy_init``.

    Raises:
        ValueError: If a number is below its minimum, or the names are not a valid vocabulary.
    """

    METAINFO: ClassVar[dict] = dict(classes=list(CLASSES), unseen_classes=list(UNSEEN_CLASSES), palette=_palette())

    def __init__(
        self,
        length: int,
        seed: int = 0,
        image_size: int = 128,
        pipeline: Sequence[dict | Callable] | None = None,
        metainfo: dict | None = None,
        test_mode: bool = False,
        **kwargs: Any,
    ) -> None:
        _check_integer('length', length, 1)
        _check_integer('seed', seed, 0)
        _check_integer('image_size', image_size, MIN_IMAGE_SIZE)
        # BaseSegDataset calls load_data_list while it is being built.
        self.length, self.seed, self.image_size = length, seed, image_size
        Vocabulary.from_metainfo({**self.METAINFO, **(metainfo or {})})
        super().__init__(pipeline=list(pipeline or ()), metainfo=metainfo, test_mode=test_mode, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return one entry per scene, with the keys that mmseg's pipelines expect."""
        return [
            dict(
                img_path=f'patterns://{self.seed}/{self.image_size}/{index}',
                seg_map_path=f'patterns://{self.seed}/{self.image_size}/{index}/labels',
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            for index in range(self.length)
        ]
