"""Class prototypes T: CLIP text embeddings of the class names, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from rich.progress import track
from safetensors.torch import load, save
from torch import Tensor

from ..files import cache_folder, whole_file
from ..printable import printable
from .class_names import ClassNames
from .clip_source import CLIPSource
from .templates import get_templates

KEPT = 16  # vocabularies in memory: words that anyone types must not fill it
HEADER = 2**16  # bytes that a cache file may have beside its embeddings
_unusable: set[Path] = set()  # cache folders that this process has warned of


def encode_tokens(clip: open_clip.CLIP, tokens: Tensor) -> Tensor:
    """Encode token ids as ``clip.encode_text`` does, without the padding after the longest prompt.

    CLIP's text tower is causal and reads its feature at the end-of-text token, so what stands after that token
    changes nothing; class names fill about 15 of the 77 places.

    Args:
        clip: An ``open_clip.CLIP``.
        tokens: (P, context) int64; the end-of-text token has the largest id of its row.

    Returns:
        (P, D) float32, not normalised.
    """
    end = tokens.argmax(dim=1)  # (P,)
    length = int(end.max()) + 1
    x = clip.token_embedding(tokens[:, :length]) + clip.positional_embedding[:length]  # (P, length, width)
    x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
    x = clip.ln_final(x)[torch.arange(len(x), device=x.device), end]  # (P, width)
    return x @ clip.text_projection


@torch.no_grad()
def embed_classes(
    clip: open_clip.CLIP,
    tokenizer: open_clip.SimpleTokenizer,
    classes: Sequence[str],
    templates: Sequence[str],
    batch_size: int = 256,
) -> Tensor:
    """Prompt ensemble: the mean over templates of unit embeddings, scaled to unit norm again.

    Args:
        clip: An ``open_clip.CLIP`` in evaluation mode.
        tokenizer: Its tokenizer.
        classes: C class names.
        templates: Prompt templates with one ``{}`` each.
        batch_size: Prompts that pass the text tower at a time.

    Returns:
        (C, D) float32 with unit rows, on ``clip``'s device.
    """
    prompts = [template.format(name) for name in classes for template in templates]
    tokens = tokenizer(prompts).to(clip.token_embedding.weight.device)
    batches = tokens.split(batch_size)
    if len(batches) > 1:
        batches = track(batches, description=f'Text embeddings of {len(classes)} classes', transient=True)
    embeds = torch.cat([F.normalize(encode_tokens(clip, batch), dim=-1) for batch in batches])
    return F.normalize(embeds.unflatten(0, (len(classes), len(templates))).mean(dim=1), dim=-1)


class TextBank:
    """Text embeddings by class names; memory first (the last 16 vocabularies), then disk, then the text tower.

    The file name covers the CLIP weights, the templates and the phrases, in that order, so a stale bank cannot be
    read by mistake. A file holds ``text_embeds``, (P, D) float32, and ``sha256``, the digest of its key and of those
    numbers; one that differs in anything is computed and written again. A cache that cannot be used costs one warning
    and never an error. Several processes may fill the same cache: each writes beside the file and renames. Random CLIP
    weights are never kept on disk.

    Args:
        source: The CLIP model.
        template_set: Name of a template set, see :func:`get_templates`.
        cache_dir: Defaults to ``$MMSEG_ALIGNZEG_CACHE`` or ``~/.cache/mmseg_alignzeg``.
        names: What classes are called in prompts; their raw names by default.
        keep: False writes nothing to the cache: words of strangers must not fill the disk.
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

    def path(self, phrases: Sequence[str]) -> Path:
        """The file that holds, or would hold, the embeddings of ``phrases``."""
        return self.cache_dir / f'text_{hashlib.sha256(self._key(phrases)).hexdigest()[:32]}.safetensors'

    def _key(self, phrases: Sequence[str]) -> bytes:
        return json.dumps([self.source.identity, self.templates, list(phrases)]).encode()

    def __call__(self, classes: Sequence[str], device: torch.device | str = 'cpu') -> Tensor:
        """T: prototypes of C class names, (C, S, D) float32 unit vectors on ``device``.

        S is 1, or with ``combine='max'`` the largest number of phrases of a class; shorter lists repeat their first.
        """
        key = tuple(classes)
        known = self._memory.pop(key, None)
        self._memory[key] = self._prototypes(key, device) if known is None else known.to(device)  # now the latest
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
        # One phrase stays as it is, to the last bit.
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
        except Exception as error:  # a damaged file raises anything; all of it means the same
            reason = printable(f' (not read from there: {type(error).__name__}: {error})')
        if self.keep:
            print_log(f'Computing text embeddings of {len(phrases)} names, once, into {path}{reason}', 'current')
        embeds = self._compute(phrases, device)
        wrong = fault(embeds, (len(phrases), self._width))
        if wrong:
            raise ValueError(f'{self.source.weights}: its text embeddings {wrong}: the file is damaged, get it again.')
        if not self.keep:
            return embeds
        try:
            self._store(path, phrases, embeds.cpu().contiguous())
        except OSError as error:
            self._warn_once(error)
        return embeds

    def _compute(self, phrases: tuple[str, ...], device: torch.device | str) -> Tensor:
        with torch.random.fork_rng(devices=[]):  # a cold cache must not change the random numbers of a training run
            clip = self.source.load_full().to(device)
        tokenizer = open_clip.get_tokenizer(self.source.model_name)
        with torch.autocast(torch.device(device).type, enabled=False):  # what is kept serves every precision
            return embed_classes(clip, tokenizer, phrases, self.templates)

    @property
    def _width(self) -> int:
        """D of the CLIP model."""
        return open_clip.get_model_config(self.source.model_name)['embed_dim']

    def _digest(self, phrases: Sequence[str], embeds: Tensor) -> Tensor:
        """SHA-256 of key and numbers, (32,) uint8: a file under the name of another one differs as well."""
        return torch.frombuffer(
            bytearray(hashlib.sha256(self._key(phrases) + embeds.numpy().tobytes()).digest()), dtype=torch.uint8
        )

    def _load(self, path: Path, phrases: Sequence[str]) -> Tensor:
        """Read a file.

        Raises:
            OSError: If it cannot be read.
            Exception: Of any kind, if it is not what :meth:`_store` writes for these phrases.
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
            part.write_bytes(content)  # not `save_file`, whose error on a full disk is no OSError

    def _warn_once(self, error: OSError) -> None:
        if self.cache_dir not in _unusable:
            _unusable.add(self.cache_dir)
            print_log(
                f'Text embeddings cannot be kept in {self.cache_dir} ({error}): every run computes them again. '
                'Set MMSEG_ALIGNZEG_CACHE to a folder that can be written.',
                'current',
                logging.WARNING,
            )


def fault(embeds: Tensor, shape: tuple[int, int]) -> str:
    """What keeps embeddings from being (P, D) float32 with finite unit rows, or ''."""
    if tuple(embeds.shape) != shape or embeds.dtype != torch.float32:
        return f'are {embeds.dtype} {tuple(embeds.shape)}, expected torch.float32 {shape}'
    if not embeds.isfinite().all():
        return 'are not finite'
    if not torch.allclose(embeds.norm(dim=1), embeds.new_ones(()), rtol=0, atol=1e-4):
        return 'have rows whose norm is not 1'
    return ''
