"""Worker processes end with the process that started them, however that ends."""

import subprocess
import sys
from pathlib import Path

import pytest

import mmseg_alignzeg

# The module alone, because the import of the package takes seconds.
POOL = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
sys.path.insert(0, {folder!r})
from workers import {initializer}
context = multiprocessing.get_context('{method}')
pool = ProcessPoolExecutor(1, context, initializer={initializer})
print(pool.submit(os.getpid).result(), flush=True)
pool.submit(time.sleep, 200).result()
"""


@pytest.mark.parametrize(('initializer', 'method'), [('start_worker', 'fork'), ('end_with_parent', 'spawn')])
def test_a_worker_ends_with_a_killed_parent(initializer, method):
    folder = str(Path(mmseg_alignzeg.__file__).parent)
    code = POOL.format(folder=folder, initializer=initializer, method=method)
    parent = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    assert int(parent.stdout.readline()) != parent.pid
    parent.kill()
    parent.communicate(timeout=100)  # until no process has this pipe
