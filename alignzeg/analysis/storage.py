"""Storage of proposals in an uncompressed npz file of plain arrays, written and read image by image."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmseg_alignzeg.files import whole_file
from mmseg_alignzeg.models.proposals import Window
from mmseg_alignzeg.vocabulary import Vocabulary

from .collect import AnalysisTask, ImageProposals, ViewScores

FORMAT = 3
VIEW = ('masks', 'scores', 'indicator')
NOT_IN_THE_PASS = ('bias_correction', 'calibration')  # parts of a model that do not change proposals


@dataclass(frozen=True)
class Fingerprint:
    """Identifies the checkpoint and config of stored proposals.

    Attributes:
        checkpoint: SHA-256 of the checkpoint's bytes.
        config: SHA-256 of the settings of model and test set that affect proposals.
    """

    checkpoint: str
    config: str

    @classmethod
    def of(cls, checkpoint: Path, model: Mapping[str, Any], dataset: Mapping[str, Any]) -> Fingerprint:
        """Compute the fingerprint of a file and two configs.

        Args:
            checkpoint: The file.
            model: ``cfg.model``.
            dataset: ``cfg.test_dataloader.dataset``.
        """
        with checkpoint.open('rb') as file:
            weights = hashlib.file_digest(file, 'sha256').hexdigest()
        parts = {key: value for key, value in model.items() if key not in NOT_IN_THE_PASS}
        text = json.dumps([parts, dataset], sort_keys=True, default=str)
        return cls(weights, hashlib.sha256(text.encode()).hexdigest())


class ProposalWriter:
    """Writes images one by one; the file gets its name when it is complete.

    Args:
        path: The file, by convention ``proposals.npz``.
        task: Properties that the images share.
        fingerprint: Fingerprint of their checkpoint and config.
    """

    def __init__(self, path: Path, task: AnalysisTask, fingerprint: Fingerprint) -> None:
        self.path = path
        self.task = task
        self.fingerprint = fingerprint

    def tee(self, images: Iterable[ImageProposals]) -> Iterator[ImageProposals]:
        """Write images and yield them; the file is kept only if all of them are consumed."""
        count = 0
        with whole_file(self.path) as part, zipfile.ZipFile(part, 'w') as file:
            for image in images:
                for name, array in self._arrays(image).items():
                    _write_array(file, f'{count:07d}/{name}', array)
                count += 1
                yield image
            _write_array(file, 'meta', np.array(self._meta(count)))

    def _arrays(self, image: ImageProposals) -> dict[str, np.ndarray]:
        tensors: dict[str, Tensor | None] = {'labels': image.labels, 'matched': image.matched}
        for v, view in enumerate(image.views):
            tensors |= {f'{key}_{v}': getattr(view, key) for key in VIEW}
        arrays = {key: tensor.cpu().numpy() for key, tensor in tensors.items() if tensor is not None}
        small = max(self.task.ignore_index, len(self.task.vocabulary.classes)) < 256
        arrays['labels'] = arrays['labels'].astype(np.uint8 if small else np.int32)
        window = image.window
        arrays['window'] = np.array([window.top, window.left, window.height, window.width])
        return arrays

    def _meta(self, count: int) -> str:
        return json.dumps(
            {
                'format': FORMAT,
                'count': count,
                'fingerprint': dataclasses.asdict(self.fingerprint),
                'task': dataclasses.asdict(self.task),
            }
        )


def read_proposals(path: Path, fingerprint: Fingerprint) -> tuple[AnalysisTask, int, Iterator[ImageProposals]]:
    """Open a file of :class:`ProposalWriter`.

    Args:
        path: The file.
        fingerprint: Expected fingerprint.

    Returns:
        Properties that the images share, their number, and the images, on the CPU.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it does not contain proposals, or those of another checkpoint or config.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist: run without --from first, which writes proposals.npz.')
    try:
        meta = json.loads(str(np.load(path, allow_pickle=False)['meta']))
        saved = Fingerprint(**meta['fingerprint'])
        fields = meta['task']
        vocabulary, trained = Vocabulary(**fields['vocabulary']), tuple(fields['trained_classes'])
        task = AnalysisTask(**{**fields, 'vocabulary': vocabulary, 'trained_classes': trained})
        version = meta['format']
    except (EOFError, KeyError, IndexError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path} is not a file of proposals ({error}): run without --from to write one.') from None
    if version != FORMAT:
        raise ValueError(
            f'{path} has format {version}, this version reads {FORMAT}: run without --from to write it again.'
        )
    for part in ('checkpoint', 'config'):
        there, here = getattr(saved, part), getattr(fingerprint, part)
        if there != here:
            raise ValueError(
                f'{path} was created with another {part} (SHA-256 {there[:12]}…, the given one has {here[:12]}…): give '
                'the original one, or run without --from.'
            )
    return task, meta['count'], _read_images(path, meta['count'])


def _read_images(path: Path, count: int) -> Iterator[ImageProposals]:
    with np.load(path, allow_pickle=False) as file:
        for i in range(count):
            views: list[ViewScores] = []
            while f'{i:07d}/masks_{len(views)}' in file:
                names = {key: f'{i:07d}/{key}_{len(views)}' for key in VIEW}
                views.append(
                    ViewScores(**{key: torch.from_numpy(file[name]) for key, name in names.items() if name in file})
                )
            labels, matched = (torch.from_numpy(file[f'{i:07d}/{key}']) for key in ('labels', 'matched'))
            top, left, height, width = file[f'{i:07d}/window'].tolist()
            window = Window(top, left, height, width, (labels.shape[0], labels.shape[1]))
            yield ImageProposals(tuple(views), labels.long(), window, matched)


def _write_array(file: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    """Add an array as ``np.savez`` would, but compress label maps, which are compressible."""
    entry = zipfile.ZipInfo(f'{name}.npy')
    entry.compress_type = zipfile.ZIP_DEFLATED if array.dtype.kind in 'iu' else zipfile.ZIP_STORED
    with file.open(entry, 'w', force_zip64=True) as stream:
        np.lib.format.write_array(stream, array, allow_pickle=False)
