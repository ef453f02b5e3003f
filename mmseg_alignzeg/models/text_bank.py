"""Class prototypes T: CLIP text embeddings of the class names, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from rich.progress import track
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..cache import cache_folder
from .class_names import ClassNames
from .clip_source import CLIPSource
from .templates import get_templates

KEPT = 16  # vocabularies in memory: words that anyone types must not fill it


def encode_tokens(clip: nn.Module, tokens: Tensor) -> Tensor:
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
    clip: nn.Module,
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
    read by mistake. Several processes may fill the same cache: each writes to a temporary name and renames.
    Random CLIP weights are never kept on disk.

    Args:
        source: The CLIP model.
        templates: Name of a template set, see :func:`get_templates`.
        cache_dir: Defaults to ``$MMSEG_ALIGNZEG_CACHE`` or ``~/.cache/mmseg_alignzeg``.
        names: What classes are called in prompts; their raw names by default.
    """

    def __init__(
        self, source: CLIPSource, templates: str, cache_dir: str | None = None, names: ClassNames | None = None
    ) -> None:
        self.source = source
        self.names = names or ClassNames()
        self.templates = get_templates(templates)
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir else cache_folder()
        self._memory: dict[tuple[str, ...], Tensor] = {}

    def path(self, phrases: Sequence[str]) -> Path:
        """The file that holds, or would hold, the embeddings of ``phrases``."""
        key = json.dumps([self.source.identity, self.templates, list(phrases)])
        return self.cache_dir / f'text_{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors'

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
        path = self.path(phrases)
        if path.is_file():
            try:
                return load_file(path)['text_embeds']
            except (OSError, SafetensorError) as error:
                print_log(f'{path} cannot be read ({error}): computing it again.', 'current', logging.WARNING)
        print_log(f'Computing text embeddings of {len(phrases)} names, once, into {path}', 'current')
        embeds = self._compute(phrases, device)
        try:
            self._store(path, embeds.cpu())
        except OSError as error:
            print_log(
                f'Text embeddings could not be kept in {self.cache_dir} ({error}): every run computes them again. '
                'Set MMSEG_ALIGNZEG_CACHE to a folder that can be written.',
                'current',
                logging.WARNING,
            )
        return embeds

    def _compute(self, phrases: tuple[str, ...], device: torch.device | str) -> Tensor:
        with torch.random.fork_rng(devices=[]):  # a cold cache must not change the random numbers of a training run
            clip = self.source.load_full().to(device)
        tokenizer = open_clip.get_tokenizer(self.source.model_name)
        with torch.autocast(torch.device(device).type, enabled=False):  # what is kept serves every precision
            return embed_classes(clip, tokenizer, phrases, self.templates)

    @staticmethod
    def _store(path: Path, embeds: Tensor) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix='.tmp')
        os.close(descriptor)
        try:
            save_file({'text_embeds': embeds.contiguous()}, temporary)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
