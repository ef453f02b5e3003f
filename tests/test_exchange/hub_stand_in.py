"""A small server that speaks the part of the Hugging Face Hub's HTTP interface that uploads and downloads use."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = 'c' * 40


class Hub:
    """State of the server: one model, and what happened."""

    def __init__(self):
        self.created = None
        self.files = {}
        self.uploads = {}
        self.tokens = set()
        self.broken = None  # 'refuse': status 403; 'cut': the connection ends in the middle of a file


def handler_of(hub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def log_message(self, *_):
            pass

        def body(self):
            return self.rfile.read(int(self.headers.get('Content-Length', 0)))

        def answer(self, content=b'', status=200, headers=()):
            if not isinstance(content, bytes):
                content, headers = json.dumps(content).encode(), (*headers, ('Content-Type', 'application/json'))
            self.send_response(status)
            for name, value in (*headers, ('Content-Length', str(len(content)))):
                self.send_header(name, value)
            self.end_headers()
            if self.command != 'HEAD':
                self.wfile.write(content)

        def do_POST(self):
            content = self.body()
            hub.tokens.add(self.headers.get('Authorization'))
            if hub.broken == 'refuse':
                return self.answer({'error': 'You may not write here.\nSecond line'}, 403)
            if self.path == '/api/repos/create':
                hub.created = json.loads(content)
                return self.answer({'url': f'{self.server.address}/{hub.created["organization"]}/x', 'name': 'x/x'})
            if self.path == '/api/validate-yaml':
                return self.answer({'errors': [], 'warnings': []})
            if '/preupload/' in self.path:
                files = json.loads(content)['files']
                modes = {True: 'lfs', False: 'regular'}
                answers = [
                    {
                        'path': file['path'],
                        'uploadMode': modes[file['path'].endswith('.safetensors')],
                        'shouldIgnore': False,
                    }
                    for file in files
                ]
                return self.answer({'files': answers})
            if self.path.endswith('/info/lfs/objects/batch'):
                objects = [
                    {**item, 'actions': {'upload': {'href': f'{self.server.address}/upload/{item["oid"]}'}}}
                    for item in json.loads(content)['objects']
                ]
                return self.answer({'transfer': 'basic', 'objects': objects})
            for line in map(json.loads, content.splitlines()):  # /api/models/ORG/NAME/commit/main
                value = line['value']
                if line['key'] == 'file':
                    hub.files[value['path']] = base64.b64decode(value['content'])
                elif line['key'] == 'lfsFile':
                    hub.files[value['path']] = hub.uploads[value['oid']]
            return self.answer(
                {
                    'commitUrl': f'{self.server.address}/org/patterns/commit/{COMMIT}',
                    'commitOid': COMMIT,
                    'success': True,
                }
            )

        def do_PUT(self):
            content = self.body()
            hub.uploads[hashlib.sha256(content).hexdigest()] = content
            self.answer()

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            if '/resolve/' not in self.path:
                siblings = [{'rfilename': name} for name in hub.files]
                tree = [
                    {'type': 'file', 'path': name, 'size': len(content), 'oid': hashlib.sha1(content).hexdigest()}
                    for name, content in hub.files.items()
                ]
                info = {'id': 'org/patterns', 'sha': COMMIT, 'siblings': siblings}
                return self.answer(tree if '/tree/' in self.path else info)
            content = hub.files[self.path.rpartition('/')[2]]
            headers = (('X-Repo-Commit', COMMIT), ('ETag', f'"{hashlib.sha256(content).hexdigest()}"'))
            if hub.broken == 'cut' and self.command == 'GET':
                self.send_response(200)
                for name, value in (*headers, ('Content-Length', str(len(content)))):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content[:10])
                self.close_connection = True
                return None
            return self.answer(content, headers=headers)

    return Handler


@contextmanager
def running_hub():
    """Yield the hub and its address."""
    hub = Hub()
    with ThreadingHTTPServer(('127.0.0.1', 0), handler_of(hub)) as server:
        server.address = f'http://127.0.0.1:{server.server_port}'
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield hub, server.address
        finally:
            server.shutdown()
