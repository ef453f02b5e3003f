import json
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from alignzeg.cli import checks, main, options
from alignzeg.cli.stack import FORKS, UPSTREAM, check_stack
from alignzeg.cli.versions import Check

REQUIREMENTS = [
    'torch>=2.6',
    'numpy<3,>=1.26',
    'gradio<7,>=5.30; extra == "web"',
    'ruff; extra == "lint"',
    'mmcv-lite==2.1.0; extra == "lite"',
    'mmengine<0.11,>=0.10.7; extra == "lite"',
    'mmcv<2.2.0,>=2.0.0rc4; extra == "mmcv"',
    'mmengine<0.11,>=0.10.7; extra == "mmcv"',
    'onedl-mmcv<3,>=2.3.6; extra == "onedl"',
    'onedl-mmengine<0.11,>=0.10.12; extra == "onedl"',
    'mmdet<3.4,>=3.3; extra == "mmdet"',
    'onedl-mmdetection<4,>=3.5.1; extra == "onedl-mmdet"',
]
UP = {'mmcv-lite': '2.1.0', 'mmengine': '0.10.7', 'mmdet': '3.3.0'}
ONEDL = {'onedl-mmcv': '2.3.6', 'onedl-mmengine': '0.10.12', 'onedl-mmdetection': '3.5.1'}


class Distribution:
    version = '0.1.0'
    metadata = {'Requires-Python': '>=3.11,<3.14'}
    requires = REQUIREMENTS


@pytest.fixture
def versions(monkeypatch):
    """Versions of installed packages, to be changed by a test."""
    versions = {'torch': '2.9.1', 'numpy': '2.1.0', 'gradio': '6.0.0', **UP}

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, 'version', version)
    monkeypatch.setattr(metadata, 'distribution', lambda name: Distribution)
    monkeypatch.setattr('platform.python_version', lambda: '3.12.1')
    return versions


def statuses(found):
    return {check.name: (check.status, check.found, check.fix) for check in found}


def test_a_sound_installation_passes(capsys):
    assert main(['doctor', '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    found = {check['name']: check for check in report['checks']}
    assert report['problems'] == 0 and {check['status'] for check in report['checks']} <= {'ok', 'note'}
    assert found['torch']['found'].startswith(metadata.version('torch'))
    for name in ('python', 'stack', 'import', 'gpu', 'CLIP weights', 'included model', 'text cache', 'disk'):
        assert found[name]['found'] and (found[name]['status'] == 'ok') == (found[name]['fix'] == '')


def test_what_cannot_work_is_a_problem_with_a_fix(monkeypatch, capsys):
    def fail():
        raise AssertionError('MMCV==2.2.0 is used but incompatible.\nPlease install mmcv>=2.0.0rc4.')

    monkeypatch.setattr(options, 'load_library', fail)
    assert main(['doctor']) == 1
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith('PROBLEM'))
    assert lines[at].split(maxsplit=2)[1:] == [
        'import', 'AssertionError: MMCV==2.2.0 is used but incompatible. Please install mmcv>=2.0.0rc4.'
    ]  # fmt: skip
    assert lines[at + 1].strip().startswith('-> ')
    assert lines[-1] == '1 problem(s) found.'
    assert not any('included model' in line for line in lines) and any('disk' in line for line in lines)


def test_versions_are_held_against_the_metadata(versions):
    assert {status for status, *_ in statuses(checks.check_packages()).values()} == {'ok'}
    versions['torch'] = '2.1.0'
    del versions['numpy'], versions['gradio']
    found = statuses(checks.check_packages())
    assert found['torch'] == ('PROBLEM', '2.1.0, outside the tested range >=2.6', 'run: pip install "torch>=2.6"')
    assert found['numpy'] == ('PROBLEM', 'not installed', 'run: pip install "numpy<3,>=1.26"')
    missing = ('note', 'not installed (only for the web page)', 'pip install "mmseg_alignzeg[web]"')
    assert found['gradio'] == missing and 'ruff' not in found


def test_python_and_the_package_itself(versions, monkeypatch):
    monkeypatch.setattr('platform.python_version', lambda: '3.14.0')
    assert statuses(checks.check_packages())['python'][:2] == ('PROBLEM', '3.14.0 (tested: >=3.11,<3.14)')

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, 'distribution', missing)
    (only,) = checks.check_packages()
    assert only.status == 'PROBLEM' and 'pip install ".[lite]"' in only.fix


