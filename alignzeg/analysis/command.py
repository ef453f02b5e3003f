"""The work of `alignzeg analyze`: one pass of a checkpoint over its test set, or over a file of proposals."""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

import mmengine
import mmseg
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import MODELS
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils.data import DataLoader

from mmseg_alignzeg import __version__
from mmseg_alignzeg.models import PredictiveBiasCorrection
from mmseg_alignzeg.models.random_clip import NOTE, is_random, warn_of_random_clip

from .. import analysis
from ..apis.trained_models import build_trained, usable_device


def own_variant(cfg: Config, has_indicator: bool) -> tuple[analysis.Variant, float | None]:
    """Return the test setting of the config, and γ for comparisons of PBC."""
    if (cfg.model.get('decoder') or {}).get('type') == 'OracleDecoder':
        return analysis.Variant(oracle=True), PredictiveBiasCorrection().gamma if has_indicator else None
    correction, calibration = cfg.model.get('bias_correction'), cfg.model.get('calibration')
    gamma = MODELS.build(correction).gamma if correction else None
    constant = MODELS.build(calibration).constant if calibration else 0.0
    if not has_indicator:
        return analysis.Variant(None, constant), None
    return analysis.Variant(gamma, constant), PredictiveBiasCorrection().gamma if gamma is None else gamma


def ignored_label(cfg: Config) -> int:
    """Return the ``ignore_index`` of the evaluator in `mim test`."""
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    return next((item['ignore_index'] for item in evaluators if 'ignore_index' in item), 255)


def test_loader(cfg: Config) -> DataLoader:
    """Create the data loader of `mim test`.

    Raises:
        ValueError: If the test set is empty, for which MMEngine's own error is unclear.
    """
    try:
        return Runner.build_dataloader(cfg.test_dataloader)
    except ValueError as error:
        if 'need at least one array' not in str(error):
            raise
        raise ValueError('The test set is empty: `test_dataloader.dataset` finds no image.') from None


def images_of(
    args: argparse.Namespace, cfg: Config, fingerprint: analysis.Fingerprint
) -> tuple[analysis.AnalysisTask, int, Iterator[analysis.ImageProposals]]:
    """Return the task, the number of images, and their proposals, from the file or from the model."""
    if args.source is not None:
        task, count, images = analysis.read_proposals(args.source, fingerprint)
        if args.limit is not None and args.limit > count:
            raise ValueError(f'{args.source} has {count} images, fewer than --limit {args.limit}.')
    else:
        model = build_trained(cfg, args.checkpoint).to(usable_device(None))
        loader = test_loader(cfg)
        task = analysis.AnalysisTask.of(model, loader.dataset, ignored_label(cfg))
        torch.manual_seed(0)  # for the random points of matching
        count = task.images
        images = analysis.collect(model, loader, task)
    count = min(count, args.limit or count)
    images = islice(images, count)
    if args.source is None and args.save_proposals:
        args.out.mkdir(parents=True, exist_ok=True)
        images = analysis.ProposalWriter(args.out / 'proposals.npz', task, fingerprint).tee(images)
    return task, count, images


def analyse(cfg: Config, args: argparse.Namespace, console: Console) -> None:
    """Run the analysis and write the report.

    Raises:
        OSError: If a file is missing.
        ValueError: If an argument, the config, the checkpoint or the data is invalid.
    """
    begin = time.perf_counter()
    if args.batch_size is not None:
        cfg.test_dataloader.batch_size = args.batch_size
    init_default_scope('mmseg')
    if is_random(cfg.model):
        warn_of_random_clip()
    own, base = own_variant(cfg, cfg.model.get('class_indicator') is not None)
    analysis.plan_variants(args.gammas, args.constants, own, base, True)  # checks the values before anything runs
    fingerprint = analysis.Fingerprint.of(args.checkpoint, cfg.model, cfg.test_dataloader.dataset)
    task, count, images = images_of(args, cfg, fingerprint)
    variants = analysis.plan_variants(args.gammas, args.constants, own, base, task.has_both)
    summary = analysis.Summary(variants, own, base, task)
    for image in track(images, total=count, description='analysing', console=console):
        summary.add(image)

    result = summary.result()
    if is_random(cfg.model):
        result['left_out'].insert(0, NOTE)  # the report shows these sentences first
    unseen = len(task.vocabulary.unseen_classes)
    about = {
        'config': ' '.join([str(args.config), *args.cfg_options]),
        'checkpoint': args.checkpoint.name,
        'SHA-256': fingerprint.checkpoint,
        'images': f'{summary.images} of {task.images}',
        'classes': f'{len(task.vocabulary.classes) - unseen} seen and {unseen} unseen classes',
        'date': datetime.now().astimezone().isoformat(' ', 'minutes'),
        'versions': ', '.join(
            [f'mmseg_alignzeg {__version__}', f'Python {platform.python_version()}']
            + [f'{module.__name__} {module.__version__}' for module in (torch, mmseg, mmengine)]  # of either stack
        ),
    }
    analysis.write_report(result, about, args.out)
    show(result, console)
    console.print(f'{time.perf_counter() - begin:.0f} s. {args.out}/report.html', soft_wrap=True, highlight=False)


def show(result: dict, console: Console) -> None:
    """Print the table at the top of the report."""
    columns = {key: text for key, text in analysis.measured(result).items() if key != 'mIoU'}
    title = f'{result["images"]} images (percent)'
    table = Table(title=f'{title}: random CLIP, not results' if NOTE in result['left_out'] else title)
    for text in ('', *columns.values()):
        table.add_column(text, no_wrap=not text)
    for name, row in analysis.Curves(result).summary():
        shown = [f'{row[key]:.2f}' if key in row else '-' for key in columns]
        table.add_row(name + (' *' if row['own'] else ''), *shown)
    console.print(table)
    for sentence in ['* setting of the config', *result['left_out']]:
        console.print(sentence, soft_wrap=True, highlight=False)
