"""``alignzeg export``: write a trained model in a portable format."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .options import add_command, add_word_options, check_model, fraction, load_library, read_words
from .output import complain, write

DETAILS = """
safetensors  a folder with config.json and model.safetensors: the trained weights without CLIP's, and no code.
             `alignzeg predict --model FOLDER` reads it, and accepts any words.
onnx         one file for a fixed list of words, to run without PyTorch on pictures of any size:
             alignzeg/exchange/onnx_runner.py, which can be copied, resizes a picture as `predict` does and returns its
             labels, positions in the metadata `classes`. The file is compared with `predict` on pictures of other
             sizes, or on those of --compare.
"""
EXAMPLES = """
alignzeg export config.py --checkpoint iter_80000.pth --format safetensors --out my_model
alignzeg export my_model --format onnx --classes "cat, sofa, lamp" --compare photos/ --out cats.onnx
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, 'export', 'write a trained model in a portable format', DETAILS, EXAMPLES)
    parser.set_defaults(run=run)
    parser.add_argument(
        'model',
        nargs='?',
        metavar='CONFIG|FOLDER',
        help='config (.py), or a folder that this command wrote (default: the included model)',
    )
    parser.add_argument('--checkpoint', metavar='FILE', help='.pth or .safetensors that was trained with that config')
    parser.add_argument('--clip-weights', metavar='FILE|TAG', help="CLIP's weights, in place of those in the config")
    parser.add_argument('--format', choices=('safetensors', 'onnx'), required=True)
    parser.add_argument('--out', type=Path, required=True, metavar='PATH', help='folder to write; for onnx, a file')
    parser.add_argument('--overwrite', action='store_true', help='replace existing files (default: refuse)')
    group = parser.add_argument_group('onnx (default words: the classes that the model was trained for)')
    add_word_options(group)
    group.add_argument('--compare', nargs='+', metavar='IMAGES', help='pictures, or folders, to compare with `predict`')
    group.add_argument('--gamma', type=fraction, metavar='G', help='γ of the bias correction, in (0, 1]')
    group.add_argument('--no-pbc', action='store_true', help='skip the bias correction')


def run(args: argparse.Namespace) -> int:
    """Write the model and return the exit code."""
    check_model(args)
    if args.format == 'safetensors':
        if args.checkpoint is None:
            raise ValueError(
                'safetensors are written from a config and its checkpoint: pass CONFIG.py and --checkpoint.'
            )
        onnx_only = (args.classes, args.classes_file, args.compare, args.gamma, args.no_pbc or None)
        if any(option is not None for option in onnx_only):
            raise ValueError(
                '--classes, --classes-file, --compare, --gamma and --no-pbc are valid for --format onnx only.'
            )
    read_words(args)  # refuses wrong words early
    existing = args.out / 'config.json' if args.format == 'safetensors' else args.out
    if existing.is_dir() or (existing.exists() and not args.overwrite):
        raise ValueError(f'{existing} exists already: pass another --out, or --overwrite to replace a file.')
    load_library()
    if args.format == 'onnx':
        written = export_onnx(args)
    else:
        written = export_safetensors(args)
    write(written, args.stdout)
    return 0


def export_safetensors(args: argparse.Namespace) -> str:
    """Write the folder and return the message to print."""
    from ..config_file import read_config_file
    from ..exchange import save_pretrained

    cfg = read_config_file(args.model)
    if args.clip_weights is not None:
        cfg.model.clip.pretrained = args.clip_weights
    save_pretrained(cfg, args.checkpoint, args.out)
    return f'{args.out}: try it with alignzeg predict IMAGES --model {args.out} --classes WORDS --out DIR'


def export_onnx(args: argparse.Namespace) -> str:
    """Write the file, compare it with the inferencer, and return the message to print."""
    from ..apis import AlignZegInferencer
    from ..exchange.onnx import compare_onnx, export_onnx

    asked = read_words(args)
    pictures = list(readable(args.compare)) if args.compare else []
    if args.compare and not pictures:
        raise ValueError('--compare names no picture that can be read.')
    inferencer = AlignZegInferencer(args.model, args.checkpoint, 'cpu', clip_weights=args.clip_weights)
    words = asked or inferencer.model.vocabulary.classes
    settings = dict(gamma=args.gamma, pbc=not args.no_pbc)
    export_onnx(inferencer.model, words, args.out, inferencer.input_scale, **settings)
    written = f'{args.out}: {len(words)} words'
    if importlib.util.find_spec('onnxruntime') is None:
        complain('note: not compared with `predict`: pip install onnxruntime')
        return written
    shares = compare_onnx(args.out, inferencer, pictures or own_pictures(), **settings)
    mean = sum(shares) / len(shares)
    return (
        f'{written}; {mean:.2%} of the labels are those of `predict` ({len(shares)} pictures, least {min(shares):.2%})'
    )


def readable(given: list[str]) -> Iterator[str]:
    """Yield the names of the pictures that can be read, and report the others."""
    from ..apis.image_files import find_images, read_rgb

    for source in find_images(given):
        try:
            read_rgb(source)
        except ValueError as error:
            complain(f'not compared: {source.name} {error}')
        else:
            yield source.name


def own_pictures() -> list[Any]:
    """Return drawn scenes of several sizes and ratios."""
    import cv2

    from mmseg_alignzeg.datasets.patterns import draw_scene

    sizes = ((384, 384), (480, 360), (200, 96), (128, 128))
    return [cv2.resize(draw_scene(2, i)[0], size, interpolation=cv2.INTER_NEAREST) for i, size in enumerate(sizes)]
