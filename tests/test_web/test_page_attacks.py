"""What must not succeed against the page, over the wire."""

import os
import socket
import time
from pathlib import Path

import pytest
from web_visitor import SETTINGS, WORDS, Visitor, error_of, png

PAYLOADS = [
    '<img src=x onerror=alert(1)>',
    '"><script>alert(1)</script>',
    "'-alert(1)-'",
    '${alert(1)}',
    '{{constructor.constructor("alert(1)")()}}',
    '[x](javascript:alert(1))',
    '<svg/onload=alert(1)>',
]
FILE_ROUTES = [
    *(
        f'gradio_api/{route}{path}'
        for route in ('file=', 'file/', 'proxy=', 'stream/')
        for path in ('/etc/hostname', 'etc/hostname', '../../etc/hostname', 'http://127.0.0.1:1/x', 'file:///x')
    ),
    *(f'{route}/{path}' for route in ('static', 'assets', 'svelte') for path in ('../../../etc/passwd', '%2e%2e/x')),
    'gradio_api/deep_link?session_hash=a',
    '?deep_link=../../../etc',
    'gradio_api/custom_component/x/client/component/style.css',
    'gradio_api/openapi.json',
    'gradio_api/runs',
    'gradio_api/run-history/buckets',
    'gradio_api/token',
    'gradio_api/dev/reload',
    'gradio_api/upload_progress?upload_id=a',
    'gradio_api/vibe-code',
    'monitoring',
]  # fmt: skip


@pytest.mark.attack('page: a file of the machine')
def test_no_file_but_uploads_is_read_or_deleted(page, scene, tmp_path, record_property):
    private = tmp_path / 'private.png'
    private.write_bytes(png(scene))
    os.mkfifo(tmp_path / 'fifo')
    with (tmp_path / 'sparse').open('wb') as file:
        file.truncate(3 * 2**30)
    inside = page.folder / ('0' * 64)
    inside.mkdir()
    (inside / 'placed.png').write_bytes(png(scene))
    (inside / 'link.png').symlink_to(private)
    (page.folder / 'link').symlink_to(tmp_path)
    uploaded = Path(page.visitor.upload(png(scene)).json()[0])
    paths = [
        str(private), str(tmp_path / 'fifo'), str(tmp_path / 'sparse'), str(tmp_path), '/dev/zero', '/proc/self/maps',
        str(inside / 'placed.png'), str(inside / 'link.png'), str(inside), str(page.folder / 'link/private.png'),
        f'{page.folder}/../{page.folder.name}/{uploaded.relative_to(page.folder)}', f'{uploaded}/', f'file://{private}',
        'http://127.0.0.1:1/x.png', '', '.', 'a\0b', 7, ['x'], {'path': str(private)},
    ]  # fmt: skip
    begin = time.monotonic()
    tries = 0
    for path in paths:
        for more in ({}, {'orig_name': 'x.png', 'url': f'file={path}'}, {'meta': {'_type': 'gradio.FileData'}}):
            error_of(page.visitor.segment({'path': path, **more}))
            tries += 1
    assert time.monotonic() - begin < 60  # none blocked
    assert private.is_file() and (tmp_path / 'sparse').is_file() and (tmp_path / 'fifo').exists()
    assert (inside / 'placed.png').is_file() and (inside / 'link.png').is_symlink() and uploaded.is_file()
    for path in inside.iterdir():
        path.unlink()
    (page.folder / 'link').unlink()
    inside.rmdir()
    value = {'path': str(uploaded), 'orig_name': 'scene.png', 'meta': {'_type': 'gradio.FileData'}}
    assert page.visitor.segment(value)[2][0]['overlay'].startswith('data:image/png')  # once, and by its own path
    assert 'no longer exists' in page.visitor.segment(value)[2]['error']
    assert 'no longer exists' in error_of(page.visitor.segment({'path': str(uploaded)}))
    assert list(page.folder.iterdir()) == []
    record_property('tries', tries + 1)


