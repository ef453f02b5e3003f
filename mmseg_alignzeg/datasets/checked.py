"""Datasets that say in one line what is wrong with their files, before any training starts."""

from __future__ import annotations

import os
import os.path as osp
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine import list_from_file
from mmseg.datasets import ADE20KDataset, BaseSegDataset, COCOStuffDataset, PascalContextDataset59, PascalVOCDataset
from mmseg.registry import DATASETS
from PIL import ExifTags, Image

SAMPLES = 16  # files whose heads are read while a dataset is built
SINGLE_CHANNEL = ('1', 'L', 'P', 'I', 'I;16', 'I;16L', 'I;16B', 'F')
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
END_MARKS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND'}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what, and the way out. ``kind`` groups problems of one cause."""

    kind: str
    file: str
    what: str
    todo: str

    def __str__(self) -> str:
        return f'{self.file}: {self.what}: {self.todo}'


def is_local(path: str) -> bool:
    """Whether a path is one of the file system, not ``s3://…`` or ``patterns://…``."""
    return '://' not in path


def evenly_spaced(length: int, count: int | None) -> list[int]:
    """At most ``count`` positions of ``length``, first and last included; all of them without a count."""
    if count is None or count >= length:
        return list(range(length))
    return sorted(set(np.linspace(0, length - 1, count).round().astype(int).tolist()))


def list_fault(lines: Sequence[str]) -> tuple[str, str] | None:
    """What is wrong with the lines of a list of names, and what to do; None if nothing is."""
    blank = [number for number, line in enumerate(lines, 1) if not line.strip()]
    if blank:
        return f'line {blank[0]} is empty', 'remove it'
    repeated = [name for name, count in Counter(map(str.strip, lines)).items() if count > 1]
    if repeated:
        return f'{len(repeated):,} name(s) stand in it more than once, first: {repeated[0]!r}', 'remove the repeats'
    return None


def missing_files(paths: Sequence[str]) -> list[str]:
    """Paths that do not exist, found with one listing per folder: asking for each file is slow on a network drive."""
    listings: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = osp.split(path)
        if folder not in listings:
            listings[folder] = set(_names(folder))
        if name not in listings[folder]:
            missing.append(path)
    return missing


def missing_hint(path: str, suffix: str) -> str:
    """Why a file of a list may be missing, from what lies beside it; '' if nothing tells."""
    folder, name = osp.split(path)
    stem = name.removesuffix(suffix)
    if ' ' in stem or not osp.isdir(folder or '.'):
        return 'a line of the list is one name, without `img_path` and suffix'
    beside = min((n for n in _names(folder) if n == stem or n.startswith((f'{stem}.', f'{stem}_'))), default='')
    if beside and suffix == '_labelTrainIds.png':
        return f'there is {beside}, which is not converted to TrainIds yet'
    return f'there is {beside}: is the suffix {suffix!r} right?' if beside else ''


def _names(folder: str) -> list[str]:
    return os.listdir(folder or '.') if osp.isdir(folder or '.') else []


@dataclass(frozen=True)
class Header:
    """What the head of an image file says.

    Args:
        size: Width and height as stored.
        mode: PIL's mode, such as ``'RGB'``, ``'L'`` or ``'P'``.
        format: PIL's format, such as ``'PNG'``.
        turned: Whether EXIF asks for a quarter turn, which cv2 obeys when it loads an image (not a label map).
        palette: RGB of the values of a palette file, flat; empty otherwise.
    """

    size: tuple[int, int]
    mode: str
    format: str
    turned: bool = False
    palette: tuple[int, ...] = ()


def read_image(path: str, decode: bool = False) -> tuple[Header, np.ndarray | None]:
    """Read an image file: its head, and its pixels if asked.

    Args:
        path: A local file.
        decode: Whether to decode the pixels. Without, only a file whose end mark is missing is decoded.

    Returns:
        The head, and the values as stored, (H, W) or (H, W, channels), or None.

    Raises:
        ValueError: If the file is missing, no image, or cut off; without its path.
    """
    try:
        with Image.open(path) as image:
            turned = 'exif' in image.info and image.getexif().get(ExifTags.Base.Orientation) in TURNED
            palette = tuple(image.getpalette() or ()) if image.mode == 'P' else ()
            header = Header(image.size, image.mode, image.format or '', turned, palette)
            if decode or not _has_end(path, header.format):
                image.load()
            return header, np.asarray(image) if decode else None
    except FileNotFoundError:
        raise ValueError('does not exist') from None
    # PIL raises any of these on damaged files.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = 'no image' if isinstance(error, Image.UnidentifiedImageError) else str(error).splitlines()[0]
        raise ValueError(f'cannot be read ({osp.getsize(path):,} bytes; {reason})') from None


