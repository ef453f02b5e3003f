"""Limits as numbers, without a server."""

import base64
import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from web_visitor import data_url, png

from alignzeg.web import segment
from alignzeg.web.limits import (
    LEAST_PIXELS,
    MOST_PIXELS,
    Budget,
    LimitError,
    Tries,
    available_memory,
    body_seconds,
    client_of,
    most_pixels,
    time_limit,
)
from alignzeg.web.pictures import Picture, decode, labels_url, png_url
from alignzeg.web.segment import LONGEST_TEXT, LONGEST_WORD, MOST_WORDS, split
from alignzeg.web.uploads import Uploads


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ('address', 'client'),
    [
        ('127.0.0.2', '127.0.0.2'),
        ('::ffff:192.0.2.7', '192.0.2.7'),
        ('2001:db8:1:2:3::4', '2001:db8:1:2::/64'),
        ('2001:db8:1:2:ffff::', '2001:db8:1:2::/64'),
        (None, 'unknown'),
        ('socket', 'socket'),
    ],
)
def test_clients(address, client):
    assert client_of(address) == client


def write(root, **files):
    for name, text in files.items():
        path = root / name.replace('__', '/')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_memory_of_the_machine_or_of_its_container(tmp_path):
    assert available_memory(tmp_path) is None and most_pixels(None) == MOST_PIXELS
    write(tmp_path, proc__meminfo='MemTotal: 9 kB\nMemAvailable:    3000000 kB\n')
    assert available_memory(tmp_path) == 3_000_000 * 1024
    write(tmp_path / 'sys/fs/cgroup', **{'memory.max': 'max\n', 'memory.current': '5'})
    assert available_memory(tmp_path) == 3_000_000 * 1024
    write(tmp_path / 'sys/fs/cgroup', **{'memory.max': '1000000000\n', 'memory.current': '900000000\n'})
    assert available_memory(tmp_path) == 100_000_000
    write(tmp_path / 'sys/fs/cgroup', **{'memory.current': '1000000001\n'})
    assert available_memory(tmp_path) == 0
    assert available_memory() is None or available_memory() > 0


@pytest.mark.parametrize(
    ('folder', 'limit', 'used', 'cache'),
    [
        ('sys/fs/cgroup', 'memory.max', 'memory.current', 'inactive_file'),
        ('sys/fs/cgroup/memory', 'memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file'),
    ],
)
def test_page_cache_of_a_container_is_available(tmp_path, folder, limit, used, cache):
    write(tmp_path, proc__meminfo='MemAvailable:    3000000 kB\n')
    write(tmp_path / folder, **{limit: '1000000000\n', used: '999999999\n'})
    assert available_memory(tmp_path) == 1  # no statistics: nothing is assumed
    write(tmp_path / folder, **{'memory.stat': f'anon 1\n{cache} 600000000\nactive_file 300000000\n'})
    assert available_memory(tmp_path) == 600_000_001
    write(tmp_path / folder, **{used: '5\n'})  # the two files are not of one moment
    assert available_memory(tmp_path) == 1_000_000_000
    for text in ('', 'anon 1\n', f'{cache}\n', f'{cache} x\n', f'{cache} 1 2\n'):
        write(tmp_path / folder, **{used: '400000000\n', 'memory.stat': text})
        assert available_memory(tmp_path) == 600_000_000


def test_pixels_by_memory():
    assert most_pixels(0) == most_pixels(LEAST_PIXELS * 256) == LEAST_PIXELS == 4_000_000
    assert most_pixels(2**31) == 2**31 // 256
    assert most_pixels(2**40) == MOST_PIXELS
    assert body_seconds(0) == 20 and body_seconds(20 * 2**20) == pytest.approx(439, abs=1)


def test_a_budget_is_shared():
    budget = Budget(10, 25)
    with budget.hold('a', 6), budget.hold('a', 4), budget.hold('b', 10), budget.hold('c', 5):
        for client, size in (('a', 1), ('b', 1), ('c', 1), ('d', 1)):
            with pytest.raises(LimitError) as error, budget.hold(client, size):
                pass
            assert error.value.status == 429
        assert budget.held == {'a': 10, 'b': 10, 'c': 5}
    assert budget.held == {}
    with pytest.raises(LimitError), budget.hold('a', 11):
        pass
    with pytest.raises(KeyError), budget.hold('a', 5):
        raise KeyError
    assert budget.held == {}