@pytest.mark.attack('page: a file of the machine')
def test_no_other_route_takes_a_path(page, tmp_path, scene, record_property):
    private = tmp_path / 'private.png'
    private.write_bytes(png(scene))
    value = {'path': str(private), 'orig_name': 'x.png'}
    function = next(fn for fn in page.visitor.http.get('config').json()['dependencies'] if fn['api_name'] == 'segment')
    body = {'data': [value, *SETTINGS, '', 0], 'fn_index': function['id'], 'session_hash': 'abc'}
    routes = ['run/segment', 'api/segment', 'run/predict', 'stream/abc', 'stream/abc/close', 'component_server']
    routes += [
        'process_recording',
        'vibe-edit',
        'vibe-code',
        'undo-vibe-edit',
        'run-history/connect',
        'profiling/clear',
    ]
    for route in routes:
        for suffix in ('', '/'):
            assert page.visitor.http.post(f'gradio_api/{route}{suffix}', json=body).status_code == 404
    named = {
        'picture': value,
        'words': WORDS,
        'unseen': '',
        'others': True,
        'pbc': True,
        'gamma': 0.3,
        'windows': False,
    }
    for route, sent in (('call/v2/segment', named), ('queue/join', body)):
        answer = page.visitor.http.post(f'gradio_api/{route}', json=sent)
        if answer.status_code == 200 and route == 'queue/join':
            with page.visitor.http.stream('GET', 'gradio_api/queue/data', params={'session_hash': 'abc'}) as stream:
                text = ''.join(stream.iter_text())
            assert 'was not uploaded to this page' in text and 'base64' not in text
        else:
            assert answer.status_code == 404
    assert private.is_file()
    record_property('tries', 2 * len(routes) + 2)


@pytest.mark.attack('page: file routes')
def test_file_routes_are_closed(page, record_property):
    assert len(FILE_ROUTES) == 37
    for route in FILE_ROUTES:
        connection = socket.create_connection(('127.0.0.1', int(page.address.rstrip('/').rsplit(':', 1)[1])))
        with connection, connection.makefile('rb') as answer:  # a client would tidy up the path
            connection.sendall(f'GET /{route} HTTP/1.0\r\nHost: localhost\r\n\r\n'.encode())
            head, _, body = answer.read().partition(b'\r\n\r\n')
        if route.startswith('?'):
            assert b'"deep_link_state":"invalid"' in body
        else:
            assert int(head.split()[1]) in (403, 404), route
    record_property('tries', len(FILE_ROUTES))


@pytest.mark.attack('page: DNS rebinding')
@pytest.mark.parametrize(
    'host',
    ['evil.example', 'evil.example:7860', 'localhost.evil.example', '127.0.0.1.evil.example', 'localhost@evil.example',
     '0.0.0.0', '192.168.0.7:80', '[::2]', '[::1', 'localhost:x', 'localhost/x', ' ', 'xn--localhost-', '2130706433'],
)  # fmt: skip
def test_names_that_others_gave_us(page, host, shown, record_property):
    port = int(page.address.rstrip('/').rsplit(':', 1)[1])
    requests = [
        'GET / HTTP/1.1', 'GET /config HTTP/1.1', 'OPTIONS / HTTP/1.1\r\nAccess-Control-Request-Method: POST',
        'POST /gradio_api/call/segment HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 0',
        'POST /gradio_api/upload HTTP/1.1\r\nContent-Length: 0',
    ]  # fmt: skip
    for request in requests:
        with socket.create_connection(('127.0.0.1', port)) as connection, connection.makefile('rb') as answer:
            head = f'{request}\r\nHost: {host}\r\nOrigin: http://{host}\r\nConnection: close\r\n\r\n'
            connection.sendall(head.encode())
            text = answer.read()
        assert 400 <= int(text.split()[1]) < 500
        assert b'allow-origin' not in text.lower() and b'<html' not in text.lower()
    record_property('tries', len(requests))