def _has_end(path: str, file_format: str) -> bool:
    """Whether the mark that ends a JPEG or PNG is among the last bytes: a download that broke off lacks it."""
    with open(path, 'rb') as file:
        file.seek(max(0, osp.getsize(path) - 1024))
        return END_MARKS.get(file_format, b'') in file.read()


def unreadable(path: str, error: ValueError) -> Problem:
    """The problem of a file that :func:`read_image` refuses."""
    return Problem('unreadable', path, str(error), 'fetch or make this file again')


def label_problems(path: str, label: Header) -> list[Problem]:
    """Why a file cannot be a label map, from its head."""
    if label.format in ('JPEG', 'MPO'):
        todo = 'JPEG changes values; make PNG label maps from the original labels'
        return [Problem('jpeg', path, 'a label map that is a JPEG', todo)]
    if label.mode not in SINGLE_CHANNEL:
        what = f'has several channels (mode {label.mode}) where a label map has one, the number of the class'
        todo = 'turn colours into numbers, or copy palette PNG files as they are instead of saving them as RGB'
        return [Problem('channels', path, what, todo)]
    return []


def size_problems(path: str, image: Header, label: Header) -> list[Problem]:
    """Whether an image and its label map, at ``path``, have different sizes."""
    shown = image.size[::-1] if image.turned else image.size
    if shown == label.size:
        return []
    what = 'a label map of {} × {} pixels for an image of {} × {}'.format(*label.size, *shown)
    if image.turned and image.size == label.size:
        todo = 'EXIF turns the image when it is loaded; save it without that tag'
    else:
        todo = 'make the label map in the size of its image'
    return [Problem('size', path, what, todo)]


