"""Sources of CLIP weights: an open_clip tag, a local file, the embedded tiny CLIP, or random numbers."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import open_clip
import torch
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.utils import get_session
from open_clip.model import _build_vision_tower, convert_to_custom_text_state_dict
from torch import Tensor, nn

from .clip_weights import CLIPWeights, file_digest, is_path, read_clip, weights_digest

ASSETS = Path(__file__).parents[1] / 'assets'

open_clip.add_model_config(ASSETS / 'tiny_clip' / 'tiny_clip.json')


@dataclass(frozen=True)
class CLIPSource:
    """Reference to a CLIP model. Its towers are built on demand.

    Args:
        model_name: An open_clip architecture such as ``ViT-B-16`` (``ViT-B-16-quickgelu`` for OpenAI's weights).
        pretrained: A local weight file or folder, see :func:`read_clip` (the path of a folder needs a ``/``), an
            open_clip tag such as ``openai`` (downloaded by open_clip unless cached), ``embedded`` for the tiny CLIP
            inside this package, or ``None`` for random weights (tests and benchmarks).

    Raises:
        ValueError: If open_clip does not know the architecture or the tag.
        FileNotFoundError: If the file does not exist, or the tag cannot be downloaded.
    """

    model_name: str
    pretrained: str | None

    def __post_init__(self) -> None:
        if open_clip.get_model_config(self.model_name) is None:
            raise ValueError(f'open_clip has no architecture {self.model_name!r}; see open_clip.list_models().')

    @property
    def architecture(self) -> dict[str, Any]:
        """open_clip's description of the model: ``embed_dim``, ``vision_cfg``, ``text_cfg`` and others."""
        return open_clip.get_model_config(self.model_name)

    @cached_property
    def weights(self) -> Path | None:
        """Path of the weight file or folder, or None for random weights."""
        if self.pretrained is None:
            return None
        if self.pretrained == 'embedded':
            path = ASSETS / self.model_name / f'{self.model_name}.safetensors'
            if not path.is_file():
                raise ValueError(f"pretrained='embedded' is available only for tiny_clip, not for {self.model_name!r}.")
            return path
        if is_path(self.pretrained):
            path = Path(self.pretrained).expanduser()
            if not path.exists():
                raise FileNotFoundError(
                    f'CLIP weights {self.pretrained!r} do not exist: put weights of {self.model_name} there '
                    '(.safetensors or .pt, or a folder), or set `pretrained` to another path or a tag such as "openai".'
                )
            return path
        self._check_tag()
        self._refuse_unreachable()
        try:
            return Path(open_clip.download_pretrained(self._origin))
        except Exception as error:  # time-outs of some HTTP libraries are not an OSError
            raise self._not_downloaded(error) from error

    def refuse_missing(self) -> None:
        """Raise if the weights are not on this machine and cannot be downloaded; nothing is downloaded.

        For a tag that is not in the cache, one request without retries tells whether the model hub answers.

        Raises:
            ValueError: If open_clip does not know the tag, or its weights are for another activation.
            FileNotFoundError: If the file does not exist, or the model hub does not answer.
        """
        if self.pretrained in (None, 'embedded') or is_path(self.pretrained):
            self.weights  # noqa: B018 (looks for the file)
        else:
            self._check_tag()
            self._refuse_unreachable()

    def _check_tag(self) -> None:
        tags = open_clip.list_pretrained_tags_by_model(self.model_name)
        if self.pretrained not in tags:
            raise ValueError(f'open_clip has no weights {self.pretrained!r} for {self.model_name}; its tags: {tags}.')
        self._check_activation()

    @property
    def _origin(self) -> dict[str, Any]:
        assert self.pretrained is not None
        return open_clip.get_pretrained_cfg(self.model_name, self.pretrained)

    def _refuse_unreachable(self) -> None:
        """Refuse at once what the client of the model hub would try for a minute."""
        repository, _ = os.path.split(self._origin.get('hf_hub') or '')
        if not repository or cached_weights(self._origin):
            return
        try:
            get_session().head(constants.ENDPOINT, timeout=5)
        except Exception as error:  # each version of the hub has another HTTP library
            raise self._not_downloaded(error) from error

    def _not_downloaded(self, error: Exception) -> FileNotFoundError:
        """Return the error to raise, with the way to get the weights."""
        repository, file = os.path.split(self._origin.get('hf_hub') or '')
        file = file or 'open_clip_model.safetensors'
        fetch = f'run `hf download {repository} {file} --local-dir .`' if repository else f'get {self._origin["url"]}'
        return FileNotFoundError(
            f'CLIP weights {self.model_name}/{self.pretrained} are not in the cache and could not be downloaded '
            f'({type(error).__name__}). On a machine with network access, {fetch}; copy the file here and set '
            '`model.clip.pretrained` (`--clip-weights` of alignzeg) to its path.'
        )

    def _check_activation(self) -> None:
        """Refuse a tag whose weights were trained with another activation, before they are downloaded."""
        self._refuse_activation(self._origin.get('quick_gelu', False))

    def _refuse_activation(self, trained: bool) -> None:
        """Refuse weights that were trained with another activation: they would load and give wrong results.

        Args:
            trained: Whether they were trained with QuickGELU.

        Raises:
            ValueError: If only one of weights and architecture uses QuickGELU.
        """
        if bool(trained) != bool(self.architecture.get('quick_gelu', False)):
            fitting = [
                name
                for name in open_clip.list_models()
                if name.removesuffix('-quickgelu') == self.model_name.removesuffix('-quickgelu')
                and name != self.model_name
            ]
            raise ValueError(
                f'The weights {self.model_name}/{self.pretrained} were trained {"with" if trained else "without"} '
                f'QuickGELU, but the architecture has {"GELU" if trained else "QuickGELU"}: set `model_name` to '
                f'{" or ".join(map(repr, fitting)) or "an architecture with the activation of the weights"}.'
            )

    @cached_property
    def identity(self) -> str:
        """Architecture and a digest of its weights (not of their file); ``NAME:random`` for random weights."""
        return f'{self.model_name}:{"random" if self.weights is None else weights_digest(self.weights)}'

    def identity_as(self, saved: object) -> str:
        """Return :attr:`identity`, or ``saved`` if that is the digest of the same file, as in old checkpoints."""
        if self.weights is None or saved == self.identity or not isinstance(saved, str):
            return self.identity
        return saved if saved == f'{self.model_name}:{file_digest(self.weights)}' else self.identity

    def load_vision(self) -> tuple[nn.Module, float]:
        """Build only the vision tower.

        Returns:
            open_clip's vision tower in float32, and the logit scale τ that multiplies cosines.
        """
        cfg = self.architecture
        args = (cfg['embed_dim'], cfg['vision_cfg'], cfg.get('quick_gelu', False))
        if self.weights is None:
            return _build_vision_tower(*args), 1 / 0.07  # CLIP's own initial scale
        state = self._read().state
        # Draw no random numbers for weights that are about to be replaced. A timm tower has buffers that no file has.
        device = 'cpu' if cfg['vision_cfg'].get('timm_model_name') else 'meta'
        with torch.random.fork_rng(devices=[]), torch.device(device):
            visual = _build_vision_tower(*args)
        prefix = 'visual.'
        own = {key[len(prefix) :]: value.float() for key, value in state.items() if key.startswith(prefix)}
        self._fill(visual, own, assign=True)
        return visual, float(state['logit_scale'].float().exp())

    def load_full(self) -> open_clip.CLIP | open_clip.CustomTextCLIP:
        """Build the whole CLIP model (for its text tower), frozen, in float32 and evaluation mode.

        Returns:
            A ``CLIP`` for the towers of OpenAI's layout, and a ``CustomTextCLIP`` for all others.
        """
        model = untrained(self.model_name)
        if self.weights is not None:
            state = self._read().state
            if not isinstance(model, open_clip.CLIP):
                state = convert_to_custom_text_state_dict(state)
            current = model.state_dict()
            for name in ('logit_scale', 'logit_bias'):  # scalars, or vectors with one element
                if name in state and name in current:
                    state[name] = state[name].reshape(current[name].shape)
            self._fill(model, state)
        return model.eval().requires_grad_(False)

    def load_tokenizer(self) -> Any:
        """Return open_clip's tokenizer of the model, with its context length.

        Raises:
            FileNotFoundError: If its files are not in the package of open_clip and cannot be downloaded.
        """
        try:
            return open_clip.get_tokenizer(self.model_name)
        except Exception as error:  # each version of transformers and of the hub has its own exceptions
            name = self.architecture['text_cfg'].get('hf_tokenizer_name')
            raise FileNotFoundError(
                f'The tokenizer of {self.model_name} is not available ({type(error).__name__}): install transformers, '
                f'and download huggingface.co/{name} into the Hugging Face cache of this machine.'
            ) from error

    def _read(self) -> CLIPWeights:
        assert self.weights is not None
        weights = read_clip(self.weights)
        if weights.quick_gelu is not None:
            self._refuse_activation(weights.quick_gelu)
        return weights

    def _fill(self, module: nn.Module, state: Mapping[str, Tensor], assign: bool = False) -> None:
        try:
            module.load_state_dict(state, assign=assign)
        except RuntimeError as error:
            raise ValueError(
                f'{self.weights} holds no weights of {self.model_name}: {str(error).splitlines()[1].strip()[:160]} '
                'Set `model_name` to the architecture of that file, which `alignzeg clip FILE` prints, or `pretrained` '
                'to a file of this architecture.'
            ) from error


def cached_weights(origin: Mapping[str, Any]) -> Path | None:
    """Return the file in the cache of the model hub that open_clip would use for a tag, or None.

    Args:
        origin: What ``open_clip.get_pretrained_cfg`` says of the tag.
    """
    repository, file = os.path.split(origin.get('hf_hub') or '')
    files = (file,) if file else ('open_clip_model.safetensors', 'open_clip_pytorch_model.bin')
    found = (try_to_load_from_cache(repository, name) for name in files if repository)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def untrained(model_name: str) -> open_clip.CLIP | open_clip.CustomTextCLIP:
    """Build a CLIP model of open_clip with random weights, on torch's default device."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # open_clip would warn that it loads no weights
    try:
        return open_clip.create_model(model_name, device=torch.empty(0).device)
    finally:
        logging.disable(before)
