"""Names of pictures that are too long for what is written of them, or that a file system refuses."""

import errno
import json
import os

import numpy as np
import pytest
from PIL import Image

from alignzeg.cli import main
from alignzeg.cli.result_files import SUFFIXES, output_names

LONGEST = 255  # bytes of a name, on ext4, XFS, APFS and NTFS alike


def long_names():
    """Names at the limit, alike up to the very end, and of more bytes than letters."""
    names = ['x' * (LONGEST - 4 - i) for i in range(17)]
    names += [f'{"y" * 230}{i}' for i in range(3)] + ['é' * 120, f'{"é" * 119}è', '猫' * 80, f'{"z" * 240}_2']
    return [f'{name}.png' for name in names]


@pytest.mark.attack('names: 200 bytes and more')
def test_pictures_with_long_names_are_done_like_others(tmp_path, capsys, record_property):
    photos, out = tmp_path / 'photos', tmp_path / 'out'
    photos.mkdir()
    for i, name in enumerate(long_names()):
        Image.new('RGB', (32 + i, 32), (200, 50, 45)).save(photos / name, 'PNG')
    (photos / 'short.png').write_bytes((photos / long_names()[0]).read_bytes())
    arguments = ['predict', str(photos), '--out', str(out), '--classes', 'red', '--json', '--format', 'png,proposals']
    assert main(arguments) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(records) == len(long_names()) + 1
    for record in records:  # each has the labels of its own picture, which differ in width
        with Image.open(record['image']) as image, Image.open(record['files']['png']) as labels:
            assert image.size == labels.size
        assert np.load(record['files']['proposals'])['masks'].shape[1:] == image.size[::-1]
    assert len({file for record in records for file in record['files'].values()}) == 2 * len(records)
    assert main([*arguments, '--skip-done']) == 0 and not capsys.readouterr().out
    record_property('tries', len(records))


def test_long_names_are_cut_and_differ():
    paths = [f'/p/{folder}/{name}' for folder in ('a', 'b' * 250) for name in long_names()]
    names = output_names(paths)
    assert len(set(names)) == len(paths) and names == output_names(paths)
    room = LONGEST - max(map(len, SUFFIXES.values())) - len('.4194304.01234567.part')
    assert max(len(os.fsencode(name)) for name in names) <= room
    assert output_names(['/p/short.png', f'/p/{"x" * 200}.png']) == ['short', 'x' * 200]
    composed, split = output_names(['/p/caf\u00e9.png', '/q/cafe\u0301.png'])
    assert composed != split  # macOS takes both for one


@pytest.mark.attack('names: refused by the file system')
@pytest.mark.parametrize(('code', 'done'), [(errno.ENAMETOOLONG, 2), (errno.ENOSPC, 1)])
def test_a_name_that_cannot_be_written_costs_one_line(tmp_path, capsys, monkeypatch, code, done):
    """The others are done, unless they too would meet what went wrong."""
    for name in 'abc':
        Image.new('RGB', (32, 32), (200, 50, 45)).save(tmp_path / f'{name}.png')
    real = os.replace

    def replace(source, target):
        if os.path.basename(target).startswith('b_'):
            raise OSError(code, os.strerror(code), str(target))
        real(source, target)

    monkeypatch.setattr(os, 'replace', replace)
    out = tmp_path / 'out'
    assert main(['predict', str(tmp_path), '--out', str(out), '--classes', 'red', '--json']) == 1
    told = capsys.readouterr()
    records = [json.loads(line) for line in told.out.splitlines()]
    assert sum('files' in record for record in records) == done
    assert [record['image'] for record in records if 'error' in record] == [str(tmp_path / 'b.png')] * (
        code == errno.ENAMETOOLONG
    )
    assert sum(os.strerror(code) in line for line in told.err.splitlines()) == 1
    assert sorted(file.name for file in out.glob('*.png*')) == [f'{name}_overlay.png' for name in 'ac'[:done]]
