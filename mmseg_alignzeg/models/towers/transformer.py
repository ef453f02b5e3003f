"""Towers that are transformers over patches: the layers before the tail, prompts, and tails with a class token."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..clip_source import CLIPSource
from .base import CLIPStream, CLIPTower


class TransformerTower(CLIPTower):
    """A tower with layers of equal width.

    Args:
        source: See :class:`CLIPTower`, as the next two.
        visual: The vision tower.
        logit_scale: τ.
        tap_layer: Z_clip is the output of this layer (section 4.2: "the first 6"); by default, half of the layers.
        tail_layers: Number of last layers used as semantic decoder (section 4.2: "the last 3"); by default, a quarter
            of the layers. A tower without a class token has none: its tail is its pooling.
        skip_bridge: Omit the layers between the two, the literal reading of section 4.2. By default they run
            frozen, because the pretrained residual stream expects them (not given in the paper).
        num_prompts: Deep prompts per layer before the tail, learned as in VPT (20 on COCO-Stuff, else 0).
        with_cp: Recompute the layers before the tail in the backward pass instead of storing their activations: less
            memory, more time. Frozen layers without prompts store nothing anyway.
        **base: See :class:`CLIPTower`.
    """

    num_prefix_tokens: int  # tokens before the patches

    def __init__(
        self,
        source: CLIPSource,
        visual: nn.Module,
        logit_scale: float,
        tap_layer: int | None = None,
        tail_layers: int | None = None,
        skip_bridge: bool = False,
        num_prompts: int = 0,
        with_cp: bool = False,
        **base: Any,
    ) -> None:
        super().__init__(source, visual, logit_scale, **base)
        depth = len(self.layers)
        least = 1 if self.num_prefix_tokens else 0
        tap_layer = depth // 2 if tap_layer is None else tap_layer
        tail_layers = (depth // 4) * least if tail_layers is None else tail_layers
        if tail_layers < least or (tail_layers and not least):
            expected = 'at least 1' if least else '0: it has no class token, and the bias acts in its attention pooling'
            raise ValueError(f'tail_layers={tail_layers} does not fit {source.model_name}: set it to {expected}.')
        if not 0 < tap_layer <= depth - tail_layers:
            raise ValueError(
                f'{source.model_name} has {depth} layers; tap_layer={tap_layer} and tail_layers={tail_layers} '
                'must satisfy 0 < tap_layer <= layers - tail_layers.'
            )
        self.tap_layer = tap_layer
        self.with_cp = with_cp
        if skip_bridge:
            del self.layers[tap_layer : depth - tail_layers]
        self.num_stream_layers = len(self.layers) - tail_layers
        if num_prompts:
            # VPT's Xavier-like range: initial prompts have the scale of patch embeddings.
            bound = (6 / (3 * self.patch_size**2 + self.width)) ** 0.5
            self.prompts = nn.Parameter(torch.empty(self.num_stream_layers, num_prompts, self.width))
            nn.init.uniform_(self.prompts, -bound, bound)

    @property
    @abstractmethod
    def layers(self) -> Any:
        """All layers, an ``nn.Sequential`` or ``nn.ModuleList``."""

    @abstractmethod
    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return prefix and patch tokens with positions, (B, prefix + h·w, width), and the grid (h, w)."""

    @abstractmethod
    def run_layer(self, layer: Any, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Run one layer on prefix tokens, patches and, possibly, prompts; the shape stays the same."""

    @abstractmethod
    def tail_inputs(self, tokens: Tensor, grid: tuple[int, int]) -> list[Tensor]:
        """Return what the tail reads, from the tokens before it."""

    @property
    def tail(self) -> list[Any]:
        """The last layers, used as semantic decoder."""
        return list(self.layers)[self.num_stream_layers :]

    def stream(self, images: Tensor) -> CLIPStream:
        """See :meth:`CLIPTower.stream`."""
        tokens, grid = self.embed(images)
        tap = tokens
        for depth, layer in enumerate(self.layers[: self.num_stream_layers]):
            tokens = self._prompted(layer, tokens, depth, grid)
            if depth + 1 == self.tap_layer:
                tap = tokens
        inputs = self.tail_inputs(tokens, grid)
        return CLIPStream(tap[:, self.num_prefix_tokens :].transpose(1, 2).unflatten(2, grid), inputs, grid)

    def _prompted(self, layer: Any, tokens: Tensor, depth: int, grid: tuple[int, int]) -> Tensor:
        """Run one layer; its prompts are appended to the tokens and removed afterwards (deep VPT)."""
        length = tokens.shape[1]
        if self.prompts is not None:
            tokens = torch.cat([tokens, self.prompts[depth].to(tokens.dtype).expand(len(tokens), -1, -1)], dim=1)
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(self.run_layer, layer, tokens, grid, use_reentrant=False)[:, :length]
        return self.run_layer(layer, tokens, grid)[:, :length]


class ClassTokenTower(TransformerTower):
    """A tower whose feature is its class token: N copies of it run through the tail with the attention bias.

    ``tail_inputs`` are, per tail layer, its (B, 1 + h·w, width) input tokens; the first one is [CLS].
    """

    num_prefix_tokens = 1

    @abstractmethod
    def attend(self, layer: Any, queries: Tensor, tokens: Tensor, attn_bias: Tensor, grid: tuple[int, int]) -> Tensor:
        """Apply one tail layer to N copies of [CLS]: softmax((Q·Kᵀ + B) / √D)·V, then the MLP (supplement 1).

        As in SAN, a copy attends to itself and to the patches, but not to other copies or to the image's own [CLS].

        Args:
            layer: The layer.
            queries: (B, N, width), the copies of [CLS] before the layer.
            tokens: (B, 1 + L, width), [CLS] and the patches before the layer.
            attn_bias: B, (B, heads or 1, N, L), added before the division by √D.
            grid: Rows and columns of the patches.

        Returns:
            (B, N, width).
        """

    @abstractmethod
    def project(self, tokens: Tensor) -> Tensor:
        """Apply the final norm and projection: (…, width) → (…, embed_dim)."""

    def tail_inputs(self, tokens: Tensor, grid: tuple[int, int]) -> list[Tensor]:
        """See :meth:`TransformerTower.tail_inputs`."""
        inputs = [tokens]
        for layer in self.tail[:-1]:  # the patches are not needed after the last layer
            inputs.append(self.run_layer(layer, inputs[-1], grid))
        return inputs

    def read(self, stream: CLIPStream, attn_bias: Tensor) -> Tensor:
        """See :meth:`CLIPTower.read`."""
        queries = stream.tail_inputs[0][:, :1].expand(-1, attn_bias.shape[2], -1)  # N copies of [CLS]
        for layer, tokens in zip(self.tail, stream.tail_inputs, strict=True):
            queries = self.attend(layer, queries, tokens, attn_bias, stream.grid)
        return self.project(queries)


def copies_mask(attn_bias: Tensor, head_dim: int) -> Tensor:
    """Return the additive mask of N copies over [copies, patches]: (B, heads or 1, N, N + L), in units of the logits.

    Args:
        attn_bias: B, (B, heads or 1, N, L).
        head_dim: D of a head; B is divided by its root.
    """
    num_copies = attn_bias.shape[2]
    strangers = ~torch.eye(num_copies, dtype=torch.bool, device=attn_bias.device)
    among_copies = torch.zeros(num_copies, num_copies, dtype=attn_bias.dtype, device=attn_bias.device)
    among_copies = among_copies.masked_fill(strangers, float('-inf')).expand(*attn_bias.shape[:2], -1, -1)
    return torch.cat([among_copies, attn_bias / head_dim**0.5], dim=-1)
