"""Class prototypes T: CLIP text embeddings of the class names, computed once and cached on disk."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from rich.progress import track
from safetensors.torch import load, save
from torch import Tensor, nn

from ..files import cache_folder, whole_file
from ..precision import full_precision
from ..printable import printable
from .class_names import ClassNames
from .clip_source import CLIPSource
from .templates import get_templates

KEPT = 16  # vocabularies in memory: users' class names must not fill it
HEADER = 2**16  # maximum bytes of a cache file in addition to its embeddings
_unusable: set[Path] = set()  # cache folders for which this process has given a warning


def ignores_padding(clip: nn.Module) -> bool:
    """Whether a text tower is CLIP's own: causal, with its feature at the end-of-text token, the largest id.

    Others, such as SigLIP's, attend to the padding, or have another end.
    """
    text: Any = getattr(clip, 'text', clip)  # `CustomTextCLIP` has it as a part
    pool = getattr(text, 'pool_type', getattr(text, 'text_pool_type', None))
    causal = getattr(text, 'attn_mask', None) is not None and getattr(text, 'cls_emb', None) is None
    return causal and pool == 'argmax' and isinstance(text.text_projection, Tensor)


def encode_tokens(clip: open_clip.CLIP | open_clip.CustomTextCLIP, tokens: Tensor) -> Tensor:
    """Encode token ids as ``clip.encode_text`` does; if possible, without the padding after the longest prompt.

    CLIP's text tower is causal and reads its feature at the end-of-text token, so later tokens have no effect; class
    names use about 15 of the 77 positions. Other text towers, such as SigLIP's, read all of them.

    Args:
        clip: A model of open_clip.
        tokens: (P, context) int64.

    Returns:
        (P, D) float32, not normalised.
    """
    if not ignores_padding(clip):
        return clip.encode_text(tokens)
    text: Any = getattr(clip, 'text', clip)
    end = tokens.argmax(dim=1)  # (P,)
    length = int(end.max()) + 1
    x = text.token_embedding(tokens[:, :length]) + text.positional_embedding[:length]  # (P, length, width)
    x = text.transformer(x, attn_mask=text.attn_mask[:length, :length])
    x = text.ln_final(x)[torch.arange(len(x), device=x.device), end]  # (P, width)
    return x @ text.text_projection


@torch.no_grad()
def embed_classes(
    clip: open_clip.CLIP | open_clip.CustomTextCLIP,
    tokenizer: Any,
    classes: Sequence[str],
    templates: Sequence[str],
    batch_size: int = 256,
) -> Tensor:
    """Encode class names with a prompt ensemble: the mean over templates of unit embeddings, normalised again.

    Args:
        clip: A model of open_clip in evaluation mode.
        tokenizer: Its tokenizer.
        classes: C class names.
        templates: Prompt templates with one ``{}`` each.
        batch_size: Number of prompts encoded at a time.

    Returns:
        (C, D) float32 with unit rows, on ``clip``'s device.
    """
    prompts = [template.format(name) for name in classes for template in templates]
    tokens = tokenizer(prompts).to(clip.logit_scale.device)
    batches = tokens.split(batch_size)
    if len(batches) > 1:
        batches = track(batches, description=f'Text embeddings of {len(classes)} classes', transient=True)
    embeds = torch.cat([F.normalize(encode_tokens(clip, batch), dim=-1) for batch in batches])
    return F.normalize(embeds.unflatten(0, (len(classes), len(templates))).mean(dim=1), dim=-1)


class TextBank:
    """Text embeddings of class names, taken from memory (the last 16 vocabularies), from disk, or from the text tower.

    The file name depends on the CLIP weights, the templates and the phrases (including their order), so a file is never
    read for other inputs. A file contains ``text_embeds``, (P, D) float32, and ``sha256``, the digest of its key and of
    the embeddings. If anything differs, the embeddings are computed and written again. An unusable cache causes one
    warning and never an error. Several processes may fill the same cache: each writes a temporary file and renames it.
    Embeddings of random CLIP weights are never stored on disk.

    Args:
        source: The CLIP model.
        template_set: Name of a template set, see :func:`get_templates`.
        cache_dir: Defaults to ``$MMSEG_ALIGNZEG_CACHE`` or ``~/.cache/mmseg_alignzeg``.
        names: Names of classes in prompts; by default the unchanged class names.
        keep: If False, names of strangers are expected: none is written to the cache; the text tower stays in memory.
    """

    def __init__(
        self,
        source: CLIPSource,
        template_set: str,
        cache_dir: str | None = None,
        names: ClassNames | None = None,
        keep: bool = True,
    ) -> None:
        self.source = source
        self.names = names or ClassNames()
        self.keep = keep
        self.template_set = template_set
        self.templates = get_templates(template_set)
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir else cache_folder()
        self._memory: dict[tuple[str, ...], Tensor] = {}
        self._tower: tuple[Any, Any] | None = None

    def path(self, phrases: Sequence[str]) -> Path:
        """Return the path of the file for the embeddings of ``phrases``, whether or not it exists."""
        return self.cache_dir / f'text_{hashlib.sha256(self._key(phrases)).hexdigest()[:32]}.safetensors'

    def _key(self, phrases: Sequence[str]) -> bytes:
        return json.dumps([self.source.identity, self.templates, list(phrases)]).encode()

    def __call__(self, classes: Sequence[str], device: torch.device | str = 'cpu') -> Tensor:
        """Return T: prototypes of C class names, (C, S, D) float32 unit vectors on ``device``.

        S is 1, or with ``combine='max'`` the largest number of phrases of a class; shorter lists repeat the first.
        """
        key = tuple(classes)
        known = self._memory.pop(key, None)
        self._memory[key] = self._prototypes(key, device) if known is None else known.to(device)  # now the newest
        if len(self._memory) > KEPT:
            del self._memory[next(iter(self._memory))]
        return self._memory[key]

    def _prototypes(self, classes: tuple[str, ...], device: torch.device | str) -> Tensor:
        groups = self.names.of(classes)
        phrases = tuple(dict.fromkeys(phrase for group in groups for phrase in group))
        embeds = self._load_or_compute(phrases, device).to(device)  # (phrases, D)
        position = {phrase: i for i, phrase in enumerate(phrases)}
        members = [embeds[[position[phrase] for phrase in group]] for group in groups]
        if self.names.combine == 'max':
            most = max(map(len, members))
            return torch.stack([torch.cat([group, group[:1].expand(most - len(group), -1)]) for group in members])
        # A single phrase is not normalised again, so it stays bit for bit the same.
        means = [
            group if len(group) == 1 else F.normalize(group.mean(dim=0, keepdim=True), dim=-1) for group in members
        ]
        return torch.stack(means)

    def _load_or_compute(self, phrases: tuple[str, ...], device: torch.device | str) -> Tensor:
        if self.source.weights is None:
            return self._compute(phrases, device)
        path, reason = self.path(phrases), ''
        try:
            if path.is_file():
                return self._load(path, phrases)
        except Exception as error:  # a damaged file can raise anything
            reason = printable(f' (the existing file is unusable: {type(error).__name__}: {error})')
        if self.keep:
            print_log(f'Computing text embeddings of {len(phrases)} names, stored in {path}{reason}', 'current')
        embeds = self._compute(phrases, device)
        wrong = fault(embeds, (len(phrases), self._width))
        if wrong:
            raise ValueError(f'{self.source.weights}: its text embeddings {wrong}. The file is damaged: get it again.')
        if not self.keep:
            return embeds
        try:
            self._store(path, phrases, embeds.cpu().contiguous())
        except OSError as error:
            self._warn_once(error)
        return embeds

    def _compute(self, phrases: tuple[str, ...], device: torch.device | str) -> Tensor:
        clip, tokenizer = self._tower or self._load_tower()
        with full_precision(torch.device(device)):  # the cache serves every precision
            return embed_classes(clip.to(device), tokenizer, phrases, self.templates)

    def _load_tower(self) -> tuple[Any, Any]:
        with torch.random.fork_rng(devices=[]):  # a cold cache must not change the random numbers of a training run
            clip, tokenizer = self.source.load_full(), self.source.load_tokenizer()
        if not self.keep:
            del clip.visual
            if isinstance(tokenizer, open_clip.SimpleTokenizer):
                tokenizer.cache = _Fixed(tokenizer.cache)
            self._tower = clip, tokenizer
        return clip, tokenizer

    @property
    def _width(self) -> int:
        """D of the CLIP model."""
        return self.source.architecture['embed_dim']

    def _digest(self, phrases: Sequence[str], embeds: Tensor) -> Tensor:
        """Return the SHA-256 of key and embeddings, (32,) uint8; it also detects a renamed file."""
        return torch.frombuffer(
            bytearray(hashlib.sha256(self._key(phrases) + embeds.numpy().tobytes()).digest()), dtype=torch.uint8
        )

    def _load(self, path: Path, phrases: Sequence[str]) -> Tensor:
        """Read a cache file.

        Raises:
            OSError: If it cannot be read.
            Exception: Of any kind, if the content is not what :meth:`_store` writes for these phrases.
        """
        shape, size = (len(phrases), self._width), path.stat().st_size
        if size > 4 * shape[0] * shape[1] + HEADER:
            raise ValueError(f'{size:,} bytes are too many')
        content = load(path.read_bytes())
        embeds = content['text_embeds']
        wrong = fault(embeds, shape)
        if wrong:
            raise ValueError(f'embeddings {wrong}')
        if not torch.equal(content['sha256'], self._digest(phrases, embeds)):
            raise ValueError('embeddings do not match their digest')
        return embeds

    def _store(self, path: Path, phrases: Sequence[str], embeds: Tensor) -> None:
        content = save({'text_embeds': embeds, 'sha256': self._digest(phrases, embeds)})
        with whole_file(path, flush=False) as part:
            part.write_bytes(content)  # not `save_file`, whose error on a full disk is not an OSError

    def _warn_once(self, error: OSError) -> None:
        if self.cache_dir not in _unusable:
            _unusable.add(self.cache_dir)
            print_log(
                f'Text embeddings cannot be stored in {self.cache_dir} ({error}) and are computed again in every run. '
                'Set MMSEG_ALIGNZEG_CACHE to a writable folder.',
                'current',
                logging.WARNING,
            )


class _Fixed(dict[str, str]):  # the cache of a tokenizer would keep every word that anyone ever typed
    def __setitem__(self, key: str, value: str) -> None: ...


def fault(embeds: Tensor, shape: tuple[int, int]) -> str:
    """Return why embeddings are not (P, D) float32 with finite unit rows; an empty string if they are."""
    if tuple(embeds.shape) != shape or embeds.dtype != torch.float32:
        return f'are {embeds.dtype} {tuple(embeds.shape)}, expected torch.float32 {shape}'
    if not embeds.isfinite().all():
        return 'are not finite'
    if not torch.allclose(embeds.norm(dim=1), embeds.new_ones(()), rtol=0, atol=1e-4):
        return 'have rows whose norm is not 1'
    return ''