def test_tries_within_a_window():
    clock = Clock()
    tries = Tries(3, 60, clock)
    for _ in range(3):
        tries.take('a')
    with pytest.raises(LimitError, match='wait 1 minutes'):
        tries.take('a')
    tries.take('b')
    tries.forget('a')
    tries.take('a')
    clock.now += 61
    for _ in range(3):
        tries.take('c')
    assert set(tries.times) == {'c'}  # what is over is not kept
    clock.now += 30
    with pytest.raises(LimitError):
        tries.take('c')


def test_time_is_limited_from_within_the_model():
    clock = Clock()
    layer = torch.nn.Linear(1, 1)
    with time_limit(5, clock):
        layer(torch.zeros(1))
        clock.now += 6
        with pytest.raises(LimitError, match='longer than 5 s'):
            layer(torch.zeros(1))
    layer(torch.zeros(1))


def test_a_request_that_takes_too_long_ends(inferencer, scene, monkeypatch):
    monkeypatch.setattr(sys.modules['alignzeg.web.segment'], 'REQUEST_SECONDS', -1)
    with pytest.raises(LimitError, match='fewer words'):
        segment(inferencer, scene, 'never, asked, before')
    monkeypatch.undo()
    assert segment(inferencer, scene).shares


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('a' * (LONGEST_TEXT + 1), '50,001 characters'),
        (',' * (LONGEST_TEXT + 1), '50,001 characters'),
        ('sky, ' + 'a' * (LONGEST_WORD + 1), "'aaaaaaaaaaaaaaaaaaaa'… has 201 characters"),
        ('a,' * (MOST_WORDS + 1), '1,001 words'),
    ],
)
def test_text(text, message):
    with pytest.raises(LimitError, match=message) as error:
        split(text)
    assert len(str(error.value)) < 200 and error.value.status == 413
    assert split('a' * LONGEST_WORD + ',b' * (MOST_WORDS - 1))[:2] == ['a' * LONGEST_WORD, 'b']


def test_pixels_are_counted_before_anything_is_decoded(monkeypatch):
    buffer = io.BytesIO()
    Image.new('1', (3000, 2000)).save(buffer, 'PNG')
    picture = Picture(buffer.getvalue(), 'large.png')
    monkeypatch.setattr('PIL.ImageFile.ImageFile.load', lambda self: pytest.fail('decoded'))
    assert picture.kind(3000 * 2000 * 256) == 'PNG'
    with pytest.raises(LimitError, match='3,000 × 2,000 pixels') as error:
        picture.kind(3000 * 2000 * 256 - 256)
    assert error.value.status == 413


def test_pictures_are_read_from_memory(scene, monkeypatch):
    monkeypatch.setattr('tempfile.NamedTemporaryFile', lambda *a, **k: pytest.fail('a file that Windows cannot share'))
    monkeypatch.setattr('os.path.getsize', lambda path: pytest.fail('there is no file'))
    assert (Picture(png(scene), 'no/such/scene.png').pixels() == scene).all()
    with pytest.raises(ValueError, match=r'^cut\.png cannot be read: '):
        Picture(png(scene)[:-600], 'cut.png').pixels()


def test_data_urls(scene, tmp_path):
    uploads = Uploads(tmp_path / 'uploads', 1000)
    assert decode(data_url(bytes(1000)), uploads) == bytes(1000)
    with pytest.raises(LimitError, match='1,001 bytes'):
        decode(data_url(bytes(1001)), uploads)
    for url in ('data:image/png;base64,A', 'data:,abc', 'data:image/png;base64,\u00e9\u00e9==', 'data:'):
        with pytest.raises(ValueError, match='was not received completely'):
            decode(url, uploads)


def test_answers_have_a_largest_size():
    pixels = torch.randint(256, (300, 400, 3), dtype=torch.uint8).numpy()  # noise, which no format makes smaller
    url, note = png_url(pixels)
    assert note == '' and len(url) > 400_000
    url, note = png_url(pixels, 100_000)
    assert 100_000 < len(url) < 134_000 and note.startswith('shown at ')
    assert labels_url(pixels[..., 0], 100_000) == '' and labels_url(pixels[..., 0]).startswith('data:image/png')


def test_label_maps_keep_labels_above_255():
    labels = torch.arange(600, dtype=torch.int32).view(20, 30).numpy().astype('uint16')
    content = base64.b64decode(labels_url(labels).removeprefix('data:image/png;base64,'))
    assert (np.asarray(Image.open(io.BytesIO(content))) == labels).all()
