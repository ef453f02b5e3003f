"""``alignzeg convert``: published datasets in the layout of the configs."""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path
from typing import Any

from .options import add_command, positive

DETAILS = """
Converts the original files of a published dataset to the folders that the configs read. To continue an interrupted
run, repeat the command: existing files are skipped. The exit code is 1 if some files failed; they are listed.
"""
EXAMPLES = """
alignzeg convert voc data/VOCdevkit/VOC2012
alignzeg convert coco_stuff data/coco_stuff164k --workers 4
"""
# name: module and function of the plan, original files, ROOT, output, further options
DATASETS: dict[str, tuple[str, str, str, str, dict[str, dict[str, Any]]]] = {
    'voc': (
        'voc.plan',
        'VOC 2012 (VOCtrainval_11-May-2012.tar) and SBD (benchmark.tgz)',
        'VOCdevkit/VOC2012',
        'SegmentationClassAug/*.png, 11,355 files; ImageSets/Segmentation/aug.txt, 9,118 names',
        {'--sbd': dict(type=Path, help="SBD's folder `dataset` (default: VOCaug/dataset beside ROOT)")},
    ),
    'coco_stuff': (
        'coco_stuff.plan',
        'COCO-Stuff 164K (stuffthingmaps_trainval2017.zip, in annotations/)',
        'coco_stuff164k',
        'annotations/{train2017,val2017}/*_labelTrainIds.png, 118,287 and 5,000 files',
        {},
    ),
    'context59': (
        'context.plan_59',
        'VOC 2010 (VOCtrainval_03-May-2010.tar) and PASCAL Context (trainval.tar.gz: trainval/*.mat, labels.txt)',
        'VOCdevkit/VOC2010',
        'SegmentationClassContext/*.png, 10,103 files; ImageSets/SegmentationContext/{train,val}.txt',
        {
            '--train-list': dict(type=Path, help='names for training (default: ImageSets/Main/train.txt, 4,998)'),
            '--val-list': dict(type=Path, help='names for test (default: ImageSets/Main/val.txt, 5,105)'),
        },
    ),
    'context459': (
        'context.plan_459',
        'same as context59',
        'VOCdevkit/VOC2010',
        'annotations_detectron2/pc459_val/*.tif, 5,105 files',
        {'--val-list': dict(type=Path, help='names for test (default: ImageSets/Main/val.txt, 5,105)')},
    ),
    'ade847': (
        'ade847.plan',
        'ADE20K, full (ADE20K_2021_17_01)',
        'ADE20K_2021_17_01',
        '{images,annotations}_detectron2/{training,validation}/*.{jpg,tif}, 25,574 and 2,000 files each',
        {'--short-side': dict(type=int, default=512, help='size of larger images; 0 keeps it (default: 512)')},
    ),
    'msrc': (
        'msrc.plan',
        'MSRC-v2 (Images/*.bmp) and its cleaned labels by Malisiewicz and Efros (newsegmentations_mats/*_GT.mat)',
        'msrc',
        'labels/*.png, 591 files; lists/{train,val,test}.txt, 359, 58 and 174 names',
        {},
    ),
    'ccp': (
        'ccp.plan',
        'Clothing Co-Parsing (photos/*.jpg, annotations/pixel-level/*.mat)',
        'clothing-co-parsing',
        'labels/*.png, 1,004 files; lists/{train,val,test}.txt, 604, 100 and 300 names',
        {},
    ),
}


def add_parser(commands: Any) -> None:
    """Add the command, with one subcommand per dataset."""
    parser = add_command(commands, 'convert', 'convert a published dataset for the configs', DETAILS, EXAMPLES)
    datasets = parser.add_subparsers(dest='dataset', metavar='DATASET', required=True)
    for name, (_, originals, root, written, options) in DATASETS.items():
        text = f'Original files: {originals}.\nWritten below ROOT: {written}.'
        command = datasets.add_parser(
            name, help=originals, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.set_defaults(run=run)
        command.add_argument('root', type=Path, metavar='ROOT', help=f'folder of original files, such as data/{root}')
        command.add_argument('--out', type=Path, help='write below this folder instead of ROOT')
        command.add_argument(
            '--workers', type=positive, default=os.cpu_count() or 1, help='processes (default: all cores)'
        )
        for option, settings in options.items():
            command.add_argument(option, **settings)


def run(args: argparse.Namespace) -> int:
    """Convert the files and return the exit code."""
    plan, originals, _, _, options = DATASETS[args.dataset]
    if not args.root.is_dir():
        raise FileNotFoundError(f'there is no folder {args.root}: it must hold the original files, {originals}.')
    from mmseg_alignzeg.datasets.conversion.convert import run

    module, _, function = plan.partition('.')
    make_plan = getattr(importlib.import_module(f'mmseg_alignzeg.datasets.conversion.{module}'), function)
    own = {name: getattr(args, name) for name in (option.removeprefix('--').replace('-', '_') for option in options)}
    return run(make_plan(root=args.root, out=args.out or args.root, **own), args.workers, args.stdout)
