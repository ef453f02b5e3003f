"""What all vision towers of CLIP have in common: a patch stream per image, and a reading of it per proposal."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from timm.models import model_entrypoint
from torch import Tensor, nn

from ..clip_source import CLIPSource


@dataclass
class CLIPStream:
    """Outputs of the patch stream that the rest of the model uses.

    Attributes:
        tap: (B, width, h, w) patch features after the tapped layer, the source of Z_clip.
        tail_inputs: What :meth:`CLIPTower.read` reads; its shapes depend on the tower.
        grid: Rows and columns of the attention bias.
    """

    tap: Tensor
    tail_inputs: list[Tensor]
    grid: tuple[int, int]


class CLIPTower(BaseModule):
    """CLIP's vision tower, frozen. Subclasses are the families of towers; :func:`build_tower` chooses one.

    The patches do not depend on the proposals, so :meth:`stream` runs once per image, and without a gradient unless
    prompts are trained. :meth:`read` then computes a feature per proposal. Frozen weights are not part of the state
    dict: they come from ``source``.

    Attributes:
        visual: open_clip's module, which has the weights.
        width: Channels of the tap.
        embed_dim: D of the joint space of images and texts.
        patch_size: Side in pixels of CLIP's input that one cell of the attention bias covers.
        num_heads: Attention biases per proposal that the tower can use.
        logit_scale: τ, which multiplies cosines. A tower trained with a sigmoid loss (SigLIP) also has a logit bias. It
            is left out: added to all C + 1 scores, p_g included, it changes neither their softmax nor Eq. (7).

    Args:
        source: The CLIP model.
        visual: Its vision tower, see :meth:`CLIPSource.load_vision`.
        logit_scale: τ.
        scale_factor: CLIP's input size relative to the image (section 4.2: 320² for 640²).
        compile: Compile the patch stream with ``torch.compile`` at the first call.
        freeze: False trains CLIP's vision weights too, and stores them in the state dict.
        init_cfg: MMEngine's initialisation config.
    """

    width: int
    embed_dim: int
    patch_size: int
    num_heads: int

    def __init__(
        self,
        source: CLIPSource,
        visual: nn.Module,
        logit_scale: float,
        scale_factor: float = 0.5,
        compile: bool = False,
        freeze: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.visual: Any = visual
        self.logit_scale = logit_scale
        self.embed_dim = source.architecture['embed_dim']
        self.scale_factor = scale_factor
        self.freeze = freeze
        self.prompts: nn.Parameter | None = None
        if freeze:
            visual.eval().requires_grad_(False)
            visual.register_state_dict_post_hook(_forget)
            visual.register_load_state_dict_pre_hook(_remember)
        if compile:
            self.compile()

    @staticmethod
    @abstractmethod
    def fits(vision_cfg: dict[str, Any]) -> bool:
        """Whether the family can run a tower with this ``vision_cfg`` of open_clip."""

    @abstractmethod
    def stream(self, images: Tensor) -> CLIPStream:
        """Encode images (B, 3, H, W), already of CLIP's input size; H and W are multiples of the patch size."""

    @abstractmethod
    def read(self, stream: CLIPStream, attn_bias: Tensor) -> Tensor:
        """Compute one feature per proposal. With a bias of zero, it is the tower's own feature of the image.

        Args:
            stream: The patch stream.
            attn_bias: B, (B, heads or 1, N, L) with L cells of ``stream.grid``, row by row.

        Returns:
            F: (B, N, D), not normalised.
        """

    def forward(self, images: Tensor) -> CLIPStream:
        """Run the patch stream.

        Args:
            images: (B, 3, H, W) at full resolution, normalised; H and W times ``scale_factor`` are multiples of the
                patch size.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and (self.prompts is not None or not self.freeze)):
            if self.scale_factor != 1:
                # Whole numbers, because 720 · 0.7 is 503.99…, and because an exported graph has symbols for sizes.
                covered = round(self.patch_size / self.scale_factor)
                size = [side // covered * self.patch_size for side in images.shape[2:]]
                images = F.interpolate(images, size=size, mode='bilinear', antialias=True)
            return self.stream(images)

    def train(self, mode: bool = True) -> CLIPTower:
        """Set the training mode; a frozen tower stays in evaluation mode."""
        super().train(mode)
        if self.freeze:
            self.visual.eval()
        return self


def is_timm(vision_cfg: dict[str, Any], module: str, *pools: str) -> bool:
    """Whether a ``vision_cfg`` of open_clip is a model of a module of timm, with one of the given poolings."""
    name = vision_cfg.get('timm_model_name')
    return (
        name is not None
        and model_entrypoint(name).__module__ == f'timm.models.{module}'
        and vision_cfg.get('timm_pool') in pools
    )


def _forget(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, _: dict) -> None:
    """Remove frozen weights from the state dict (state dict hook)."""
    for name, _param in module.named_parameters():
        state_dict.pop(prefix + name, None)


def _remember(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Keep the current value of frozen weights missing in a checkpoint, without reporting them (load hook)."""
    for name, param in module.named_parameters():
        state_dict.setdefault(prefix + name, param.detach())
