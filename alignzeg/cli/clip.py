"""``alignzeg clip``: say what a file of CLIP weights holds, and convert it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import add_command
from .output import write

if TYPE_CHECKING:
    from mmseg_alignzeg.models.clip_facts import Tower

DETAILS = """
Reads weights of open_clip, OpenAI's TorchScript archives (`ViT-B-16.pt`), folders of transformers (CLIP, SigLIP) and
files of mmseg's clip2mmseg.py, runs no code from them, and prints their architecture and the open_clip models that fit.
Configs accept all of these directly, as model.clip.pretrained; --out writes them once in open_clip's layout.
"""
EXAMPLES = """
alignzeg clip ViT-B-16.pt
alignzeg clip clip-vit-base-patch16 --out ViT-B-16.safetensors
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, 'clip', "say what a file of CLIP's weights holds, and convert it", DETAILS, EXAMPLES)
    parser.set_defaults(run=run)
    parser.add_argument('weights', type=Path, metavar='FILE|FOLDER', help='.safetensors, .pt, .pth, .bin or a folder')
    parser.add_argument('--out', type=Path, metavar='FILE', help="write a .safetensors file in open_clip's layout")
    parser.add_argument('--overwrite', action='store_true', help='replace an existing file (default: refuse)')


def run(args: argparse.Namespace) -> int:
    """Print the facts, write the file, and return the exit code."""
    if not args.weights.expanduser().exists():
        raise FileNotFoundError(f"{args.weights} does not exist: give a file or a folder of CLIP's weights.")
    if args.out is not None:
        if args.out.suffix != '.safetensors':
            raise ValueError(f'--out {args.out} must end with .safetensors.')
        if args.out.is_dir() or (args.out.exists() and not args.overwrite):
            raise ValueError(f'{args.out} exists already: pass another --out, or --overwrite to replace a file.')
    from mmseg_alignzeg.models.clip_facts import fitting_models, joint_dimension, text_tower, vision_tower
    from mmseg_alignzeg.models.clip_weights import digest, read_clip

    weights = read_clip(args.weights.expanduser())
    state = weights.state
    types = sorted({str(value.dtype).removeprefix('torch.') for value in state.values()})
    activation = {True: 'QuickGELU', False: 'GELU', None: 'unknown: not in the file; see the origin of the weights'}
    fitting = fitting_models(state, weights.quick_gelu)
    facts = {
        'format': f'{weights.format}, {" and ".join(types)}',
        'vision': sizes(vision_tower(state)),
        'text': sizes(text_tower(state)),
        'joint dimension': joint_dimension(state) or 'unknown',
        'activation': activation[weights.quick_gelu],
        'logit scale': f'{float(state["logit_scale"].float().exp()):.2f}',
        'identity': digest(state),
        'open_clip models': ', '.join(fitting) or 'none has exactly these weights',
    }
    for name, fact in facts.items():
        write(f'{name:17} {fact}', args.stdout)
    if args.out is not None:
        from safetensors.torch import save

        from mmseg_alignzeg.files import whole_file

        with whole_file(args.out) as part:
            part.write_bytes(save(state, {'format': 'pt'}))
        names = ' or '.join(fitting) or 'NAME'
        write(f'written to {args.out}: model.clip.model_name={names} model.clip.pretrained={args.out}', args.stdout)
    return 0


def sizes(tower: Tower) -> str:
    """Describe a tower in one line."""
    parts = {
        f'{tower.layers} layers': tower.layers,
        f'width {tower.width}': tower.width,
        f'patch {tower.patch}': tower.patch,
        f'{tower.image_size} × {tower.image_size} pixels': tower.image_size,
        f'context {tower.context}': tower.context,
        f'{tower.vocabulary or 0:,} tokens': tower.vocabulary,
        f'{tower.parameters / 1e6:.1f} M parameters': tower.parameters,
    }
    return ', '.join([tower.kind, *(part for part, known in parts.items() if known)])
