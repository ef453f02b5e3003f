"""Datasets that check their files before training starts, and report a fault in one line."""

from __future__ import annotations

import os.path as osp
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.transforms import LoadAnnotations
from mmengine import list_from_file
from mmseg.datasets import ADE20KDataset, BaseSegDataset, COCOStuffDataset, PascalContextDataset59, PascalVOCDataset
from mmseg.registry import DATASETS

from ..printable import printable
from .file_checks import (
    IMAGE_ENDINGS,
    SUFFIX_SETTING,
    Problem,
    evenly_spaced,
    is_local,
    label_problems,
    list_fault,
    missing_files,
    missing_hint,
    names_in,
    read_image,
    size_problems,
    unreadable,
)
from .loading import CheckLabelMap

SAMPLES = 16  # files whose headers are read while a dataset is built


class CheckedFiles(BaseSegDataset):
    """A mixin that checks the files of an mmseg dataset while it is built; list it before the dataset class.

    It checks the folders, the list and the existence of every file, with one listing per folder, and reads the headers
    of 16 evenly spaced samples. Remote storage (``backend_args``, ``s3://…``) is not checked, nor are label maps
    if ``test_mode=True`` and ``data_prefix.seg_map_path`` is empty or missing. Later, each label map that
    ``LoadAnnotations`` loads must fit (:class:`CheckLabelMap`), and an error in the pipeline names the file.

    Args:
        *args: Arguments of the dataset.
        check_files: False skips the checks of the list, the files and their sizes; only the folders are checked.
        prepare_command: The command that creates the files; error messages show it.
        **kwargs: Arguments of the dataset.

    Raises:
        FileNotFoundError: If the root, a folder, the list or files are missing, or there is no image.
        ValueError: If the list repeats names, a label map does not fit its image, or a file cannot be a label map.
    """

    guide = 'docs/benchmarks.md'

    def __init__(self, *args: Any, check_files: bool = True, prepare_command: str | None = None, **kwargs: Any) -> None:
        self.check_files, self.prepare_command = check_files, prepare_command
        try:
            super().__init__(*args, **kwargs)
        except AssertionError as error:
            if str(error) or self._remote:
                raise
            # With `lazy_init`, or without a list, mmseg's datasets assert without a message that both exist.
            self._check_folders()
            raise FileNotFoundError(
                self._way_out(
                    f'`ann_file={self.ann_file!r}` is not a file, and {type(self).__name__} needs a list of names'
                )
            ) from None
        if self.check_files:
            steps = self.pipeline.transforms
            loader = next((i for i, step in enumerate(steps) if isinstance(step, LoadAnnotations)), None)
            if loader is not None:
                steps.insert(loader + 1, CheckLabelMap())

    def prepare_data(self, idx: int) -> Any:
        """Return a sample, as the pipeline prepares it.

        Raises:
            ValueError: If the pipeline fails; the message names the file.
        """
        try:
            return super().prepare_data(idx)
        except Exception as error:  # a transform may raise anything, and knows no path
            raise ValueError(self._sample_fault(self.get_data_info(idx), error)) from None

    @classmethod
    def missing_place(cls, settings: Mapping[str, Any]) -> str:
        """Return which root, folder or list does not exist, or which argument is wrong, or ''; no file is looked at.

        Args:
            settings: The config of a dataset of this class.
        """
        arguments = {key: value for key, value in settings.items() if key not in ('type', 'pipeline')}
        try:
            dataset = cls(**{**arguments, 'pipeline': [], 'check_files': False, 'lazy_init': True})
            if not dataset._remote:
                dataset._check_folders()
        except (FileNotFoundError, TypeError, ValueError) as error:
            return str(error)
        return ''

    def load_data_list(self) -> list[dict]:
        """Return the samples, as mmseg lists them, after a check of their files."""
        if self._remote:
            return super().load_data_list()
        self._check_folders()
        has_list = bool(self.ann_file) and osp.isfile(self.ann_file)
        fault = list_fault(list_from_file(self.ann_file)) if has_list and self.check_files else None
        if fault:
            raise ValueError(printable(f'The list {self.ann_file} cannot be used: {fault[0]}; {fault[1]}.'))
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
        return printable(f'{fault}: {command}see {self.guide}.')

    def _check_folders(self) -> None:
        if self.data_root and not osp.isdir(self.data_root):
            where = f'`data_root={self.data_root!r}` is not a folder (looked for {osp.abspath(self.data_root)})'
            if self.prepare_command:
                where += f': get the original files as in {self.guide}, then run `{self.prepare_command}`.'
                raise FileNotFoundError(printable(where))
            raise FileNotFoundError(self._way_out(where))
        if self.data_prefix.get('img_path') is None:
            raise ValueError("`data_prefix` names no folder of images: set `data_prefix=dict(img_path='...')`.")
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
        endings = Counter(osp.splitext(name)[1] for name in names_in(folder))
        endings.pop('', None)
        found = ', '.join(f'{count:,} of {ending!r}' for ending, count in endings.most_common(3)) or 'no file at all'
        fault = f'{folder} contains no image that ends with `img_suffix={self.img_suffix!r}`, but {found}'
        other = next((ending for ending, _ in endings.most_common() if ending.lower() in IMAGE_ENDINGS), None)
        return self._way_out(f'{fault} (set `img_suffix={other!r}`)' if other else fault)

    def _check_existence(self, samples: Sequence[dict]) -> None:
        keys = [('img_path', self.img_suffix, 'images'), ('seg_map_path', self.seg_map_suffix, 'label maps')]
        for key, suffix, noun in keys[: 1 + self._reads_labels]:
            missing = missing_files([sample[key] for sample in samples])
            if missing:
                hint = missing_hint(missing[0], suffix, SUFFIX_SETTING[key])
                fault = f'{len(missing):,} of {len(samples):,} {noun} are missing, first: {missing[0]}'
                raise FileNotFoundError(self._way_out(f'{fault} ({hint})' if hint else fault))

    def _check_heads(self, samples: Sequence[dict]) -> None:
        for index in evenly_spaced(len(samples), SAMPLES):
            problems = self._pair_problems(samples[index]['img_path'], samples[index].get('seg_map_path'))
            if problems:
                raise ValueError(self._way_out(str(problems[0])))

    def _sample_fault(self, sample: dict, error: Exception) -> str:
        """Describe the cause of an error in the pipeline."""
        image_path, label_path = sample['img_path'], sample.get('seg_map_path')
        problems = [] if self._remote else self._pair_problems(image_path, label_path, decode=True)
        if problems:
            return self._way_out(str(problems[0]))
        reason = next(iter(str(error).splitlines()), '')
        if label_path is not None and reason.startswith(label_path):
            return printable(reason)
        return printable(f'{image_path}, with the label map {label_path}: {type(error).__name__}: {reason}')

    def _pair_problems(self, image_path: str, label_path: str | None, decode: bool = False) -> list[Problem]:
        path = image_path
        try:
            image, _ = read_image(path, decode)
            if label_path is None or not self._reads_labels:
                return []
            path = label_path
            label, _ = read_image(path, decode)
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
