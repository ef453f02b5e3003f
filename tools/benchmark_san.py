"""Compare AlignZeg with mmseg's SAN: parameters, FLOPs, time and memory on the same inputs, in one run.

Each measurement runs in a separate process, so that import, start-up and peak memory are those of a real use. Weights
are random, because speed does not depend on them. All models predict 171 classes at 640². AlignZeg is measured
without CLIP prompts, as on VOC and Context, and with the 20 prompts of COCO-Stuff, for which CLIP's activations must be
kept for the backward pass.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ALIGNZEG = 'configs/alignzeg_coco.py'
SAN = 'san/san-vit-b16_coco-stuff164k-640x640.py'
NAMES = {'alignzeg': 'AlignZeg', 'alignzeg_prompts': 'AlignZeg, 20 prompts', 'san': 'SAN'}
SIZE = 640
PREDICTIONS = 7
TRAIN_STEPS = 3
RATIOS = {
    'ratio_prediction': 'prediction_s',
    'ratio_train_step': 'train_step_s',
    'ratio_train_memory': 'train_memory_mb',
    'ratio_predict_memory': 'predict_memory_mb',
    'ratio_first_prediction_warm': 'first_prediction_warm_s',
    'ratio_first_prediction_cold': 'first_prediction_cold_s',
    'ratio_flops': 'gflops',
    'ratio_trainable': 'trainable_m',
}


# ---------------------------------------------------------------- inside a worker process


def build(name: str, weights: str) -> tuple[Any, Any]:
    """Build a model with random weights; return it with its config."""
    import torch
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    import mmseg_alignzeg  # noqa: F401  (SAN needs the placeholder for compiled operators too)

    init_default_scope('mmseg')
    if name != 'san':
        cfg = Config.fromfile(ALIGNZEG)
        if name == 'alignzeg':
            cfg.model.clip.num_prompts = 0
        cfg.model.clip.pretrained = weights
        cfg.model.unseen_classes = []
    else:
        import mmseg

        cfg = Config.fromfile(Path(mmseg.__file__).parent / '.mim' / 'configs' / SAN)
        cfg.model.pretrained = None
    model = MODELS.build(cfg.model)
    if name == 'san':  # without its checkpoint, some of SAN's weights are uninitialised memory
        for param in model.parameters():
            if param.ndim > 1:
                torch.nn.init.normal_(param, std=0.02)
    return model, cfg


def peak_memory_mb(device: str) -> float:
    """Return the peak memory of this process in MB: resident, or allocated on the GPU."""
    import torch

    if device == 'cuda':
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux


def timed(function: Any, repeats: int, device: str) -> float:
    """Return the median duration of ``repeats`` calls in seconds."""
    import torch

    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        if device == 'cuda':
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def worker_predict(name: str, device: str, weights: str, steady: bool) -> dict[str, float]:
    """Measure the time from the start of this process to the first prediction; with ``steady``, all other figures."""
    import torch
    from mmseg.structures import SegDataSample

    model, _ = build(name, weights)
    model = model.to(device).eval()
    image = torch.rand(1, 3, SIZE, SIZE, device=device)
    metainfo = dict(ori_shape=(SIZE, SIZE), img_shape=(SIZE, SIZE), pad_shape=(SIZE, SIZE), padding_size=[0] * 4)

    def predict() -> None:
        with torch.no_grad():
            result = model.predict(image, [SegDataSample(metainfo=metainfo)])
        assert result[0].pred_sem_seg.data.shape == (1, SIZE, SIZE)

    predict()
    if device == 'cuda':
        torch.cuda.synchronize()
    figures = {'first_prediction_done': time.time()}
    if not steady:
        return figures
    figures['prediction_s'] = timed(predict, PREDICTIONS, device)
    figures['predict_memory_mb'] = peak_memory_mb(device)

    from alignzeg.benchmark.flops import count_parameters, predict_flops

    parameters = count_parameters(model)
    figures['params_m'] = (parameters.trained + parameters.frozen) / 1e6
    figures['trainable_m'] = parameters.trained / 1e6
    figures['gflops'] = sum(predict_flops(model, (SIZE, SIZE)).values()) / 1e9
    return figures


def worker_train(name: str, device: str, weights: str) -> dict[str, float]:
    """Measure training steps after one warm-up step (median): batch size 2, fp32, each model's own optimizer."""
    import torch
    from mmengine.optim import build_optim_wrapper
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    model, cfg = build(name, weights)
    model = model.to(device).train()
    optim_cfg = cfg.optim_wrapper
    if optim_cfg.type == 'AmpOptimWrapper':
        optim_cfg.type = 'OptimWrapper'
        optim_cfg.pop('loss_scale')
    optim_wrapper = build_optim_wrapper(model, optim_cfg)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, SIZE, SIZE, generator=generator).to(device)
    cells = torch.randint(0, 171, (2, 1, 4, 4), generator=generator)
    labels = cells.repeat_interleave(SIZE // 4, 2).repeat_interleave(SIZE // 4, 3).to(device)
    metainfo = dict(ori_shape=(SIZE, SIZE), img_shape=(SIZE, SIZE), pad_shape=(SIZE, SIZE))

    def step() -> None:
        samples = [SegDataSample(gt_sem_seg=PixelData(data=image), metainfo=metainfo) for image in labels]
        loss, _ = model.parse_losses(model.loss(images, samples))
        optim_wrapper.update_params(loss)

    step()
    return {'train_step_s': timed(step, TRAIN_STEPS, device), 'train_memory_mb': peak_memory_mb(device)}


# ---------------------------------------------------------------- the parent process


def run_worker(arguments: list[str], cache_dir: Path) -> dict[str, float]:
    """Run this file as a worker; return its figures and the time to its first prediction."""
    environment = {**os.environ, 'MMSEG_ALIGNZEG_CACHE': str(cache_dir), 'PYTHONWARNINGS': 'ignore'}
    begin = time.time()
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)  # nosec B603 (a list, no shell)
    if done.returncode:
        sys.exit(f'The worker {arguments} failed:\n{done.stderr[-2000:]}')
    figures = json.loads(done.stdout.splitlines()[-1])
    if 'first_prediction_done' in figures:
        figures['first_prediction_s'] = figures.pop('first_prediction_done') - begin
    return figures


