"""The frozen CLIP vision tower, split into the patch stream and the last layers, which encode proposals."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .clip_block import run_block, use_lean_gelu
from .clip_source import CLIPSource


@dataclass
class CLIPStream:
    """Outputs of the patch stream that the rest of the model uses.

    Attributes:
        tap: (B, width, h, w) patch tokens after the tapped layer, the source of Z_clip.
        tail_inputs: Per tail layer, its (B, 1 + h·w, width) input tokens; the first token is [CLS].
    """

    tap: Tensor
    tail_inputs: list[Tensor]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of CLIP's patch grid."""
        return self.tap.shape[2], self.tap.shape[3]


class CLIPVision(BaseModule):
    """CLIP's vision tower, frozen; only the prompts, if any, are trained.

    The patches do not attend to the proposal queries, so their stream is computed once and separately; without
    prompts, it needs no gradient. Frozen weights are not part of the state dict: they come from ``source``.

    Args:
        source: The CLIP model.
        tap_layer: Z_clip is the output of this layer (section 4.2: "the first 6").
        tail_layers: Number of last layers used as semantic decoder (section 4.2: "the last 3").
        skip_bridge: Omit the layers between the two, the literal reading of section 4.2. By default they run
            frozen, because the pretrained residual stream expects them (not given in the paper).
        num_prompts: Deep prompts per layer before the tail, learned as in VPT (20 on COCO-Stuff, else 0).
        scale_factor: CLIP's input size relative to the image (section 4.2: 320² for 640²).
        with_cp: Recompute the layers before the tail in the backward pass instead of storing their activations: less
            memory, more time. It acts only with prompts; without them, nothing is stored.
        compile: Compile the patch stream with ``torch.compile`` at the first call.
        freeze: False trains CLIP's vision weights too, and stores them in the state dict.
        init_cfg: MMEngine's initialisation config.
    """

    def __init__(
        self,
        source: CLIPSource,
        tap_layer: int = 6,
        tail_layers: int = 3,
        skip_bridge: bool = False,
        num_prompts: int = 0,
        scale_factor: float = 0.5,
        with_cp: bool = False,
        compile: bool = False,
        freeze: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        visual, self.logit_scale = source.load_vision()
        if not isinstance(visual, VisionTransformer):
            raise ValueError(f'{source.model_name} has no plain ViT as vision tower: choose a ViT, e.g. ViT-B-16.')
        use_lean_gelu(visual)
        blocks = list(visual.transformer.resblocks)
        if not 0 < tap_layer <= len(blocks) - tail_layers or tail_layers < 1:
            raise ValueError(
                f'{source.model_name} has {len(blocks)} layers; tap_layer={tap_layer} and tail_layers={tail_layers} '
                'must satisfy 0 < tap_layer <= layers - tail_layers and tail_layers >= 1.'
            )
        self.tap_layer = tap_layer
        self.scale_factor = scale_factor
        self.freeze = freeze
        self.with_cp = with_cp
        self.patch_size = visual.patch_size[0]
        self.width = visual.conv1.out_channels
        self.embed_dim = visual.proj.shape[1]
        self.num_heads = blocks[0].attn.num_heads
        if skip_bridge:
            del visual.transformer.resblocks[tap_layer : len(blocks) - tail_layers]
        self.num_stream_layers = len(visual.transformer.resblocks) - tail_layers
        self.visual = visual
        if freeze:
            self.visual.requires_grad_(False)
            self.visual.register_state_dict_post_hook(_forget)
            self.visual.register_load_state_dict_pre_hook(_remember)
        self.prompts = None
        if num_prompts:
            # VPT's Xavier-like range: initial prompts have the scale of patch embeddings.
            bound = (6 / (3 * self.patch_size**2 + self.width)) ** 0.5
            self.prompts = nn.Parameter(torch.empty(self.num_stream_layers, num_prompts, self.width))
            nn.init.uniform_(self.prompts, -bound, bound)
        if compile:
            self.compile()

    def train(self, mode: bool = True) -> CLIPVision:
        """Set the training mode; a frozen tower stays in evaluation mode."""
        super().train(mode)
        if self.freeze:
            self.visual.eval()
        return self

    @property
    def tail(self) -> list[ResidualAttentionBlock]:
        """The last CLIP layers, used as semantic decoder."""
        return list(self.visual.transformer.resblocks)[self.num_stream_layers :]

    def project(self, tokens: Tensor) -> Tensor:
        """Apply CLIP's final norm and projection: (…, width) → (…, embed_dim)."""
        return self.visual.ln_post(tokens) @ self.visual.proj

    def forward(self, images: Tensor) -> CLIPStream:
        """Run the patch stream.

        Args:
            images: (B, 3, H, W) at full resolution, CLIP-normalised; H and W times ``scale_factor`` are multiples
                of CLIP's patch size.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and (self.prompts is not None or not self.freeze)):
            return self._stream(images)

    def _stream(self, images: Tensor) -> CLIPStream:
        if self.scale_factor != 1:
            images = F.interpolate(images, scale_factor=self.scale_factor, mode='bilinear', antialias=True)
        tokens, grid = self._embed(images)
        tap = tokens
        blocks = self.visual.transformer.resblocks
        for depth, block in enumerate(blocks[: self.num_stream_layers]):
            tokens = self._prompted(block, tokens, depth)
            if depth + 1 == self.tap_layer:
                tap = tokens
        tail_inputs = [tokens]
        for block in self.tail[:-1]:  # the patches are not needed after the last layer
            tail_inputs.append(run_block(block, tail_inputs[-1]))
        return CLIPStream(tap[:, 1:].transpose(1, 2).unflatten(2, grid), tail_inputs)

    def _embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return [CLS] and patch tokens with positions, (B, 1 + h·w, width), and the grid (h, w)."""
        patches = self.visual.conv1(images)  # (B, width, h, w)
        grid = (patches.shape[2], patches.shape[3])
        cls_token = self.visual.class_embedding.to(patches.dtype).expand(len(images), 1, -1)
        tokens = torch.cat([cls_token, patches.flatten(2).transpose(1, 2)], dim=1)
        positions = resample_abs_pos_embed(self.visual.positional_embedding[None], grid, num_prefix_tokens=1)
        return self.visual.ln_pre(tokens + positions.to(tokens.dtype)), grid

    def _prompted(self, block: ResidualAttentionBlock, tokens: Tensor, depth: int) -> Tensor:
        """Run one layer; its prompts are appended to the tokens and removed afterwards (deep VPT)."""
        if self.prompts is None:
            return run_block(block, tokens)
        prompts = self.prompts[depth].to(tokens.dtype).expand(len(tokens), -1, -1)
        longer = torch.cat([tokens, prompts], dim=1)
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(run_block, block, longer, use_reentrant=False)[:, : tokens.shape[1]]
        return run_block(block, longer)[:, : tokens.shape[1]]


def _forget(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, _: dict) -> None:
    """Remove frozen weights from the state dict (state dict hook)."""
    for name, _param in module.named_parameters():
        state_dict.pop(prefix + name, None)


def _remember(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Keep the current value of frozen weights missing in a checkpoint, without reporting them (load hook)."""
    for name, param in module.named_parameters():
        state_dict.setdefault(prefix + name, param.detach())
