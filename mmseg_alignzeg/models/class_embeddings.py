"""Class prototypes T from a file of embeddings, in place of CLIP's text tower."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from ..aliases import fold
from ..printable import printable
from ..vocabulary import abridged
from .class_names import ClassNames
from .clip_source import CLIPSource
from .text_bank import TextBank

COMBINATIONS = ('mean', 'max')
TOLERANCE = 0.01  # of a row's norm, which must be 1; rows in float16 are less exact than 0.001


def read_embeddings(path: Path, classes: Sequence[str] = ()) -> tuple[tuple[str, ...], Tensor]:
    """Read class embeddings. Pickled arrays are refused.

    Args:
        path: A file with C × D numbers, or C × S × D with S rows per class, named ``embeddings`` in ``.npz`` and
            ``.safetensors``. The C names are an array ``names`` in ``.npz``, a JSON list ``names`` in the metadata of
            ``.safetensors``, and for ``.npy`` the lines of the text file with the same stem.
        classes: Names in the order of an ``.npy`` file without such a text file.

    Returns:
        C names, and (C, S, D) float32 unit rows.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is damaged, names and rows do not fit, or a row is not a finite unit vector.
    """
    if not path.is_file():
        raise FileNotFoundError(f'No class embeddings {str(path)!r}: give a .npy, .npz or .safetensors file.')
    if path.suffix not in READERS:
        raise ValueError(f'{path} must be a .npy, .npz or .safetensors file.')
    try:
        names, array = READERS[path.suffix](path)
        embeds = torch.from_numpy(np.asarray(array)).float()
    except Exception as error:  # each reader has its own exceptions
        reason = printable(' '.join(str(error).split())[:200])
        raise ValueError(f'{path} is not a readable file of class embeddings ({reason}).') from error
    names = tuple(classes) if names is None else names
    embeds = embeds[:, None] if embeds.ndim == 2 else embeds
    if embeds.ndim != 3 or not embeds.numel() or not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f'{path} has {array.dtype} {array.shape}; expected C × D or C × S × D floating-point numbers.')
    if len(names) != len(embeds):
        where = f'{path.with_suffix(".txt").name} beside it, one per line' if path.suffix == '.npy' else '`names`'
        raise ValueError(f'{path} has {len(embeds)} classes, but there are {len(names)} names: give them in {where}.')
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f'{path} has two rows named {printable(twice[0])!r}: names must be unique.')
    norms = embeds.norm(dim=2)  # (C, S)
    for wrong, problem in ((~norms.isfinite(), 'is not finite'), ((norms - 1).abs() > TOLERANCE, 'is not 1')):
        if wrong.any():
            row, part = wrong.nonzero()[0].tolist()
            raise ValueError(
                f'{path}: the norm of row {row} ({printable(names[row])}) {problem} ({norms[row, part]:.4g}): expected '
                'unit vectors, so divide each row by its norm.'
            )
    return names, F.normalize(embeds, dim=2)


def _read_npy(path: Path) -> tuple[tuple[str, ...] | None, np.ndarray]:
    beside = path.with_suffix('.txt')
    names = tuple(beside.read_text(encoding='utf-8-sig').splitlines()) if beside.is_file() else None
    return names, np.load(path, allow_pickle=False)


def _read_npz(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    with np.load(path, allow_pickle=False) as content:
        return tuple(map(str, content['names'])), content['embeddings']


def _read_safetensors(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    with safe_open(path, framework='numpy') as content:
        names = (content.metadata() or {}).get('names')
        if names is None:
            raise ValueError('its metadata has no `names`, a JSON list with a name for each class')
        return tuple(map(str, json.loads(names))), content.get_tensor('embeddings')


READERS = {'.npy': _read_npy, '.npz': _read_npz, '.safetensors': _read_safetensors}


class EmbeddingBank:
    """Embeddings of class names from a file, with the interface of :class:`TextBank`; the text tower is never built.

    Args:
        source: The CLIP model whose vision tower is compared with the embeddings.
        embeddings: Path of the file, see :func:`read_embeddings`.
        classes: The training vocabulary, the order of a file without names.
        templates: How the file was made, for the identity in checkpoints; nothing is computed from it.
        combine: Handling of several rows per class: ``'mean'`` uses their normalised mean, as a prompt ensemble does,
            ``'max'`` the best score among them.

    Raises:
        FileNotFoundError: See :func:`read_embeddings`.
        ValueError: See :func:`read_embeddings`; also if the dimension is not that of ``source``.
    """

    _last: tuple[tuple[tuple[str, ...], torch.device], Tensor] | None = None

    def __init__(
        self,
        source: CLIPSource,
        embeddings: str,
        classes: Sequence[str],
        templates: str = 'file',
        combine: str = 'mean',
    ) -> None:
        if combine not in COMBINATIONS:
            raise ValueError(f'combine={combine!r} must be one of {COMBINATIONS}.')
        self.source = source
        self.template_set = templates
        self.path = Path(embeddings).expanduser()
        self.names, embeds = read_embeddings(self.path, classes)
        width = source.architecture['embed_dim']
        if embeds.shape[2] != width:
            raise ValueError(
                f'{self.path} has rows of {embeds.shape[2]} dimensions, but {source.model_name} compares {width}; '
                'make them with the text tower of that model.'
            )
        self.embeds = F.normalize(embeds.mean(dim=1, keepdim=True), dim=2) if combine == 'mean' else embeds
        self._rows = {fold(name): i for i, name in reversed(list(enumerate(self.names)))}
        self._rows |= {name: i for i, name in enumerate(self.names)}

    def __call__(self, classes: Sequence[str], device: torch.device | str = 'cpu') -> Tensor:
        """Return T: prototypes of C class names, (C, S, D) float32 unit vectors on ``device``.

        Those of the last call are kept: each step of a training asks for the same.

        Raises:
            ValueError: If the file does not have a name; case and spaces do not matter.
        """
        key = (tuple(classes), torch.device(device))
        if self._last is None or self._last[0] != key:
            self._last = (key, self._prototypes(classes).to(device))
        return self._last[1]

    def _prototypes(self, classes: Sequence[str]) -> Tensor:
        rows = [self._rows.get(name, self._rows.get(fold(name))) for name in classes]
        missing = [name for name, row in zip(classes, rows, strict=True) if row is None]
        if missing:
            raise ValueError(
                f'{self.path} has no embedding of {abridged(missing)}; it has {len(self.names)} names '
                f'({abridged(self.names)}). Use these, add rows, or leave out `text.embeddings` to use the text tower.'
            )
        return self.embeds[rows]


class DrawnBank(EmbeddingBank):
    """Prototypes drawn from a digest of each name, without a file, for trials of a dataset.

    The embedded tiny CLIP maps words outside its world to nearly the same vector (cosines above 0.97), so that no class
    could be learned. Drawn vectors are nearly orthogonal. They mean nothing: nothing is transferred to unseen classes.

    Args:
        source: The CLIP model whose vision tower is compared with the vectors.
    """

    def __init__(self, source: CLIPSource) -> None:
        self.source, self.template_set, self.path, self.names = source, 'drawn', Path('drawn vectors'), ()

    def _prototypes(self, classes: Sequence[str]) -> Tensor:
        digests = [hashlib.sha256(fold(name).encode()).digest() for name in classes]
        generators = [np.random.default_rng(int.from_bytes(digest[:8])) for digest in digests]
        rows = np.stack([generator.standard_normal(self.source.architecture['embed_dim']) for generator in generators])
        return F.normalize(torch.from_numpy(rows), dim=1).float()[:, None]


Bank = TextBank | EmbeddingBank


def build_text_bank(source: CLIPSource, classes: Sequence[str], text: Mapping[str, Any] | None) -> Bank:
    """Build the text bank of a model.

    Args:
        source: The CLIP model.
        classes: The training vocabulary.
        text: Arguments of :class:`EmbeddingBank` if ``embeddings`` is one of them; only ``drawn=True`` for
            :class:`DrawnBank`; otherwise of :class:`TextBank`, with ``templates`` and the arguments of
            :class:`ClassNames` as ``names``.

    Raises:
        ValueError: If an argument is wrong, or belongs to the other kind.
    """
    prompts = {key: value for key, value in (text or {}).items() if value is not None}
    if prompts.pop('drawn', False):
        if prompts:
            raise ValueError(f'`text.drawn` allows no other setting, got {sorted(prompts)}.')
        return DrawnBank(source)
    names = prompts.pop('names', {})
    if 'embeddings' not in prompts:
        return TextBank(source, prompts.pop('templates', 'vild'), names=ClassNames(**names), **prompts)
    if names or 'cache_dir' in prompts:
        raise ValueError('`text.names` and `text.cache_dir` are for the text tower: leave them out with `embeddings`.')
    return EmbeddingBank(source, prompts.pop('embeddings'), classes, **prompts)
