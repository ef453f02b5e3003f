"""What must not exhaust the page, over the wire."""

import os
import socket
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from pathlib import Path
from struct import pack

import pytest
from web_visitor import LIMIT_MB, Visitor, error_of, png

from alignzeg.web.looks import Looks


def large_png(side):
    """A valid white PNG of a few KB, with side² pixels of 1 bit."""

    def chunk(kind, data):
        return pack('>I', len(data)) + kind + data + pack('>I', zlib.crc32(kind + data))

    rows = (b'\0' + b'\xff' * ((side + 7) // 8)) * side
    header = pack('>IIBBBBB', side, side, 1, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')


@pytest.mark.attack('page: a picture of too many pixels')
@pytest.mark.parametrize('side', [7_100, 13_300, 40_000])
def test_large_pictures_are_refused_by_their_header(page, side, monkeypatch, record_property):
    monkeypatch.setattr('alignzeg.web.pictures.read_rgb', lambda source: pytest.fail('decoded'))
    content = large_png(side)
    path = page.visitor.upload(content, 'large.png').json()[0]
    assert 'too many' in error_of(page.visitor.segment({'path': path, 'orig_name': 'large.png'}))
    assert list(page.folder.iterdir()) == []
    record_property('tries', 1)


@pytest.mark.attack('page: too many words')
@pytest.mark.parametrize(
    ('words', 'unseen'),
    [('x' * 2_000_000, ''), ('x' * 300, ''), (','.join(map(str, range(1001))), ''), (' ' * 60_000, ''),
     ('a, b', 'a' * 300), (['a'] * 9, ''), ({'a': 1}, ''), (7, ''), ('a', ['b'])],
)  # fmt: skip
def test_long_words_are_refused(page, shown, words, unseen, monkeypatch):
    monkeypatch.setattr('mmseg_alignzeg.models.text_bank.embed_classes', lambda *a: pytest.fail('computed'))
    code, kind, data = page.visitor.segment(shown, words, unseen)
    if code == 200:
        assert len(error_of((code, kind, data))) < 1000 and 'Not done' in data[0]['error']
    else:
        assert code == 413 and len(data) < 200


@pytest.mark.attack('page: settings of other types')
def test_other_types_are_one_line(page, shown, record_property):
    odd = [None, [], {}, 'x', 10**30, -1, 1e308, True, [[[]]]]
    for value in odd:
        for position in range(4):
            settings = [False, True, 0.3, False]
            settings[position] = value
            code, kind, data = page.visitor.segment(shown, 'a, b', '', *settings)
            assert (code, kind) == (200, 'complete') and '\n' not in data[0].get('error', '')
    for value in (7, 'x', [], [shown], {'url': 7}, {'url': 'data:'}, {'url': ['data:']}, {'path': 7}, {'x': 1}):
        assert '\n' not in error_of(page.visitor.segment(value))
    record_property('tries', 4 * len(odd) + 9)


@pytest.mark.attack('page: uploads without end')
def test_one_client_cannot_fill_the_page(page, scene, record_property):
    other = Visitor(page.address, source='127.0.0.2')
    codes = [page.visitor.upload(os.urandom(LIMIT_MB * 2**20 - 1000)).status_code for _ in range(25)]
    assert codes.count(200) == 4 and set(codes) == {200, 429}
    assert sum(path.stat().st_size for path in page.folder.rglob('*.png')) < 4 * LIMIT_MB * 2**20
    assert other.upload(png(scene)).status_code == 200
    many = [Visitor(page.address, source=f'127.0.0.{i}').upload(os.urandom(LIMIT_MB * 2**19)) for i in range(3, 60)]
    assert {answer.status_code for answer in many} == {200, 429}
    assert sum(path.stat().st_size for path in page.folder.rglob('*.png')) <= 16 * LIMIT_MB * 2**20
    for path in list(page.folder.rglob('*.png')):  # free it again
        assert page.visitor.segment({'path': str(path)})[0] == 200
    assert list(page.folder.iterdir()) == []
    record_property('tries', 83)


@pytest.mark.attack('page: bodies without end')
def test_slow_bodies_hold_up_nobody(page, shown, monkeypatch, record_property):
    monkeypatch.setattr('alignzeg.web.limits.BODY_SECONDS', 1)
    monkeypatch.setattr('alignzeg.web.limits.BODY_RATE', 2**20)
    port = int(page.address.rstrip('/').rsplit(':', 1)[1])
    slow = []
    for path in ['gradio_api/upload', 'gradio_api/call/segment'] * 20:
        connection = socket.create_connection(('127.0.0.1', port), timeout=30)
        head = f'POST /{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LIMIT_MB * 2**20}\r\n'
        connection.sendall(f'{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n'.encode())
        slow.append(connection)
    other = Visitor(page.address, source='127.0.0.2')
    assert other.segment(shown)[:2] == (200, 'complete')
    codes = [answer_of(connection)[0] for connection in slow]
    assert set(codes) <= {408, 429} and codes.count(429) >= 30 and 408 in codes
    assert page.visitor.segment(shown)[:2] == (200, 'complete')  # what they held is free again
    record_property('tries', len(slow))


@pytest.mark.attack('page: bodies without end')
def test_bodies_of_unknown_or_huge_size(page, record_property):
    for path in ('upload', 'queue/join', 'call/segment', 'cancel', 'reset'):
        for headers in ({'Content-Length': str(2**40)}, {'Transfer-Encoding': 'chunked'}):
            status, text = raw(page, f'POST /gradio_api/{path} HTTP/1.1', headers)
            assert status == 413 and b'too large' in text
    assert raw(page, 'POST /login HTTP/1.1', {'Content-Length': str(2**20)})[0] == 413
    both = {'Content-Length': '5', 'Transfer-Encoding': 'chunked', 'Content-Type': 'application/json'}
    assert raw(page, 'POST /gradio_api/call/segment HTTP/1.1', both, b'400\r\n' + b' ' * 1024)[0] in (400, 413)
    text = b'{"data":[' + b'[],' * 300_000 + b'0]}'  # small, but 300,000 objects in memory
    many = page.visitor.http.post('gradio_api/call/segment', content=text, headers={'Content-Type': 'application/json'})
    assert many.status_code == 413 and len(many.text) < 200
    record_property('tries', 13)


def raw(page, request, headers, body=b''):
    port = int(page.address.rstrip('/').rsplit(':', 1)[1])
    connection = socket.create_connection(('127.0.0.1', port), timeout=30)
    lines = [request, 'Host: localhost', *(f'{name}: {value}' for name, value in headers.items())]
    connection.sendall('\r\n'.join([*lines, '', '']).encode() + body)
    return answer_of(connection)


def answer_of(connection):
    """Status and text of the answer on a connection, which is closed then."""
    with connection, HTTPResponse(connection) as answer:
        answer.begin()
        return answer.status, answer.read()


@pytest.mark.attack('page: silent connections')
def test_connections_that_say_nothing_are_closed(page, monkeypatch, record_property):
    monkeypatch.setattr('alignzeg.web.connections.HEAD_SECONDS', 0.5)
    monkeypatch.setattr('alignzeg.web.connections.OF_ONE_CLIENT', 20)
    port = int(page.address.rstrip('/').rsplit(':', 1)[1])
    silent = [socket.create_connection(('127.0.0.1', port), timeout=30) for _ in range(30)]
    for connection in silent[::2]:
        try:
            connection.sendall(b'GET / HTTP/1.1\r\nHost: loc')
        except OSError:
            pass  # closed already
    assert Visitor(page.address, source='127.0.0.2').http.get('config').status_code == 200
    for connection in silent:
        try:
            assert connection.recv(10) == b''
        except ConnectionResetError:
            pass
        connection.close()
    assert Visitor(page.address).http.get('robots.txt').status_code == 200
    record_property('tries', len(silent))


@pytest.mark.attack('page: answers that nobody fetches')
def test_unread_answers_are_limited(page, shown, record_property):
    visitor, other = (Visitor(page.address, source=f'127.0.1.{i}') for i in (1, 2))
    codes = []
    for _ in range(14):
        answer = visitor.join('segment', shown, 'a, b', '', False, True, 0.3, False, '', 0)
        codes.append(answer.status_code)
        if answer.status_code == 429:
            assert '\n' not in answer.json()['detail']
        time.sleep(0.2)
    assert codes.count(200) <= 8 and set(codes) == {200, 429}
    assert other.segment(shown)[:2] == (200, 'complete')
    long = visitor.http.post('gradio_api/queue/join', json={'data': [], 'fn_index': 0, 'session_hash': 'x' * 65})
    assert long.status_code == 400
    record_property('tries', 15)


@pytest.mark.slow
@pytest.mark.attack('page: 100 requests side by side')
def test_100_requests_side_by_side(page, shown, record_property):
    visitors = [Visitor(page.address, source=f'127.0.2.{i % 10 + 1}') for i in range(100)]
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda visitor: visitor.segment(shown), visitors))
    done = [answer for answer in answers if answer[0] == 200]
    assert {code for code, *_ in answers} <= {200, 429} and len(done) >= 8
    shares = page.visitor.segment(shown)[2][0]['shares']
    assert all(kind == 'complete' and data[0]['shares'] == shares for _, kind, data in done)
    refusals = [text for code, _, text in answers if code == 429]
    assert all(len(text) < 200 and ('wait' in text or 'try again' in text) for text in refusals)
    record_property('tries', 100)


@pytest.mark.slow
@pytest.mark.attack('page: memory over 250 requests')
def test_memory_stays_flat(serve_page, scene, monkeypatch, record_property):
    def resident():
        return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20

    sizes = []
    monkeypatch.setattr('alignzeg.web.answers.Looks', lambda: Looks(2**22, 2**22))  # full within the warm-up
    with serve_page() as page:
        for number in range(250):
            path = page.visitor.upload(png(scene)).json()[0]
            code, kind, data = page.visitor.segment({'path': path}, f'blue checks, word {number}')
            assert (code, kind) == (200, 'complete') and data[0]['overlay']
            sizes.append(resident())
        assert list(page.folder.iterdir()) == []
    slope = (sum(sizes[-25:]) - sum(sizes[50:75])) / 25 / 187.5  # MB per request, after a warm-up
    assert slope < 0.1, sizes[::25]
    record_property('tries', 250)