@pytest.mark.parametrize(
    ('installed', 'problem', 'found', 'fix'),
    [
        ({}, 'stack', 'no MMSegmentation is installed', '[lite]'),
        (UP, None, 'upstream OpenMMLab, no compiled operators (none needed)', ''),
        ({**UP, 'mmengine': '0.10.5'}, 'mmengine', '0.10.5, outside the tested range', 'mmengine<0.11,>=0.10.7'),
        ({**UP, 'mmcv': '2.1.0'}, 'stack', 'mmcv 2.1.0, mmcv-lite 2.1.0', 'pip uninstall -y mmcv mmcv-lite, then'),
        ({'mmcv': '2.2.0', 'mmengine': '0.10.7'}, 'mmcv', '2.2.0, outside the tested range', 'mmcv-lite==2.1.0'),
        (ONEDL, None, 'OneDL forks, no compiled operators (none needed)', ''),
        ({'onedl-mmcv': '2.3.6'}, 'onedl-mmengine', 'not installed', 'onedl-mmengine<0.11,>=0.10.12'),
        (
            {**ONEDL, 'mmdet': '3.3.0'},
            'stack',
            'a mixture of upstream (mmdet 3.3.0) and OneDL (onedl-mmcv 2.3.6,',
            'pip uninstall -y mmdet onedl-mmcv onedl-mmengine onedl-mmdetection, then',
        ),
    ],
)
def test_the_stack(versions, monkeypatch, installed, problem, found, fix):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    for name in (*UPSTREAM, *FORKS):
        versions.pop(name, None)
    versions.update(installed)
    result = list(check_stack([Requirement(text) for text in REQUIREMENTS]))
    assert [check.name for check in result if check.status == 'PROBLEM'] == ([problem] if problem else [])
    told = next(check for check in result if check.name == (problem or 'stack'))
    assert found in told.found and fix in told.fix
    if problem is None:
        monkeypatch.setattr('importlib.util.find_spec', lambda name: name)
        assert next(check_stack([])).found.endswith(', compiled operators')
        assert {check.name for check in result} == {'stack', *installed}


def test_without_mmdet_there_is_a_note(versions):
    del versions['mmdet']
    note = statuses(check_stack([Requirement(text) for text in REQUIREMENTS]))['mmdet']
    assert note == ('note', 'not installed (only for table 5)', 'pip install "mmseg_alignzeg[mmdet]"')


def test_clip_weights_are_looked_for_and_never_fetched(monkeypatch):
    asked = []
    monkeypatch.setattr('mmseg_alignzeg.models.clip_source.try_to_load_from_cache', lambda *names: asked.append(names))
    check = checks.check_clip()
    assert check.status == 'note' and 'set model.clip.pretrained, or --clip-weights, to its path' in check.fix
    repository = 'timm/vit_base_patch16_clip_224.openai'
    assert asked == [(repository, 'open_clip_model.safetensors'), (repository, 'open_clip_pytorch_model.bin')]
    monkeypatch.setattr('mmseg_alignzeg.models.clip_source.try_to_load_from_cache', lambda *names: f'/cache/{names[1]}')
    assert checks.check_clip() == Check(
        'CLIP weights', 'ok', 'ViT-B-16-quickgelu/openai: /cache/open_clip_model.safetensors'
    )


def test_gpus(monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    monkeypatch.setattr('torch.cuda.device_count', lambda: 2)
    monkeypatch.setattr('torch.cuda.get_device_name', 'card {}'.format)
    monkeypatch.setattr('torch.version.cuda', '13.0')
    assert checks.check_gpu() == Check('gpu', 'ok', 'CUDA 13.0: card 0, card 1')
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    assert checks.check_gpu().status == 'note' and 'no GPU is visible' in checks.check_gpu().found
    monkeypatch.setattr('torch.version.cuda', None)
    assert 'pytorch.org' in checks.check_gpu().fix


def test_a_damaged_model_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setattr('alignzeg.apis.trained_models.ASSETS', tmp_path)
    check = checks.check_model()
    assert check.status == 'PROBLEM' and 'FileNotFoundError' in check.found and 'reinstall the package' in check.fix


def test_the_cache_and_the_disk(monkeypatch, tmp_path):
    cache = tmp_path / 'cache'
    monkeypatch.setenv('MMSEG_ALIGNZEG_CACHE', str(cache))
    assert checks.check_cache() == Check('text cache', 'ok', f'{cache}: 0 file(s), 0.0 MB')
    cache.mkdir()
    for name in ('text_a.safetensors', 'text_b.safetensors', 'other'):
        (cache / name).write_bytes(bytes(2**20))
    assert checks.check_cache().found == f'{cache}: 2 file(s), 2.0 MB'
    monkeypatch.setattr('os.access', lambda *args: False)
    assert checks.check_cache().status == 'note' and 'MMSEG_ALIGNZEG_CACHE' in checks.check_cache().fix
    monkeypatch.setattr('shutil.disk_usage', lambda folder: type('Usage', (), {'free': 2**30}))
    assert checks.check_disk().status == 'note' and f'1 GB free in {cache}' in checks.check_disk().found
