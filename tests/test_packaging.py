"""Requirements, lock files and metadata fit each other."""

import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mmseg_alignzeg

ROOT = Path(__file__).parents[1]
EXTRAS = ('tests', 'report', 'web', 'export')
STACKS = {'lite': ('lite', 'mmdet'), 'onedl': ('onedl', 'onedl-mmdet')}


def read(name):
    lines = (ROOT / f'requirements/{name}.txt').read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith('#')]


@pytest.mark.parametrize(('lock', 'stack'), [('lite', 'lite'), ('onedl', 'onedl'), ('oldest', 'lite')])
def test_a_lock_pins_every_requirement_to_a_version_that_it_admits(lock, stack):
    pins = {canonicalize_name(pin.name): pin for pin in read(f'lock/{lock}')}
    assert all(str(pin.specifier).startswith('==') and '+' not in str(pin.specifier) for pin in pins.values())
    assert not [name for name in pins if name.startswith(('nvidia', 'cuda', 'triton', 'mmseg-alignzeg'))]
    for name in ('runtime', *STACKS[stack], *EXTRAS):
        for requirement in read(name):
            pin = pins.get(canonicalize_name(requirement.name))
            if requirement.name == 'setuptools' and pin is None:  # `pip freeze` leaves it out on Python 3.11
                continue
            assert pin is not None, f'{lock}.txt lacks {requirement.name}'
            assert requirement.specifier.contains(str(pin.specifier).removeprefix('=='), prereleases=True), requirement


def test_the_documentation_has_a_lock_of_its_own():
    pins = {canonicalize_name(pin.name): str(pin.specifier).removeprefix('==') for pin in read('lock/docs')}
    for requirement in read('docs'):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_no_stack_is_forced_on_the_user():
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['tool']['setuptools']['dynamic']
    assert project['dependencies']['file'] == ['requirements/runtime.txt']
    stacks = {requirement.name for name in ('lite', 'mminstall', 'onedl') for requirement in read(name)}
    assert not stacks & {requirement.name for requirement in read('runtime')}
    assert {'lite', 'onedl', 'mmcv', 'mmdet', 'onedl-mmdet'} <= project['optional-dependencies'].keys()


def test_the_linters_are_pinned():
    assert all(str(requirement.specifier).startswith('==') for requirement in read('lint'))


def test_the_citation_has_the_version_of_the_package():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == mmseg_alignzeg.__version__
    assert len(citation['preferred-citation']['authors']) == 7


def test_workflows_test_the_pythons_that_the_metadata_name():
    workflows = {path.name: yaml.safe_load(path.read_text()) for path in (ROOT / '.github/workflows').iterdir()}
    jobs = workflows['ci.yml']['jobs']
    tested = {row['python'] for row in jobs['test']['strategy']['matrix']['include']}
    classifiers = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['classifiers']
    named = {text.rpartition(' ')[2] for text in classifiers if 'Python :: 3.' in text}
    assert tested == named == {'3.11', '3.12', '3.13'}
    publish = workflows['release.yml']['jobs']['publish']  # after the trial of the wheel, without a stored token
    assert publish['needs'] == 'build' and publish['permissions'] == {'id-token': 'write'}
    assert 'secrets' not in str(publish)


def test_type_hints_are_announced():
    for package in ('alignzeg', 'mmseg_alignzeg'):
        assert (ROOT / package / 'py.typed').is_file()
