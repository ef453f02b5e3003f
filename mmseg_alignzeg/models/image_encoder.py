"""The trained image encoder, which computes Z_enc."""

from __future__ import annotations

from mmengine.model import BaseModule
from mmseg.registry import MODELS
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor


@MODELS.register_module()
class ImageEncoder(BaseModule):
    """Plain ViT without a class token, timm's (section 4.2: 8 layers, dimension 240, patch 16, input 640²).

    Args:
        image_size: Training image size in pixels; for other sizes, position embeddings are resampled bicubically.
        patch_size: Patch side in pixels.
        embed_dim: D.
        depth: Number of layers.
        num_heads: Attention heads (not given in the paper; SAN's adapter has 6).
        compile: Compile the forward and backward pass with ``torch.compile`` at the first call.
        init_cfg: MMEngine's initialisation config.
    """

    def __init__(
        self,
        image_size: int = 640,
        patch_size: int = 16,
        embed_dim: int = 240,
        depth: int = 8,
        num_heads: int = 6,
        compile: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.patch_size = patch_size
        self.embed_dim = embed_dim
        self.vit = VisionTransformer(
            img_size=image_size,
            patch_size=patch_size,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            num_classes=0,
            global_pool='',
            class_token=False,
            dynamic_img_size=True,
        )
        # timm checks sizes, which are multiples of the patch here, with a message that turns symbols of an exported
        # graph into numbers.
        self.vit.patch_embed.img_size = None
        if compile:
            self.compile()

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: (B, 3, H, W), normalised; H and W are multiples of the patch size.

        Returns:
            Z_enc: (B, D, H / patch, W / patch).
        """
        grid = (images.shape[2] // self.patch_size, images.shape[3] // self.patch_size)
        tokens = self.vit.forward_features(images)  # (B, h·w, D)
        return tokens.transpose(1, 2).unflatten(2, grid)
