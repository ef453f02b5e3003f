"""Train, test and visualise AlignZeg in the embedded world, with the commands that a user would run."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.utils import mkdir_or_exist
from mmseg.registry import DATASETS, MODELS
from rich.console import Console
from rich.table import Table

from alignzeg.benchmark.mim import MIM, newest_scores
from mmseg_alignzeg.files import write_text
from mmseg_alignzeg.visualization import contact_sheet
from mmseg_alignzeg.vocabulary import Vocabulary

console = Console()
KEYS = ('pAcc', 'mIoU_seen', 'mIoU_unseen', 'hIoU')


def run_mim(step: str, arguments: list[str]) -> float:
    """Run ``mim`` with its output shown; return the duration in seconds."""
    console.rule(f'[bold]{step}')
    console.print(f'$ mim {" ".join(arguments)}', style='dim', soft_wrap=True)
    begin = time.perf_counter()
    # The number of threads changes the rounding of sums, which alone changes unseen classes by points.
    environment = {'OMP_NUM_THREADS': '1', **os.environ, 'PYTHONWARNINGS': 'ignore'}
    code = subprocess.run([*MIM, *arguments], env=environment).returncode  # nosec B603 (a list, no shell)
    if code:
        sys.exit(f'{step} failed with exit code {code}; see its output above.')
    return time.perf_counter() - begin


def read_scores(work_dir: Path) -> dict[str, float]:
    """Return the scores of the newest test under ``work_dir``."""
    scores = newest_scores(work_dir)
    if scores is None:
        sys.exit(f'The test in {work_dir} wrote no scores; see its output above.')
    return {key: round(scores[key], 2) for key in KEYS}


def draw(config: Path, checkpoint: Path, path: Path, count: int = 6) -> None:
    """Draw test scenes with unseen classes: image, ground truth, prediction without and with PBC."""
    cfg = Config.fromfile(config)
    init_default_scope('mmseg')
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    vocabulary = Vocabulary.from_metainfo(dataset.metainfo)
    model = MODELS.build(cfg.model)
    load_checkpoint(model, str(checkpoint), map_location='cpu', strict=True)
    model.eval()
    unseen = [vocabulary.classes.index(name) for name in vocabulary.unseen_classes]
    rows: list[list[np.ndarray]] = []
    for index in range(len(dataset)):
        item = dataset[index]
        truth = item['data_samples'].gt_sem_seg.data[0].numpy()
        if not np.isin(truth, unseen).any():
            continue
        row = [mmcv.bgr2rgb(item['inputs'].permute(1, 2, 0).numpy()), truth]
        data = model.data_preprocessor({'inputs': [item['inputs']], 'data_samples': [item['data_samples']]})
        for question in (model.question.without_correction(), model.question):
            result = model.predict(data['inputs'], data['data_samples'], question)[0]
            row.append(np.where(truth == 255, 255, result.pred_sem_seg.data[0].numpy()))
        rows.append(row)
        if len(rows) == count:
            break
    columns = ('image', 'ground truth', 'without PBC', 'with PBC')
    contact_sheet(columns, rows, vocabulary, dataset.metainfo['palette'], path, 'Unseen classes are framed')


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--config', type=Path, default=Path('configs/alignzeg_patterns.py'))
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument('--cfg-options', nargs='*', default=[], help='overrides, as in `mim train`')
    args = parser.parse_args()
    mkdir_or_exist(args.work_dir)
    gpus = str(int(torch.cuda.is_available()))
    options = ['--cfg-options', *args.cfg_options] if args.cfg_options else []
    config = str(args.config)

    train = ['train', 'mmseg', config, '--gpus', gpus, '--work-dir', str(args.work_dir), *options]
    seconds = {'train': run_mim('1/4 Train on 12 seen classes', train)}
    checkpoint = Path((args.work_dir / 'last_checkpoint').read_text().strip())
    results = {}
    for number, name, extra in (
        ('2/4', 'test', []),
        ('3/4', 'test_without_pbc', ['model.bias_correction=None']),
    ):
        target = args.work_dir / name
        test = ['test', 'mmseg', config, '--checkpoint', str(checkpoint), '--gpus', gpus, '--work-dir', str(target)]
        overrides = [*args.cfg_options, *extra]
        test += ['--cfg-options', *overrides] if overrides else []
        seconds[name] = run_mim(f'{number} Test on 12 seen and 8 unseen classes: {name}', test)
        results[name] = read_scores(target)

    console.rule('[bold]4/4 Pictures')
    begin = time.perf_counter()
    sheet = args.work_dir / 'contact_sheet.png'
    draw(args.work_dir / args.config.name, checkpoint, sheet)  # the config with its overrides, as written by training
    seconds['pictures'] = time.perf_counter() - begin
    seconds = {step: round(value, 1) for step, value in seconds.items()}

    table = Table('', *KEYS, title='Zero-shot segmentation of the embedded world (percent)')
    for label, name in (('with PBC', 'test'), ('without PBC', 'test_without_pbc')):
        table.add_row(label, *(f'{results[name][key]:.2f}' for key in KEYS))
    console.print(table)
    result = {**results['test'], 'without_pbc': results['test_without_pbc'], 'seconds': seconds}
    result_file = args.work_dir / 'result.json'
    write_text(result_file, json.dumps(result, indent=2) + '\n')
    console.print(f'{sum(seconds.values()):.0f} s in all. Scores: {result_file}  Pictures: {sheet}')


if __name__ == '__main__':
    main()
