"""Pre-train ``tiny_clip``, the CLIP of the embedded world, and export it as fp16 safetensors.

Each image is a whole scene with several blobs at half resolution, as AlignZeg passes it to CLIP. Its caption names the
blob with the largest area, in one of CLIP's prompt templates. In addition to these image-text pairs, there are
region-text pairs, as in region-aware CLIPs: in the last layers, a copy of [CLS] attends only to the patches of one
blob, and is paired with a caption of that blob. From whole images alone, a CLIP this small would need far more images.

Captions contain all 20 class names, as CLIP's training data contain the names of its "unseen" classes. The scenes have
seeds from 1000 on, so none of them is in a train (seed 0), validation (1) or test (2) set of ``PatternsDataset``.

Example:
    python tools/pretrain_tiny_clip.py --out mmseg_alignzeg/assets/tiny_clip/tiny_clip.safetensors
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.transformer import VisionTransformer
from rich.console import Console
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mmseg_alignzeg.datasets.patterns import CLASSES, IGNORE_LABEL, UNSEEN_CLASSES, draw_scene
from mmseg_alignzeg.files import whole_file
from mmseg_alignzeg.models.templates import get_templates

CONFIG = Path(__file__).resolve().parents[1] / 'mmseg_alignzeg/assets/tiny_clip/tiny_clip.json'
FIRST_SEED = 1000
VALIDATION_SEED = 1
SIDE = 64  # of the images, in pixels: half of a scene's 128
PATCH = 8
MAX_BLOBS = 5
TAP = 3  # layers before the masked read-out starts
PROMPT = 'a photo of a {}.'
# A plain name, as in many captions on the web, and the templates that the plugin uses.
TEMPLATES = ('{}', *get_templates('single'), *get_templates('vild'), *get_templates('zegclip_coco'))


def dominant_label(labels: np.ndarray) -> int:
    """Return the label, 0..19, with the largest area of a uint8 label map, without background; -1 if there is none."""
    counts = np.bincount(labels.ravel(), minlength=256)[:IGNORE_LABEL]
    return int(counts.argmax()) if counts.any() else -1


def patch_masks(labels: np.ndarray, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the patches whose centre is in each blob.

    Args:
        labels: Label map (S, S), uint8.
        grid: Patches per side.

    Returns:
        Bool masks (5, grid²), all False for missing blobs, and the blobs' labels (5,), -1 for missing ones.
    """
    step = len(labels) // grid
    centres = labels[step // 2 :: step, step // 2 :: step]
    masks, names = np.zeros((MAX_BLOBS, grid * grid), dtype=bool), np.full(MAX_BLOBS, -1)
    for i, label in enumerate(np.unique(centres[centres != IGNORE_LABEL])):
        masks[i], names[i] = (centres == label).ravel(), label
    return masks, names


class PairBatches(Dataset):
    """A dataset of batches: scenes, their dominant labels, and blob masks; the same in every process.

    Args:
        seed: World seed of the scenes.
        length: Number of batches.
        batch_size: Number of scenes per batch.
        side: Side of the scenes in pixels.
    """

    def __init__(self, seed: int, length: int, batch_size: int, side: int = SIDE) -> None:
        self.seed, self.length, self.batch_size, self.side = seed, length, batch_size, side

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        first = index * self.batch_size
        drawn = [draw_scene(self.seed, first + i, self.side) for i in range(self.batch_size)]
        masks, mask_labels = zip(*(patch_masks(labels, self.side // PATCH) for _, labels in drawn), strict=True)
        return dict(
            scenes=to_pixels([image for image, _ in drawn]),
            labels=torch.tensor([dominant_label(labels) for _, labels in drawn]),
            masks=torch.from_numpy(np.stack(masks)),
            mask_labels=torch.from_numpy(np.stack(mask_labels)),
        )


def to_pixels(images: Sequence[np.ndarray]) -> Tensor:
    """Convert RGB uint8 images (S, S, 3) to a float tensor (B, 3, S, S) with CLIP's normalisation."""
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    return (pixels - mean) / std


def encode_images(
    visual: VisionTransformer, pixels: Tensor, masks: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return image embeddings and, with masks, those of [CLS] copies that attend to one blob each after the tap.

    Args:
        visual: open_clip's VisionTransformer.
        pixels: Float (B, 3, H, W); the position embedding is resampled if the size is not the model's own.
        masks: Bool (B, N, L), the patches that copy n attends to, in addition to itself.

    Returns:
        Embeddings (B, D) and (B, N, D) or None, not normalised.
    """
    grid = visual.conv1(pixels)  # (B, W, h, w)
    position = visual.positional_embedding
    own = visual.grid_size
    spatial = position[1:].T.reshape(1, -1, *own)
    if grid.shape[-2:] != own:
        spatial = F.interpolate(spatial, grid.shape[-2:], mode='bicubic', align_corners=False)
    patches = (grid + spatial).flatten(2).transpose(1, 2)  # (B, L, W)
    cls = (visual.class_embedding + position[0]).expand(len(patches), 1, -1)
    tokens = visual.ln_pre(torch.cat([cls, patches], dim=1))
    blocks, attn_mask, copies = visual.transformer.resblocks, None, 0
    for block in blocks[:TAP]:
        tokens = block(tokens)
    if masks is not None:
        copies = masks.shape[1]
        total = copies + tokens.shape[1]
        allowed = torch.zeros(len(masks), total, total, dtype=torch.bool)
        allowed[:, copies:, copies:] = True  # the image's own tokens do not attend to the copies
        allowed[:, :copies, copies + 1 :] = masks
        allowed[:, range(copies), range(copies)] = True
        attn_mask = torch.zeros(allowed.shape).masked_fill_(~allowed, -math.inf)
        attn_mask = attn_mask.repeat_interleave(blocks[0].attn.num_heads, dim=0)  # (B * heads, total, total)
        tokens = torch.cat([tokens[:, :1].expand(-1, copies, -1), tokens], dim=1)
    for block in blocks[TAP:]:
        tokens = block(tokens, attn_mask=attn_mask)
    embeds = visual.ln_post(tokens[:, : copies + 1]) @ visual.proj
    return embeds[:, copies], embeds[:, :copies] if copies else None


def contrastive_loss(image_embeds: Tensor, text_embeds: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """Compute CLIP's symmetric loss for images that may share a caption.

    Args:
        image_embeds: Float (B, D), not normalised.
        text_embeds: Float (20, D), normalised, one caption per class name.
        labels: Class of each image, int64 (B,).
        scale: Logit scale, a scalar.

    Returns:
        The mean of both directions, a scalar. A caption without an image has no term.
    """
    logits = scale * F.normalize(image_embeds, dim=-1) @ text_embeds.T  # (B, 20)
    positive = F.one_hot(labels, len(text_embeds)).to(logits.dtype)
    per_caption = (positive * logits.log_softmax(dim=0)).sum(0) / positive.sum(0).clamp(min=1)
    return (F.cross_entropy(logits, labels) - per_caption.sum() / positive.any(0).sum()) / 2


def draw_captions(tokens: Tensor) -> Tensor:
    """Return one caption (20, context) per name, each in a random template of ``tokens`` (templates, 20, context)."""
    return tokens[torch.randint(len(tokens), tokens.shape[1:2]), torch.arange(tokens.shape[1])]


def train(steps: int, batch_size: int, seed: int, lr: float, region_weight: float, console: Console) -> open_clip.CLIP:
    """Train from scratch for ``steps`` batches of ``batch_size`` images; returns the model in evaluation mode."""
    torch.manual_seed(seed)
    open_clip.add_model_config(CONFIG)
    model, tokenizer = open_clip.create_model('tiny_clip'), open_clip.get_tokenizer('tiny_clip')
    tokens = torch.stack([tokenizer([template.format(name) for name in CLASSES]) for template in TEMPLATES])
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [dict(params=decayed, weight_decay=0.05), dict(params=others, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)
    warmup = min(100, steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * i / steps))
    )
    batches = PairBatches(FIRST_SEED + seed, steps, batch_size)
    loader = DataLoader(batches, batch_size=None, num_workers=1)
    for batch in track(loader, description='pre-training', total=steps, console=console):
        # One caption per name, because two captions of the same name would be false negatives of each other.
        texts = model.encode_text(draw_captions(tokens), normalize=True)
        scale = model.logit_scale.exp()
        embeds, regions = encode_images(model.visual, batch['scenes'], batch['masks'])
        assert regions is not None
        valid = batch['mask_labels'] >= 0
        loss = contrastive_loss(embeds, texts, batch['labels'], scale)
        loss = loss + region_weight * contrastive_loss(regions[valid], texts, batch['mask_labels'][valid], scale)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
    # Embeddings of words that occur in no caption are still random; zeros need almost no space after compression.
    unused = torch.ones(model.vocab_size, dtype=torch.bool)
    unused[tokens.unique()] = False
    with torch.no_grad():
        model.token_embedding.weight[unused] = 0
    return model.eval()


@torch.no_grad()
def evaluate(model: open_clip.CLIP, scenes: int = 512) -> dict[str, float]:
    """Compute zero-shot top-1 accuracy in percent over the 20 names, on scenes of the validation seed.

    Returns:
        ``scene`` (largest blob) and ``masked`` ([CLS] copies that attend to one blob) at 64² and 128², seen and unseen.
    """
    tokenizer = open_clip.get_tokenizer('tiny_clip')
    texts = model.encode_text(tokenizer([PROMPT.format(name) for name in CLASSES]), normalize=True)
    is_unseen = torch.tensor([name in UNSEEN_CLASSES for name in CLASSES])
    hits: dict[str, list[Tensor]] = {}
    for side in (SIDE, 2 * SIDE):
        for batch in DataLoader(PairBatches(VALIDATION_SEED, math.ceil(scenes / 32), 32, side), batch_size=None):
            whole, regions = encode_images(model.visual, batch['scenes'], batch['masks'])
            assert regions is not None
            valid = batch['mask_labels'] >= 0
            reads = {
                f'scene top-1 {side}²': (whole, batch['labels']),
                f'masked top-1 {side}²': (regions[valid], batch['mask_labels'][valid]),
            }
            for name, (embeds, labels) in reads.items():
                hit = ((embeds @ texts.T).argmax(-1) == labels).float() * 100
                for split, chosen in (('seen', ~is_unseen[labels]), ('unseen', is_unseen[labels])):
                    hits.setdefault(f'{name} {split}', []).append(hit[chosen])
    return {name: torch.cat(parts).mean().item() for name, parts in hits.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Train, export, load the exported file and print its accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--steps', type=int, default=1200)
    parser.add_argument('--batch-size', type=int, default=32, help='scenes per step')
    parser.add_argument('--out', type=Path, default=CONFIG.with_suffix('.safetensors'))
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--lr', type=float, default=1e-3)
    parser.add_argument('--region-weight', type=float, default=1.0, help='weight of the region-text pairs')
    parser.add_argument('--eval-scenes', type=int, default=512)
    parser.add_argument('--threads', type=int, default=2, help='number of torch threads')
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    console = Console()
    model = train(args.steps, args.batch_size, args.seed, args.lr, args.region_weight, console)
    with whole_file(args.out) as part:
        save_file({key: value.half().contiguous() for key, value in model.state_dict().items()}, part)
    exported = open_clip.create_model('tiny_clip', pretrained=str(args.out)).eval()
    for name, value in evaluate(exported, args.eval_scenes).items():
        console.print(f'{name}: {value:.1f}')
    console.print(f'{args.out}: {args.out.stat().st_size / 1e6:.2f} MB')


if __name__ == '__main__':
    main()
