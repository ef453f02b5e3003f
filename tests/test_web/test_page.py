"""The page as a browser or script uses it, from a server on this machine."""

import base64
import io
import os
import re
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image
from web_visitor import LIMIT_MB, WORDS, free_port

from alignzeg.cli import main
from alignzeg.web import build_page, segment, server
from alignzeg.web.uploads import Uploads


@pytest.fixture(scope='module')
def client(page):
    return Client(page.address, verbose=False, analytics_enabled=False)


@pytest.fixture
def picture(scene, tmp_path):
    Image.fromarray(scene).save(tmp_path / 'scene.png')
    return tmp_path / 'scene.png'


@pytest.fixture
def own_sigterm():
    """The command says what SIGTERM does; the tests after it want that as it was."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def ask(client, path, words=WORDS, unseen='', others=True, pbc=True, gamma=0.3):
    file = None if path is None else handle_file(str(path))
    return client.predict(file, words, unseen, others, pbc, gamma, False, api_name='/segment')


def pixels_of(url):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.removeprefix('data:image/png;base64,')))))


def files(folder):
    return [path for path in folder.rglob('*') if path.is_file()]


def test_an_upload_becomes_what_the_function_gives_and_nothing_stays(page, client, inferencer, picture, scene):
    shown = {}
    for pbc in (True, False):
        answer = ask(client, picture, words='', others=False, pbc=pbc)
        expected = segment(inferencer, scene, gamma=0.3 if pbc else None, pbc=pbc)
        np.testing.assert_array_equal(pixels_of(answer['overlay']), expected.overlay)
        np.testing.assert_array_equal(pixels_of(answer['labels']), expected.labels)
        assert (answer['shares'], answer['proposals']) == (expected.shares, expected.proposals)
        assert (answer['classes'], answer['height'], answer['width']) == (list(expected.classes), 128, 128)
        assert answer['status'][0].startswith('128 × 128 pixels into 20 words in')
        assert files(page.folder.parent) == []
        shown[pbc] = answer['shares']
    assert shown[True] != shown[False]


def test_gamma_and_unseen_words_arrive(client, inferencer, picture, scene):
    shares = ask(client, picture, unseen='green zigzags', gamma=0.05)['shares']
    assert shares == segment(inferencer, scene, WORDS, 'green zigzags', True, 0.05).shares
    assert [mark for word, _, mark, _ in shares if word == 'green zigzags'] == ['unseen']


def test_a_later_question_needs_no_picture(client, picture, inferencer, scene, monkeypatch):
    first = ask(client, picture)
    words = 'blue grid, green zigzags'
    expected = [segment(inferencer, scene, words, gamma=gamma).shares for gamma in (0.05, 0.5)]
    monkeypatch.setattr(inferencer.model, 'look', lambda *a: pytest.fail('looked again'))
    for number, gamma in enumerate((0.05, 0.5)):
        settings = (None, words, '', False, True, gamma, False, first['look'], number)
        later = client.predict(*settings, api_name='/segment')
        assert later['shares'] == expected[number]
        assert (later['look'], later['number']) == (first['look'], number)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(words='a, b, A'), "Not done: “Words” has 'A' twice"),
        (dict(unseen='c'), 'Not done: “Unseen words” names c, not among the 4 classes'),
        (dict(words='<b>x</b>, a,a'), "has 'a' twice"),
        (dict(gamma=7.0), 'Not done: gamma=7.0 must be in'),
    ],
)
def test_bad_words_are_one_line(client, picture, settings, message):
    answer = ask(client, picture, **settings)
    assert message in answer['error'] and '\n' not in answer['error']
    assert set(answer) == {'number', 'look', 'error'}


def test_bad_pictures_are_one_line_and_do_not_stay(page, client, picture, tmp_path):
    (tmp_path / 'notes.txt').write_text('no picture')
    (tmp_path / 'cut.png').write_bytes(picture.read_bytes()[:9000])
    (tmp_path / 'empty.png').write_bytes(b'')
    Image.open(picture).save(tmp_path / 'scene.tif')
    cases = {
        'notes.txt': 'notes.txt is not a picture that Pillow can read',
        'cut.png': 'cut.png cannot be read',
        'empty.png': 'empty.png is empty',
    }
    for name, message in cases.items():
        assert message in ask(client, tmp_path / name)['error']
    assert ask(client, tmp_path / 'scene.tif')['shares'] == ask(client, picture)['shares']
    assert 'There is no picture yet' in ask(client, None)['error']
    assert files(page.folder.parent) == []


def test_large_files_and_bodies_are_refused(page, client, tmp_path):
    large = tmp_path / 'large.png'
    large.write_bytes(bytes(LIMIT_MB * 2**20 + 1))
    with large.open('rb') as file:
        answer = httpx.post(f'{page.address}gradio_api/upload', files={'files': file})
    assert answer.status_code == 413 and answer.text.startswith('large.png has 1,048,577 bytes')
    body = b'{"data": "' + bytes(3 * LIMIT_MB * 2**20) + b'"}'
    answer = httpx.post(f'{page.address}gradio_api/queue/join', content=body)
    assert answer.status_code == 413 and 'request is too large' in answer.text
    answer = httpx.post(f'{page.address}gradio_api/queue/join', content=iter([b'{}']))  # of no told size
    assert answer.status_code == 413
    assert files(page.folder.parent) == []


def test_links_and_files_of_the_server_are_refused(page, monkeypatch):
    fetched = []

    async def fetch(url, **kwargs):
        fetched.append(url)

    monkeypatch.setattr('gradio.processing_utils.async_ssrf_protected_download', fetch)
    address = f'{page.address}gradio_api/call/segment'
    for path in ('http://example.org/x.png', '/etc/hostname', f'{page.folder}/../x.png'):
        value = {'path': path, 'meta': {'_type': 'gradio.FileData'}}
        for data in ([value, WORDS], [None, value]):
            event = httpx.post(address, json={'data': [*data, '', True, True, 0.3, False, '', 0]}).json()['event_id']
            answer = httpx.get(f'{address}/{event}').text
            assert answer.startswith('event: error') and 'Traceback' not in answer
    assert fetched == []


def test_the_page_asks_no_other_server(page):
    text = httpx.get(page.address).text
    sources = re.findall(r'(?:src|href)="(https?://[^"]+)"', text)
    assert [source for source in sources if not source.startswith(page.address)] == []
    config = httpx.get(f'{page.address}config').json()
    assert config['analytics_enabled'] is False and config['run_history'] is False
    assert config['footer_links'] == []
    css = httpx.get(f'{page.address}theme.css').text
    assert 'http' not in re.sub(r'http://www\.w3\.org', '', css)


def test_only_this_machine_reaches_it(page):
    port = int(page.address.rstrip('/').rsplit(':', 1)[1])
    with open('/proc/net/tcp') as table:
        listening = [row.split()[1] for row in table.readlines()[1:] if row.split()[3] == '0A']
    assert [address for address in listening if address.endswith(f':{port:04X}')] == [f'0100007F:{port:04X}']


def test_one_prediction_at_a_time_and_a_bounded_queue(inferencer, tmp_path):
    built = build_page(inferencer, Uploads(tmp_path / 'uploads', 1))
    assert {function.concurrency_limit for function in built.fns.values()} <= {1, 'default'}
    assert built._queue.default_concurrency_limit == 1 and built._queue.max_size == 8


def test_with_a_password(serve_page, picture, inferencer, scene):
    with serve_page(password='correct horse') as page:
        with pytest.raises(Exception, match='credentials'):
            Client(page.address, verbose=False, analytics_enabled=False).predict(None, api_name='/segment')
        client = Client(page.address, verbose=False, analytics_enabled=False, auth=('anyone', 'correct horse'))
        assert ask(client, picture)['shares'] == segment(inferencer, scene, WORDS, '', True, 0.3).shares


def serve_once(arguments, monkeypatch, environment=None):
    """Run the command until it sleeps, and give its exit code."""
    folders = []

    def stop(seconds):
        folders.append(Path(os.environ['GRADIO_TEMP_DIR']).parent)
        assert folders[0].is_dir()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(server, 'time', SimpleNamespace(sleep=stop))
    with pytest.raises(SystemExit) as stopped:
        main(['web', '--device', 'cpu', *arguments])
    assert not folders[0].exists() and len(folders) == 1
    return stopped.value.code


@pytest.mark.parametrize('host', ['127.0.0.1', '0.0.0.0'])
def test_command_serves_until_it_is_stopped(host, monkeypatch, capsys, own_sigterm):
    port = free_port()
    choice = ['--no-password'] if host == '0.0.0.0' else []
    assert serve_once(['--host', host, '--port', str(port), *choice], monkeypatch) == 143
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith('The page is at http://') and f':{port}/ (Ctrl-C stops it)' in out[0]
    assert ['no password' in line and 'any of its addresses' in line for line in out[1:]] == [True] * len(choice)


def test_command_with_a_password_file(tmp_path, monkeypatch, capsys, own_sigterm):
    (tmp_path / 'password.txt').write_text('correct horse\n')
    given = []
    monkeypatch.setattr(server, 'same_password', lambda *both: given.append(both))
    real = server.application
    monkeypatch.setattr(
        server,
        'application',
        lambda page, uploads, names, password: given.append(password) or real(page, uploads, names, password),
    )
    arguments = ['--host', '0.0.0.0', '--port', str(free_port()), '--password-file', str(tmp_path / 'password.txt')]
    assert serve_once([*arguments, '--allow-host', 'lab.example.org'], monkeypatch) == 143
    out = capsys.readouterr().out.splitlines()
    assert given == ['correct horse'] and len(out) == 2
    assert 'with the password' in out[1] and 'lab.example.org' in out[1] and 'correct horse' not in ''.join(out)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--host', '0.0.0.0'], '--no-password'),
        (['--host', '192.168.0.2'], '--password-file FILE'),
        (['--password-file', 'missing.txt'], 'missing.txt'),
        (['--allow-host', 'http://lab.example.org'], 'not a valid host name'),
        (['--allow-host', '*'], 'not a valid host name'),
    ],
)
def test_bad_arguments_end_before_a_model_is_loaded(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(server, 'AlignZegInferencer', lambda *a: pytest.fail('loaded'))
    monkeypatch.delenv('MMSEG_ALIGNZEG_PASSWORD', raising=False)
    assert main(['web', *arguments]) == 2
    text = capsys.readouterr().err
    assert message in text and text.count('\n') == 1


def test_taken_port(page, capsys, own_sigterm):
    port = page.address.rstrip('/').rsplit(':', 1)[1]
    assert main(['web', '--port', port, '--device', 'cpu']) == 2
    assert re.search(rf'error: The page cannot be served on 127.0.0.1, port {port}: .*--port', capsys.readouterr().err)


def test_without_gradio(monkeypatch):
    for name in [name for name in sys.modules if name.startswith('alignzeg.web')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'gradio', None)
    with pytest.raises(ImportError, match=re.escape('pip install "mmseg_alignzeg[web]"')):
        import alignzeg.web  # noqa: F401