@pytest.mark.attack('page: another web page in the same browser')
@pytest.mark.parametrize(
    'headers',
    [{'Origin': 'null'}, {'Origin': 'http://evil.example'}, {'Origin': 'http://localhost:1'}, {'Origin': 'file://'},
     {'Sec-Fetch-Site': 'cross-site'}, {'Sec-Fetch-Site': 'same-site', 'Sec-Fetch-Mode': 'no-cors'}],
)  # fmt: skip
def test_requests_of_other_pages(page, headers, shown, record_property):
    visitor = Visitor(page.address, **headers)
    answers = [
        visitor.join('segment', shown), visitor.upload(b'x'), visitor.http.post('gradio_api/cancel', json={}),
        visitor.http.post('gradio_api/queue/join', content='{}', headers={'Content-Type': 'text/plain'}),
        visitor.http.get('config'), visitor.http.get('gradio_api/queue/data?session_hash=a'),
        visitor.http.options('gradio_api/upload', headers={'Access-Control-Request-Method': 'POST'}),
    ]  # fmt: skip
    for answer in answers:
        assert answer.status_code in (403, 404) and 'access-control-allow-origin' not in answer.headers
    record_property('tries', len(answers))


@pytest.mark.attack('page: another web page in the same browser')
def test_the_page_cannot_be_framed_or_pointed_elsewhere(page):
    forwarded = {'X-Forwarded-Host': 'evil.example', 'X-Gradio-Server': 'http://evil.example'}
    answer = page.visitor.http.get('', headers=forwarded)
    assert answer.status_code == 200 and 'evil.example' not in answer.text
    assert answer.headers['x-frame-options'] == 'DENY'
    policy = answer.headers['content-security-policy']
    assert "frame-ancestors 'none'" in policy and "default-src 'self'" in policy and 'http' not in policy
    assert 'evil.example' not in page.visitor.http.get('config', headers=forwarded).text
    frame = {'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'navigate'}
    assert page.visitor.http.get('', headers={**frame, 'Sec-Fetch-Dest': 'iframe'}).status_code == 403
    assert page.visitor.http.get('', headers={**frame, 'Sec-Fetch-Dest': 'document'}).status_code == 200  # a link


@pytest.mark.attack('page: script in words and names')
def test_what_clients_write_is_never_html(page, shown, record_property):
    def plain(answer):
        """All texts of an answer; `test_browser.py` shows that the page inserts them as text."""
        return answer[0] == 200 and isinstance(answer[2][0], dict) and '\n' not in answer[2][0].get('error', '')

    for payload in PAYLOADS:
        for settings in (
            dict(words=f'{payload}, sky'), dict(words=f'{payload}, {payload}'), dict(words='a, b', unseen=payload),
        ):  # fmt: skip
            assert plain(page.visitor.segment(shown, **settings))
        for value in (
            {**shown, 'orig_name': payload, 'mime_type': payload, 'url': shown['url'].replace('image/png', payload)},
            {**shown, 'orig_name': payload, 'mime_type': payload, 'url': 'data:image/png;base64,QUJD', 'alt': payload},
            {'path': payload, 'orig_name': payload},
        ):
            answer = page.visitor.segment(value)
            assert plain(answer) and not set('<>"`$') & set(answer[2][0].get('error', ''))
        uploaded = page.visitor.upload(b'x', payload).json()[0]
        assert not set('<>"\'`${}\n') & set(uploaded)
        assert error_of(page.visitor.segment({'path': uploaded}))
    record_property('tries', 7 * len(PAYLOADS))


@pytest.mark.attack('page: a picture of another visitor')
def test_nobody_sees_what_was_seen_for_another(page, shown, record_property):
    owner = page.visitor
    look = owner.segment(shown, 'blue grid')[2][0]['look']
    assert len(look) >= 43
    guesses = [look, look[:-1], look + '=', look.upper(), '', 'x' * 43, [look], {'look': look}, True, 7]
    visitors = [Visitor(owner.http.base_url, source='127.0.0.9'), owner]  # another client; another tab
    for visitor in visitors:
        for guess in guesses:
            data = visitor.segment(None, 'blue grid', seen=guess)[2][0]
            assert data.get('gone') or 'no picture yet' in data['error'] or 'wrong type' in data['error'], guess
            assert 'overlay' not in data and data['look'] == ''
    record_property('tries', len(visitors) * len(guesses))
