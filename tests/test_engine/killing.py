"""Start training, export or conversion again and again, and kill each of them with -9 at a random moment.

``python killing.py WORK FOLDER TRIES``: everything is imported once; each try is a fork. Prints how many were killed.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from alignzeg.cli import main
from alignzeg.exchange import load_pretrained
from mmseg_alignzeg.datasets.conversion.convert import Plan, run
from mmseg_alignzeg.engine import read_checkpoint

CONFIG = 'configs/alignzeg_patterns.py'
WEIGHTS = 'mmseg_alignzeg/assets/patterns/model.safetensors'


def fork(work, seconds=None):
    """Do ``work()`` in a child; kill it after so many seconds. Its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = work() or 0
        finally:
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def seconds_of(work):
    begin = time.perf_counter()
    assert fork(work) == 0
    return time.perf_counter() - begin


class Training:
    """Saves at every iteration and keeps one checkpoint; each try resumes the one before."""

    def __init__(self, folder):
        self.folder = folder
        self.iteration = 0

    def longest(self, tries):
        return 6.0

    def work(self, max_iters=100_000):
        cfg = Config.fromfile(CONFIG)
        options = dict(max_iters=max_iters, val_interval=1_000_000)
        cfg.merge_from_dict({f'train_cfg.{key}': value for key, value in options.items()})
        cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=1)
        cfg.train_dataloader.update(num_workers=1, batch_size=2)
        cfg.model.criterion.num_points = 64
        cfg.update(work_dir=str(self.folder), resume=True, log_level='ERROR')
        Runner.from_cfg(cfg).train()

    def check(self):
        found = [read_checkpoint(path)['meta']['iter'] for path in self.folder.glob('*.pth')]  # raises for a torn one
        assert max(found, default=0) >= self.iteration, f'{found} after {self.iteration}: lost'
        self.iteration = max(found, default=0)

    def end(self):
        assert self.iteration > 3, 'killed too early every time'
        assert fork(lambda: self.work(self.iteration + 2)) == 0
        self.check()
        named = Path((self.folder / 'last_checkpoint').read_text())
        assert read_checkpoint(named)['meta']['iter'] == self.iteration
        # One try may leave the file behind that it was about to delete.
        assert not list(self.folder.glob('*.part'))


class Export:
    """Replaces a folder with the same model."""

    def __init__(self, folder):
        self.folder = folder

    def longest(self, tries):
        return seconds_of(self.work)

    def work(self):
        options = ['--format', 'safetensors', '--overwrite', '--out', str(self.folder)]
        return main(['export', CONFIG, '--checkpoint', WEIGHTS, *options])

    def check(self):
        if (self.folder / 'config.json').is_file() and (self.folder / 'model.safetensors').is_file():
            load_pretrained(self.folder)

    def end(self):
        assert fork(self.work) == 0
        assert (self.folder / 'model.safetensors').read_bytes() == Path(WEIGHTS).read_bytes()


class Conversion:
    """Label maps of noise in several processes; files that are there are kept."""

    count = 1000

    def __init__(self, folder):
        self.folder = folder

    def longest(self, tries):
        return 2 * seconds_of(type(self)(self.folder.with_name('measured')).work) / tries

    @staticmethod
    def read(source):
        return np.random.default_rng(int(source.stem)).integers(0, 256, (256, 256), dtype=np.uint8)

    def work(self):
        jobs = [(Path(f'{i}.in'), self.folder / f'{i}.png') for i in range(self.count)]
        lists = {self.folder / 'names.txt': [str(i) for i in range(self.count)]}
        return run(Plan(jobs, self.read, lists), workers=2)

    def check(self):
        for path in self.folder.glob('*.png'):
            with Image.open(path) as image:
                assert np.array_equal(np.array(image), self.read(path)), f'{path} is torn'
        names = self.folder / 'names.txt'
        assert not names.exists() or len(names.read_text().split()) == self.count

    def end(self):
        assert fork(self.work) == 0
        self.check()
        assert len(list(self.folder.glob('*.png'))) == self.count and (self.folder / 'names.txt').is_file()


def try_often(kind, folder, tries):
    moments = random.Random(0)
    task = dict(training=Training, export=Export, conversion=Conversion)[kind](folder)
    killed, longest = 0, task.longest(tries)
    for _ in range(tries):
        killed += fork(task.work, moments.uniform(0, longest)) == -signal.SIGKILL
        task.check()
    task.end()
    print(f'killed {killed}')


if __name__ == '__main__':
    try_often(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