class CheckedFiles(BaseSegDataset):
    """To stand before a dataset of mmseg in the bases: looks at its files while it is built.

    Folders, the list and the existence of every file are compared, with one listing per folder. Of 16 evenly spaced
    samples the heads are read. Nothing is checked on remote storage (``backend_args``, ``s3://…``), and no label map
    where ``test_mode=True`` goes with an empty or no ``data_prefix.seg_map_path``.

    Args:
        *args: As the dataset.
        check_files: False leaves the list and the files alone, and only looks for the folders.
        prepare_command: The command that makes the files; error messages show it.
        **kwargs: As the dataset.

    Raises:
        FileNotFoundError: If the root, a folder, the list or files are missing, or there is no image.
        ValueError: If the list repeats names, or a label map does not fit its image or cannot be one.
    """

    guide = 'docs/benchmarks.md'

    def __init__(self, *args: Any, check_files: bool = True, prepare_command: str | None = None, **kwargs: Any) -> None:
        self.check_files, self.prepare_command = check_files, prepare_command
        try:
            super().__init__(*args, **kwargs)
        except AssertionError as error:
            if str(error) or self._remote:
                raise
            # With `lazy_init`, or without a list, mmseg's datasets assert without a word that both exist.
            self._check_folders()
            raise FileNotFoundError(
                self._way_out(
                    f'`ann_file={self.ann_file!r}` is no file, and {type(self).__name__} needs a list of names'
                )
            ) from None

    def load_data_list(self) -> list[dict]:
        """The samples, as mmseg lists them, after a look at their files."""
        if self._remote:
            return super().load_data_list()
        self._check_folders()
        has_list = bool(self.ann_file) and osp.isfile(self.ann_file)
        fault = list_fault(list_from_file(self.ann_file)) if has_list and self.check_files else None
        if fault:
            raise ValueError(f'The list {self.ann_file} cannot be used: {fault[0]}; {fault[1]}.')
        samples = super().load_data_list()
        if not samples:
            raise FileNotFoundError(self._no_image())
        if self.check_files:
            self._check_existence(samples)
            self._check_heads(samples)
        return samples

    @property
    def _remote(self) -> bool:
        backend = (self.backend_args or {'backend': 'local'}).get('backend')
        places = (self.data_root or '', self.data_prefix.get('img_path') or '')
        return backend != 'local' or not all(map(is_local, places))

    @property
    def _reads_labels(self) -> bool:
        folder = self.data_prefix.get('seg_map_path')
        # An empty prefix has become the root by now.
        empty = folder is None or osp.normpath(folder) == osp.normpath(self.data_root or '')
        return folder is not None and not (self.test_mode and empty)

    def _way_out(self, fault: str) -> str:
        command = f'run `{self.prepare_command}` (again), or ' if self.prepare_command else ''
        return f'{fault}: {command}see {self.guide}.'

    def _check_folders(self) -> None:
        if self.data_root and not osp.isdir(self.data_root):
            where = f'`data_root={self.data_root!r}` is no folder (looked for {osp.abspath(self.data_root)})'
            raise FileNotFoundError(self._way_out(where))
        if self.data_prefix.get('img_path') is None:
            raise ValueError("`data_prefix` names no folder of images: give `data_prefix=dict(img_path='...')`.")
        if self.ann_file and not osp.exists(self.ann_file):
            raise FileNotFoundError(self._way_out(f'The list `ann_file={self.ann_file!r}` does not exist'))
        for key, noun in (('img_path', 'images'), ('seg_map_path', 'label maps'))[: 1 + self._reads_labels]:
            folder = self.data_prefix[key]
            if not osp.isdir(folder or '.'):
                fault = f'The folder of {noun} does not exist, `data_prefix.{key}={folder!r}`'
                raise FileNotFoundError(self._way_out(fault))

    def _no_image(self) -> str:
        if self.ann_file and osp.isfile(self.ann_file):
            return self._way_out(f'The list {self.ann_file} is empty')
        folder = self.data_prefix['img_path']
        endings = Counter(osp.splitext(name)[1] for name in _names(folder))
        endings.pop('', None)
        found = ', '.join(f'{count:,} of {ending!r}' for ending, count in endings.most_common(3)) or 'no file at all'
        return self._way_out(f'{folder} holds no image that ends with `img_suffix={self.img_suffix!r}`, but {found}')

    def _check_existence(self, samples: Sequence[dict]) -> None:
        keys = [('img_path', self.img_suffix, 'images'), ('seg_map_path', self.seg_map_suffix, 'label maps')]
        for key, suffix, noun in keys[: 1 + self._reads_labels]:
            missing = missing_files([sample[key] for sample in samples])
            if missing:
                hint = missing_hint(missing[0], suffix)
                fault = f'{len(missing):,} of {len(samples):,} {noun} are missing, first: {missing[0]}'
                raise FileNotFoundError(self._way_out(f'{fault} ({hint})' if hint else fault))

    def _check_heads(self, samples: Sequence[dict]) -> None:
        for index in evenly_spaced(len(samples), SAMPLES):
            problems = self._pair_problems(samples[index]['img_path'], samples[index].get('seg_map_path'))
            if problems:
                raise ValueError(self._way_out(str(problems[0])))

    def _pair_problems(self, image_path: str, label_path: str | None) -> list[Problem]:
        path = image_path
        try:
            image, _ = read_image(path)
            if label_path is None or not self._reads_labels:
                return []
            path = label_path
            label, _ = read_image(path)
        except ValueError as error:
            return [unreadable(path, error)]
        return label_problems(path, label) or size_problems(path, image, label)


@DATASETS.register_module()
class CheckedPascalVOCDataset(CheckedFiles, PascalVOCDataset):
    """mmseg's ``PascalVOCDataset`` with :class:`CheckedFiles`."""


@DATASETS.register_module()
class CheckedCOCOStuffDataset(CheckedFiles, COCOStuffDataset):
    """mmseg's ``COCOStuffDataset`` with :class:`CheckedFiles`."""


@DATASETS.register_module()
class CheckedPascalContextDataset59(CheckedFiles, PascalContextDataset59):
    """mmseg's ``PascalContextDataset59`` with :class:`CheckedFiles`."""


@DATASETS.register_module()
class CheckedADE20KDataset(CheckedFiles, ADE20KDataset):
    """mmseg's ``ADE20KDataset`` with :class:`CheckedFiles`."""
