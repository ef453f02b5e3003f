"""What sends requests to a page, as a browser or an attacker would."""

import base64
import io
import json
import socket

import httpx
from PIL import Image

WORDS = 'blue checks, blue grid, blue zigzags, green zigzags'
LIMIT_MB = 1
SETTINGS = (WORDS, '', True, True, 0.3, False)


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'PNG')
    return buffer.getvalue()


def data_url(content, mime='image/png'):
    return f'data:{mime};base64,{base64.b64encode(content).decode()}'


class Visitor:
    """Sends what a browser or an attacker would; each address of 127.0.0.0/8 is another client."""

    def __init__(self, address, source='127.0.0.1', **headers):
        self.http = httpx.Client(
            base_url=address, timeout=60, headers=headers, transport=httpx.HTTPTransport(local_address=source)
        )

    def upload(self, content, name='scene.png'):
        return self.http.post('gradio_api/upload', files={'files': (name, content)})

    def join(self, name, *data):
        return self.http.post(f'gradio_api/call/{name}', json={'data': list(data)})

    def fetch(self, name, event):
        """Kind of the last event and its data."""
        found = 'none', None
        with self.http.stream('GET', f'gradio_api/call/{name}/{event}') as answer:
            for line in answer.iter_lines():
                kind, _, value = line.partition(': ')
                if kind == 'event':
                    found = value, None
                elif kind == 'data':
                    found = found[0], json.loads(value)
                if found[0] in ('complete', 'error') and found[1] is not None:
                    break
        return found

    def ask(self, name, *data):
        """Status of the request, kind of its last event, and that event's data."""
        answer = self.join(name, *data)
        if answer.status_code != 200:
            return answer.status_code, 'refused', answer.text
        return 200, *self.fetch(name, answer.json()['event_id'])

    def segment(self, picture, words=WORDS, unseen='', others=True, pbc=True, gamma=0.3, windows=False, seen=''):
        return self.ask('segment', picture, words, unseen, others, pbc, gamma, windows, seen, 0)


def error_of(answer):
    """The error of an answer, after a check that the client got nothing else."""
    code, kind, data = answer
    assert code == 200 and kind in ('complete', 'error')
    if kind == 'error':
        return ''
    assert set(data[0]) == {'number', 'look', 'error'} and data[0]['look'] == ''
    return data[0]['error']
