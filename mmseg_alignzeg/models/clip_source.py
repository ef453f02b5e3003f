"""Sources of CLIP weights: an open_clip tag, a local file, the embedded tiny CLIP, or random numbers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import open_clip
import torch
from open_clip.factory import load_state_dict
from open_clip.model import _build_vision_tower
from torch import Tensor, nn

ASSETS = Path(__file__).parents[1] / 'assets'

open_clip.add_model_config(ASSETS / 'tiny_clip' / 'tiny_clip.json')


@dataclass(frozen=True)
class CLIPSource:
    """Reference to a CLIP model. Its towers are built on demand.

    Args:
        model_name: An open_clip architecture such as ``ViT-B-16`` (``ViT-B-16-quickgelu`` for OpenAI's weights).
        pretrained: A local weight file (``.safetensors``, or a ``.pt``/``.bin`` state dict), an open_clip tag
            such as ``openai`` (downloaded by open_clip unless cached), ``embedded`` for the
            tiny CLIP inside this package, or ``None`` for random weights (tests and benchmarks).

    Raises:
        ValueError: If open_clip does not know the architecture or the tag.
        FileNotFoundError: If the file does not exist, or the tag cannot be downloaded.
    """

    model_name: str
    pretrained: str | None

    def __post_init__(self) -> None:
        if open_clip.get_model_config(self.model_name) is None:
            raise ValueError(f'open_clip has no architecture {self.model_name!r}; see open_clip.list_models().')

    @cached_property
    def weights(self) -> Path | None:
        """Path of the weight file, or None for random weights."""
        if self.pretrained is None:
            return None
        if self.pretrained == 'embedded':
            path = ASSETS / self.model_name / f'{self.model_name}.safetensors'
            if not path.is_file():
                raise ValueError(f"pretrained='embedded' is available only for tiny_clip, not for {self.model_name!r}.")
            return path
        if Path(self.pretrained).suffix:
            path = Path(self.pretrained).expanduser()
            if not path.is_file():
                raise FileNotFoundError(
                    f'CLIP weights {self.pretrained!r} do not exist: put an open_clip state dict of {self.model_name} '
                    'there (.safetensors or .pt), or set `pretrained` to another file or to a tag such as "openai".'
                )
            return path
        tags = open_clip.list_pretrained_tags_by_model(self.model_name)
        if self.pretrained not in tags:
            raise ValueError(f'open_clip has no weights {self.pretrained!r} for {self.model_name}; its tags: {tags}.')
        self._check_activation()
        return self._fetch()

    def _check_activation(self) -> None:
        """Refuse a tag whose weights were trained with another activation: they would load and give wrong results.

        Raises:
            ValueError: If only one of weights and architecture uses QuickGELU.
        """
        assert self.pretrained is not None
        trained = bool(open_clip.get_pretrained_cfg(self.model_name, self.pretrained).get('quick_gelu', False))
        if trained != bool(open_clip.get_model_config(self.model_name).get('quick_gelu', False)):
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

    def _fetch(self) -> Path:
        """Return the cached file of an open_clip tag, downloading it if necessary."""
        assert self.pretrained is not None
        cfg = open_clip.get_pretrained_cfg(self.model_name, self.pretrained)
        try:
            return Path(open_clip.download_pretrained(cfg))
        except Exception as error:  # time-outs of some HTTP libraries are not an OSError
            origin = f'open_clip_model.safetensors of {cfg["hf_hub"]}' if cfg.get('hf_hub') else cfg.get('url')
            raise FileNotFoundError(
                f'CLIP weights {self.model_name}/{self.pretrained} are not in the cache and could not be downloaded '
                f'({type(error).__name__}). Download {origin} on a machine with network access, copy it here and '
                'set `pretrained` to its path.'
            ) from error

    @cached_property
    def identity(self) -> str:
        """Architecture and a digest of the weight file; ``NAME:random`` for random weights."""
        if self.weights is None:
            return f'{self.model_name}:random'
        with self.weights.open('rb') as file:
            return f'{self.model_name}:{hashlib.file_digest(file, "sha256").hexdigest()[:16]}'

    def load_vision(self) -> tuple[nn.Module, float]:
        """Build only the vision tower.

        Returns:
            open_clip's ``VisionTransformer`` in float32, and the logit scale τ that multiplies cosines.
        """
        cfg = open_clip.get_model_config(self.model_name)
        args = (cfg['embed_dim'], cfg['vision_cfg'], cfg.get('quick_gelu', False))
        if self.weights is None:
            return _build_vision_tower(*args), 1 / 0.07  # CLIP's own initial scale
        state = self._read_state_dict()
        with torch.device('meta'):  # draw no random numbers for weights that are about to be replaced
            visual = _build_vision_tower(*args)
        prefix = 'visual.'
        own = {key[len(prefix) :]: value.float() for key, value in state.items() if key.startswith(prefix)}
        try:
            visual.load_state_dict(own, assign=True)
        except RuntimeError as error:
            raise ValueError(
                f'{self.weights} holds no weights of {self.model_name}: {str(error).splitlines()[1].strip()[:160]} '
                'Set `model_name` to the architecture of that file, or `pretrained` to a file of this architecture.'
            ) from error
        return visual, float(state['logit_scale'].float().exp())

    def load_full(self) -> open_clip.CLIP:
        """Build the whole CLIP model (for its text tower), frozen, in float32 and evaluation mode."""
        weights = str(self.weights) if self.weights else None
        model = open_clip.create_model(self.model_name, pretrained=weights, weights_only=True)
        return model.eval().requires_grad_(False)

    def _read_state_dict(self) -> dict[str, Tensor]:
        try:
            state = load_state_dict(str(self.weights), weights_only=True)
        except Exception as error:  # each reader has its own exceptions; they all mean that the file is unusable
            raise ValueError(
                f'{self.weights} is not a readable CLIP state dict ({type(error).__name__}): expected .safetensors, or '
                "a .pt/.bin that torch.load(weights_only=True) accepts. Convert OpenAI's TorchScript archives with "
                'open_clip first.'
            ) from error
        if 'logit_scale' not in state:
            raise ValueError(f'{self.weights} has no `logit_scale`: it is not an open_clip state dict of CLIP.')
        return state
