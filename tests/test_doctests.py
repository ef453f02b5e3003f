"""The examples in docstrings and on the pages of docs print what they say."""

import doctest
import importlib
import sys
from pathlib import Path

import pytest
from mmengine.logging import MMLogger

ROOT = Path(__file__).parents[1]
FILES = [path for package in ('alignzeg', 'mmseg_alignzeg') for path in sorted((ROOT / package).rglob('*.py'))]
MODULES = ['.'.join(path.relative_to(ROOT).with_suffix('').parts) for path in FILES if '>>> ' in path.read_text()]
PAGES = [path.name for path in sorted((ROOT / 'docs').glob('*.md')) if '```pycon' in path.read_text()]


def failures(tests):
    MMLogger.get_current_instance()  # made now, it does not log into what an example prints
    report, runner = [], doctest.DocTestRunner(verbose=False)
    for test in tests:
        runner.run(test, out=report.append)
    assert runner.tries
    return ''.join(report)


@pytest.mark.parametrize('name', MODULES)
def test_examples(name):
    assert not failures(doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name)))


@pytest.mark.parametrize('name', PAGES)
def test_examples_of_a_page(name):
    text = (ROOT / 'docs' / name).read_text()
    assert not failures([doctest.DocTestParser().get_doctest(text, {}, name, name, 0)])


def test_the_api_pages_have_every_public_name():
    """A name that a function shares with its module must be asked for itself: a directive with it shows the module."""
    lines = [line for name in PAGES for line in (ROOT / 'docs' / name).read_text().splitlines()]
    named = {line.removeprefix('::: ') for line in lines if line.startswith('::: ')}
    packages = {'.'.join(path.relative_to(ROOT).parent.parts) for path in FILES if path.name == '__init__.py'}
    inside = {'mmseg_alignzeg', 'mmseg_alignzeg.models.towers'}  # the packages; names that `models` has too
    public = {name for name in packages - inside if hasattr(importlib.import_module(name), '__all__')}
    shared = {
        f'{name}.{item}' for name in public for item in importlib.import_module(name).__all__
    } & sys.modules.keys()
    assert named == public | {f'{name}.{name.rpartition(".")[2]}' for name in shared}
