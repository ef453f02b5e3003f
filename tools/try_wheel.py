"""Build the source archive and the wheel, and use the wheel in an empty environment, from an empty folder."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
FEW_STEPS = [
    'max_iters=2',
    'train_cfg.max_iters=2',
    'train_cfg.val_interval=2',
    'val_dataloader.dataset.length=2',
    'param_scheduler.0.end=1',
    'param_scheduler.1.begin=1',
    'param_scheduler.1.end=2',
    'default_hooks.checkpoint.interval=2',
]
INFERENCER = """
import mmseg_alignzeg
from alignzeg.apis import AlignZegInferencer
from mmseg.apis import MMSegInferencer, inference_model, init_model
scene = 'alignzeg_demo/scenes/scene_0.png'
print(AlignZegInferencer(device='cpu')(scene, classes=['red grid', 'green checks'])[0].shares())
config, checkpoint = {config!r}, 'work_dirs/iter_2.pth'
print(inference_model(init_model(config, checkpoint, device='cpu'), scene).pred_sem_seg.shape)
print(MMSegInferencer(config, weights=checkpoint, device='cpu')(scene)['predictions'].shape)
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, install and try; the first command that fails ends the trial."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--stack', choices=('lite', 'onedl'), default='lite')
    parser.add_argument('--environment', type=Path, help='folder of the new environment (default: a temporary one)')
    args = parser.parse_args(arguments)
    with TemporaryDirectory() as folder:
        dist, empty = Path(folder, 'dist'), Path(folder, 'empty')
        empty.mkdir()
        run([sys.executable, '-m', 'build', '--no-isolation', '--outdir', dist, ROOT], empty)
        (wheel,) = dist.glob('*.whl')
        environment = args.environment or Path(folder, 'environment')
        run([sys.executable, '-m', 'venv', environment], empty)
        python, scripts = environment / 'bin/python', environment / 'bin'
        pins = ROOT / f'requirements/lock/{args.stack}.txt'
        run([python, '-m', 'pip', 'install', '-q', '-c', pins, f'{wheel}[{args.stack}]'], empty)
        config = next(environment.glob('lib/python*/site-packages/mmseg_alignzeg/.mim/configs/alignzeg_patterns.py'))
        run([scripts / 'alignzeg', 'doctor'], empty)
        run([scripts / 'alignzeg', 'demo'], empty)
        if args.stack == 'lite':  # onedl-mim 0.5.1 looks for the model index beside `bin/alignzeg`
            run([python, '-m', 'mim', 'search', 'mmseg_alignzeg', '--config', 'alignzeg_patterns'], empty)
        run(
            [python, '-m', 'mim', 'train', 'mmseg', config, '--work-dir', 'work_dirs', '--cfg-options', *FEW_STEPS],
            empty,
        )
        run([scripts / 'alignzeg', 'speed', '--quick', '--rows', 'train_demo'], empty)
        run([python, '-c', INFERENCER.format(config=str(config))], empty)
        for file in dist.iterdir():
            (ROOT / 'dist').mkdir(exist_ok=True)
            file.replace(ROOT / 'dist' / file.name)
            print(f'dist/{file.name}: {(ROOT / "dist" / file.name).stat().st_size:,} bytes')


def run(command: Sequence[str | Path], folder: Path) -> None:
    """Run a command in a folder and print its time; end the program if it fails."""
    shown = ' '.join(str(part).replace('\n', ' ')[:60] for part in command)
    print(f'> {shown}', flush=True)
    begin = time.perf_counter()
    done = subprocess.run([str(part) for part in command], cwd=folder)
    print(f'  {time.perf_counter() - begin:.1f} s, exit code {done.returncode}', flush=True)
    if done.returncode:
        raise SystemExit(f'The trial of the wheel failed at: {shown}')


if __name__ == '__main__':
    main()
