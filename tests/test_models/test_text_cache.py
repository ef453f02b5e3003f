"""Whatever happens to the cache of text embeddings, they are right, and nothing ends."""

import errno
import os
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from alignzeg.cli import checks
from mmseg_alignzeg.models import CLIPSource, TextBank, text_bank

NAMES = ('red stripes', 'blue dots', 'green')
SOURCE = CLIPSource('tiny_clip', 'embedded')


def bank(folder):
    return TextBank(SOURCE, 'single', cache_dir=str(folder))


@pytest.fixture(scope='module')
def right(tmp_path_factory):
    """The embeddings, (3, 1, D)."""
    return bank(tmp_path_factory.mktemp('right'))(NAMES)


def change(path, edit):
    content = load_file(path)
    kept = {**content, 'text_embeds': content['text_embeds'].clone()}
    save_file({name: value.contiguous() for name, value in (edit(kept) or kept).items()}, path)


def numbers(edit):
    """Replace the embeddings, in a file that is well-formed otherwise."""
    return lambda path: change(path, lambda content: {**content, 'text_embeds': edit(content['text_embeds'])})


def flip_bit(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1  # of the last number, the smallest change there is
    path.write_bytes(data)


def replaced(path, make):
    path.unlink()
    make(path)


def other_vocabulary(path):
    other = bank(path.parent)
    other(NAMES[::-1])
    os.replace(other.path(NAMES[::-1]), path)


def sparse(path):
    with path.open('r+b') as file:
        file.truncate(3 * 2**30)


def with_value(value):
    def edit(embeds):
        embeds[1, 2] = value
        return embeds

    return numbers(edit)


DAMAGES = {
    'empty': lambda path: path.write_bytes(b''),
    'torn': lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    'a byte short': lambda path: path.write_bytes(path.read_bytes()[:-1]),
    'a byte long': lambda path: path.write_bytes(path.read_bytes() + b'\0'),
    'text': lambda path: path.write_text('torn'),
    'a pickle': lambda path: path.write_bytes(pickle.dumps({'text_embeds': [0.0]})),
    'an endless header': lambda path: path.write_bytes(struct.pack('<Q', 2**63) + path.read_bytes()[8:]),
    'a header of zeros': lambda path: path.write_bytes(path.read_bytes()[:8] + bytes(path.stat().st_size - 8)),
    'a sparse 3 GB': sparse,
    'another key': lambda path: change(path, lambda content: {'embeds': content['text_embeds']}),
    'no digest': lambda path: change(path, lambda content: {'text_embeds': content['text_embeds']}),
    'a digest of float': lambda path: change(path, lambda content: {**content, 'sha256': torch.zeros(3)}),
    'float16': numbers(lambda embeds: embeds.half()),
    'bfloat16': numbers(lambda embeds: embeds.bfloat16()),
    'float64': numbers(lambda embeds: embeds.double()),
    'integers': numbers(lambda embeds: (embeds * 100).int()),
    'a row more': numbers(lambda embeds: torch.cat([embeds, embeds[:1]])),
    'a row less': numbers(lambda embeds: embeds[:-1].clone()),
    'narrower': numbers(lambda embeds: embeds[:, :-1].contiguous()),
    'transposed': numbers(lambda embeds: embeds.t().contiguous()),
    'one dimension more': numbers(lambda embeds: embeds[None]),
    'no row': numbers(lambda embeds: embeds[:0].clone()),
    'NaN': with_value(float('nan')),
    'infinity': with_value(float('inf')),
    'zeros': numbers(torch.zeros_like),
    'doubled': numbers(lambda embeds: 2 * embeds),
    'rows exchanged': numbers(lambda embeds: embeds.flip(0)),
    'a flipped bit': flip_bit,
    'the file of other words': other_vocabulary,
    'a link to nothing': lambda path: replaced(path, lambda path: path.symlink_to(path.with_name('gone'))),
    'a link to itself': lambda path: replaced(path, lambda path: path.symlink_to(path)),
    'a FIFO': lambda path: replaced(path, os.mkfifo),
}


@pytest.mark.attack('cache: damaged files')
@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_file_is_computed_and_written_again(right, tmp_path, monkeypatch, damage):
    first = bank(tmp_path)
    first(NAMES)
    path = first.path(NAMES)
    whole = path.read_bytes()
    DAMAGES[damage](path)
    assert path.is_symlink() or not path.is_file() or path.read_bytes()[: len(whole) + 1] != whole
    assert torch.equal(bank(tmp_path)(NAMES), right)
    assert path.read_bytes() == whole and not list(tmp_path.glob('*.part'))
    monkeypatch.setattr(CLIPSource, 'load_full', lambda self: pytest.fail('computed again'))
    assert torch.equal(bank(tmp_path)(NAMES), right)


def in_the_way(path, monkeypatch):
    path.write_text('a file where the folder should be')
    return path / 'cache'


def too_long(path, monkeypatch):
    return path / ('x' * 300)


def closed(path, monkeypatch):
    """A folder that cannot be entered; tests may run as root, whom no permission stops."""

    def refuse(real):
        def call(name, *args, **kwargs):
            if isinstance(name, (str, os.PathLike)) and str(name).startswith(str(path)):
                raise PermissionError(errno.EACCES, 'Permission denied', str(name))
            return real(name, *args, **kwargs)

        return call

    for name in ('stat', 'mkdir', 'open', 'replace'):
        monkeypatch.setattr(os, name, refuse(getattr(os, name)))
    return path / 'cache'


def full(path, monkeypatch):
    """Writing fails in the midst of a file, as on a full disk."""
    write = Path.write_bytes

    def fail(file, content):
        if not file.is_relative_to(path):
            return write(file, content)
        write(file, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, 'No space left on device', str(file))

    monkeypatch.setattr(Path, 'write_bytes', fail)
    return path


@pytest.mark.attack('cache: a folder that cannot be used')
@pytest.mark.parametrize('trouble', [in_the_way, too_long, closed, full])
def test_a_folder_that_cannot_be_used_costs_one_warning(right, tmp_path, monkeypatch, trouble):
    names = (*NAMES, *(f'word {i}' for i in range(100)))  # 25 kB
    expected = TextBank(SOURCE, 'single', cache_dir=str(tmp_path / 'well'))(names)
    warnings = []
    monkeypatch.setattr(text_bank, 'print_log', lambda text, logger, *level: warnings.extend([text] if level else []))
    folder = tmp_path / 'trouble'
    folder.touch() if trouble is in_the_way else folder.mkdir()
    cache = trouble(folder, monkeypatch)
    found = [bank(cache)(names), bank(cache)(names), bank(cache)(names[::-1])]
    monkeypatch.setenv('MMSEG_ALIGNZEG_CACHE', str(cache))
    assert checks.check_cache().name == 'text cache' and checks.check_disk().name == 'disk'
    assert len(warnings) == 1 and str(cache) in warnings[0] and 'MMSEG_ALIGNZEG_CACHE' in warnings[0]
    assert torch.equal(found[0], expected) and torch.equal(found[1], expected)
    assert found[2] == pytest.approx(expected.flip(0), abs=1e-5)
    assert not list(Path(tmp_path / 'well').glob('*.part'))


@pytest.mark.attack('cache: a folder that cannot be used')
def test_a_file_that_stays_in_the_way_is_no_obstacle(right, tmp_path):
    """A folder under the name of the file can be neither read nor replaced."""
    bank(tmp_path).path(NAMES).mkdir()
    assert torch.equal(bank(tmp_path)(NAMES), right)


@pytest.mark.attack('cache: damaged CLIP weights')
def test_embeddings_that_are_not_numbers_are_never_kept(tmp_path):
    weights = load_file(SOURCE.weights)
    weights['text_projection'] = torch.full_like(weights['text_projection'], float('nan'))
    save_file(weights, tmp_path / 'clip.safetensors')
    source = CLIPSource('tiny_clip', str(tmp_path / 'clip.safetensors'))
    with pytest.raises(ValueError, match=r'clip\.safetensors: its text embeddings are not finite'):
        TextBank(source, 'single', cache_dir=str(tmp_path / 'cache'))(NAMES)
    assert not (tmp_path / 'cache').exists()
