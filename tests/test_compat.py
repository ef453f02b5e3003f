"""MMSegmentation imports beside mmcv-lite, each case in a fresh interpreter."""

import importlib.util
import subprocess
import sys

import pytest

LITE = importlib.util.find_spec('mmcv') is not None and importlib.util.find_spec('mmcv._ext') is None
only_lite = pytest.mark.skipif(not LITE, reason='a compiled MMCV is installed')


def run_python(code):
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split('\n')[:-1]


# The module is loaded by path, because `import mmseg_alignzeg` already calls it.
LOAD = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location('compat', {importlib.util.find_spec('mmseg_alignzeg.compat').origin!r})
compat = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compat)
"""


@only_lite
def test_placeholder_is_lent_and_taken_away():
    lines = run_python(
        LOAD
        + """
print(compat.enable_mmcv_lite(), compat.enable_mmcv_lite(), 'mmcv._ext' in sys.modules)
import mmseg.models, torch
from mmcv.ops import nms, point_sample
from mmengine.utils.dl_utils.misc import mmcv_full_available
print(mmcv_full_available())
print(point_sample(torch.arange(4.).view(1, 1, 2, 2), torch.tensor([[[.5, .5]]])).item())
try:
    nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
except ImportError as error:
    print(error)
"""
    )
    assert lines[:3] == ['True False False', 'False', '1.5']
    assert lines[3].startswith('`nms` is a compiled MMCV operator') and 'mim install' in lines[3]


def test_compiled_mmcv_is_left_untouched(tmp_path):
    package = tmp_path / 'mmcv'
    (package / 'ops').mkdir(parents=True)
    for name in ('__init__.py', '_ext.py', 'ops/__init__.py'):
        (package / name).touch()
    lines = run_python(
        f'import sys; sys.path.insert(0, {str(tmp_path)!r})'
        + LOAD
        + "print(compat.enable_mmcv_lite(), 'mmcv.ops' in sys.modules)"
    )
    assert lines == ['False False']


def test_failed_import_leaves_no_placeholder(tmp_path):
    (tmp_path / 'mmcv' / 'ops').mkdir(parents=True)
    (tmp_path / 'mmcv' / '__init__.py').touch()
    (tmp_path / 'mmcv' / 'ops' / '__init__.py').write_text("raise OSError('broken')")
    lines = run_python(
        f'import sys; sys.path.insert(0, {str(tmp_path)!r})'
        + LOAD
        + """
try:
    compat.enable_mmcv_lite()
except OSError as error:
    print(error, 'mmcv._ext' in sys.modules)
"""
    )
    assert lines == ['broken False']


def test_missing_mmcv_is_said():
    lines = run_python(
        LOAD
        + """
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == 'mmcv' else find_spec(name)
try:
    compat.enable_mmcv_lite()
except ImportError as error:
    print(error)
"""
    )
    assert lines == ['MMCV is not installed: run `pip install mmcv-lite==2.1.0` (a wheel, no compiler needed).']


def test_one_import_registers_everything():
    lines = run_python(
        """
import mmseg_alignzeg
from mmseg.registry import HOOKS, METRICS
print(mmseg_alignzeg.__version__, 'ZeroShotIoUMetric' in METRICS, 'SafeCheckpointHook' in HOOKS)
"""
    )
    assert lines[-1] == '0.1.0 True True'