def measure(name: str, device: str, weights: Path, cache_dir: Path, say: Any) -> dict[str, float]:
    """Return all figures of one model."""
    common = ['--worker', name, '--device', device, '--weights', str(weights)]
    shutil.rmtree(cache_dir, ignore_errors=True)
    say(f'{name}: first prediction, without text embeddings')
    cold = run_worker([*common, '--task', 'first'], cache_dir)
    say(f'{name}: first prediction again, then steady ones')
    figures = run_worker([*common, '--task', 'predict'], cache_dir)
    figures['first_prediction_cold_s'] = cold['first_prediction_s']
    figures['first_prediction_warm_s'] = figures.pop('first_prediction_s')
    say(f'{name}: training steps')
    return {**figures, **run_worker([*common, '--task', 'train'], cache_dir)}


def write_random_clip(path: Path) -> None:
    """Write a CLIP file in open_clip's format, so that loading weights is part of the measurement."""
    import open_clip
    from safetensors.torch import save_file

    clip = open_clip.create_model('ViT-B-16-quickgelu')
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in clip.state_dict().items()}, path)


def main() -> None:
    """Measure all models and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/bench/bench.json'))
    parser.add_argument('--device', choices=('auto', 'cpu', 'cuda'), default='auto')
    parser.add_argument('--worker', choices=sorted(NAMES), help=argparse.SUPPRESS)
    parser.add_argument('--task', choices=('first', 'predict', 'train'), help=argparse.SUPPRESS)
    parser.add_argument('--weights', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        if args.task == 'train':
            figures = worker_train(args.worker, args.device, args.weights)
        else:
            figures = worker_predict(args.worker, args.device, args.weights, steady=args.task == 'predict')
        print(json.dumps(figures))
        return

    import torch
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if args.device == 'cuda' and not torch.cuda.is_available():
        sys.exit('--device cuda was requested, but torch sees no CUDA device: use --device cpu, or check nvidia-smi.')
    device = args.device if args.device != 'auto' else 'cuda' if torch.cuda.is_available() else 'cpu'
    weights = args.out.parent / 'random_clip_vitb16.safetensors'
    if not weights.is_file():
        write_random_clip(weights)
    with console.status('') as status:
        models = {name: measure(name, device, weights, args.out.parent / 'text_cache', status.update) for name in NAMES}
    ours, prompted, san = (models[name] for name in NAMES)
    ratios = {ratio: ours[key] / san[key] for ratio, key in RATIOS.items()}
    ratios |= {f'{ratio}_prompts': prompted[key] / san[key] for ratio, key in RATIOS.items()}

    table = Table(title=f'{SIZE}², 171 classes, {device}, {torch.get_num_threads()} threads, torch {torch.__version__}')
    for heading in ('', *NAMES.values(), 'ratio', 'ratio, prompts'):
        table.add_column(heading, justify='left' if not heading else 'right')
    for key, label in {
        'params_m': 'parameters without text tower (M)',
        'trainable_m': 'trainable parameters (M)',
        'gflops': 'FLOPs of a prediction (G)',
        'first_prediction_cold_s': 'first prediction, cold (s)',
        'first_prediction_warm_s': 'first prediction, warm text bank (s)',
        'prediction_s': 'prediction (s)',
        'train_step_s': 'training step, batch 2 (s)',
        'predict_memory_mb': 'peak memory, prediction (MB)',
        'train_memory_mb': 'peak memory, training (MB)',
    }.items():
        row = (ours[key], prompted[key], san[key])
        shares = (ours[key] / san[key], prompted[key] / san[key])
        table.add_row(label, *(f'{value:.2f}' for value in row), *(f'{share:.3f}' for share in shares))
    console.print(table)
    from mmseg_alignzeg.files import write_text

    write_text(args.out, json.dumps({'device': device, **models, **ratios}, indent=2) + '\n')
    console.print(f'Written to {args.out}')


if __name__ == '__main__':
    main()
