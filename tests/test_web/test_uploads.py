"""Files of uploads, without a server."""

import os
import stat

import pytest

from alignzeg.web.limits import LimitError
from alignzeg.web.uploads import CLIENT_FILES, TOTAL_FILES, UNCLAIMED, Uploads, clean_name


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def uploads(tmp_path):
    return Uploads(tmp_path / 'uploads', 1000, Clock())


def test_a_file_is_read_once(uploads):
    first, second = uploads.put('a', '../x.png', b'one'), uploads.put('a', 'x.png', b'one')
    assert first != second and os.path.basename(first) == 'x.png'
    assert stat.S_IMODE(os.stat(first).st_mode) == 0o600 and stat.S_IMODE(uploads.folder.stat().st_mode) == 0o700
    assert uploads.take(first) == b'one' and os.path.exists(second)
    with pytest.raises(ValueError, match='no longer exists'):
        uploads.take(first)
    assert uploads.take(second) == b'one' and list(uploads.folder.iterdir()) == [] and uploads.files == {}


@pytest.mark.parametrize(
    ('name', 'clean'),
    [
        ('a b (1).png', 'a b (1).png'),
        ('/etc/passwd', 'passwd'),
        ('..\\..\\x.png', 'x.png'),
        ('..', 'picture'),
        ('', 'picture'),
        (None, 'picture'),
        (7, 'picture'),
        ('a\x1b[31m\n<b>.png', 'a__31m__b_.png'),
        ('猫.png', '猫.png'),
        ('x' * 300 + '.png', 'x' * 96 + '.png'),
        ('.hidden', 'hidden'),
        ('a\0b', 'a_b'),
    ],
)
def test_names(name, clean, uploads):
    assert clean_name(name) == clean
    assert uploads.take(uploads.put('a', name, b'x')) == b'x'


def swap_for_link(path, other):
    os.unlink(path)
    os.symlink(other, path)


def swap_for_fifo(path, other):
    os.unlink(path)
    os.mkfifo(path)


def swap_for_more(path, other):
    with open(path, 'ab') as file:
        file.write(b'more')


@pytest.mark.attack('page: a file of the machine')
@pytest.mark.parametrize('swap', [swap_for_link, swap_for_fifo, swap_for_more])
def test_what_was_put_in_place_of_an_upload(uploads, tmp_path, swap):
    other = tmp_path / 'other.png'
    other.write_bytes(b'one')
    path = uploads.put('a', 'x.png', b'one')
    swap(path, other)
    with pytest.raises(ValueError, match='upload it again'):
        uploads.take(path)
    assert other.read_bytes() == b'one' and list(uploads.folder.iterdir()) == []


def test_shares_of_clients(uploads):
    with pytest.raises(LimitError) as error:
        uploads.put('a', 'x', bytes(1001))
    assert error.value.status == 413
    paths = [uploads.put('a', 'x', bytes(1000)) for _ in range(4)]
    with pytest.raises(LimitError, match='too many of your pictures') as error:
        uploads.put('a', 'x', b'1')
    assert error.value.status == 429
    uploads.take(paths[0])
    uploads.put('a', 'x', b'1')
    for client in 'bcd':
        for _ in range(4):
            uploads.put(client, 'x', bytes(1000))
    with pytest.raises(LimitError, match='this page holds too many'):
        uploads.put('e', 'x', bytes(1000))
    uploads.sweep()
    assert len(uploads.files) == 16
    uploads.clock.now += UNCLAIMED + 1
    uploads.sweep()
    assert uploads.files == {} and list(uploads.folder.iterdir()) == []


def test_numbers_of_files(uploads):
    for i in range(TOTAL_FILES):
        uploads.put(str(i // CLIENT_FILES), 'x', b'')
    for client in ('0', 'new'):
        with pytest.raises(LimitError) as error:
            uploads.put(client, 'x', b'')
        assert error.value.status == 429


def test_a_system_with_other_flags(uploads, monkeypatch):
    for name in ('O_NOFOLLOW', 'O_NONBLOCK'):
        monkeypatch.delattr(os, name, raising=False)  # as on Windows
    content = bytes(range(256))
    assert uploads.take(uploads.put('a', 'x', content)) == content
    opened = []
    monkeypatch.setattr(os, 'O_BINARY', 2**30, raising=False)
    monkeypatch.setattr(os, 'open', lambda path, flags, *mode: opened.append(flags) or (_ for _ in ()).throw(OSError))
    with pytest.raises(LimitError):
        uploads.put('a', 'x', content)
    assert opened[0] & os.O_BINARY


@pytest.mark.parametrize('error', [AttributeError, MemoryError, KeyboardInterrupt])
def test_whatever_goes_wrong_leaves_nothing(uploads, monkeypatch, error):
    monkeypatch.setattr('alignzeg.web.uploads.os.open', lambda *a: (_ for _ in ()).throw(error))
    with pytest.raises(error):
        uploads.put('a', 'x', b'1')
    assert uploads.files == {} and list(uploads.folder.iterdir()) == []


def test_a_full_disk(uploads, monkeypatch):
    monkeypatch.setattr('alignzeg.web.uploads.os.open', lambda *a: (_ for _ in ()).throw(OSError(28, 'No space')))
    with pytest.raises(LimitError, match='No space') as error:
        uploads.put('a', 'x', b'1')
    assert error.value.status == 507 and uploads.files == {} and list(uploads.folder.iterdir()) == []
