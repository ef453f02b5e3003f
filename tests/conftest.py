"""Fixtures that every test may use."""

import contextlib
import importlib.util
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

import mmseg_alignzeg  # noqa: F401  (registers everything)

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True, scope='session')
def _project_folder():
    """Run in the folder of the project, from wherever pytest was started: tests name configs and tools from there."""
    with contextlib.chdir(ROOT):
        yield


@pytest.fixture(autouse=True, scope='session')
def _default_scope():
    """mmseg's scope for fixtures that outlive a test, whichever test is the first."""
    init_default_scope('mmseg')


@pytest.fixture(autouse=True)
def _default_state(monkeypatch, tmp_path):
    """Fixed seed, mmseg's scope, and a text-embedding cache of the test's own."""
    init_default_scope('mmseg')
    torch.manual_seed(0)
    monkeypatch.setenv('MMSEG_ALIGNZEG_CACHE', str(tmp_path / 'text_cache'))


@pytest.fixture(scope='session')
def load_tool():
    """Import a script of ``tools/`` by its name."""

    def load(name):
        spec = importlib.util.spec_from_file_location(name, ROOT / f'tools/{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
