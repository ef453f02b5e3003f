"""The checks that every request must pass before it reaches gradio."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .access import Names, is_own_request
from .limits import Budget, LimitError, Tries, body_seconds, client_of

# Gradio serves about 90 routes; the page needs these. All others are closed, including future ones: file routes
# (`file=`, `file/`, `stream`, `deep_link`, `custom_component`), `proxy=`, direct calls (`run`, `api`,
# `component_server`), screen recordings, run history, monitoring, and the code editor. `upload` is our own, see
# `uploads.py`. `logout` would end the sessions of everyone with the same user name, by a GET request that any other web
# page can cause.
OPEN_GET = re.compile(
    r'/|/(config|theme\.css|robots\.txt|favicon\.ico|manifest\.json)/?'
    r'|/(assets|static|svelte)/[\w\-./]+'
    r'|/gradio_api/(info|app_id|user|login_check|startup-events|theme\.css|queue/data|queue/status)/?'
    r'|/gradio_api/heartbeat/[\w-]{1,64}'
    r'|/gradio_api/call/\w+/\w{1,64}'
)
OPEN_POST = re.compile(r'/login/?|/gradio_api/(upload|queue/join|cancel|reset|call/\w+)/?')
# The routes that are open without the password: those that the login form needs.
PUBLIC = re.compile(
    r'/|/(login|theme\.css|robots\.txt|favicon\.ico|manifest\.json)/?|/(assets|static|svelte)/.*'
    r'|/gradio_api/(user|login_check|startup-events|theme\.css)/?'
)
WITH_PICTURES = re.compile(r'/gradio_api/(upload|queue/join|call/\w+)/?')
SMALL_BODY = 2**14  # bytes, the limit of all other requests
MOST_MARKS = 200_000  # delimiters in a JSON body, such as commas; a picture in base64 has none

# Gradio's front end uses inline scripts and compiles templates, so scripts cannot be restricted further. But no script
# can reach another server.
SECURITY_HEADERS = {
    'Content-Security-Policy': "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'",
    'X-Content-Type-Options': 'nosniff',
    'X-Frame-Options': 'DENY',
    'Referrer-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Cross-Origin-Opener-Policy': 'same-origin',
}


class RefusedError(Exception):
    """A request is refused; ``status`` is the HTTP status code."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Gate:
    """ASGI middleware that filters all requests.

    Attributes:
        app: The application that answers the accepted requests.
        gradio: gradio's application, which knows who is logged in.
        names: The host names of the page.
        most_bytes: Size limit of a request body.
        budget: Limits the size of all bodies that are being received.
        passwords: Counts the login attempts.
    """

    app: ASGIApp
    gradio: Any
    names: Names
    most_bytes: int
    budget: Budget
    passwords: Tries = field(default_factory=Tries)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with a 4xx status and a sentence."""
        if scope['type'] == 'lifespan':
            await self.app(scope, receive, send)
            return
        if scope['type'] != 'http':  # the page uses no web sockets
            await send({'type': 'websocket.close', 'code': 1008})
            return
        answer = _Answer(send)
        try:
            await self._pass(scope, receive, answer)
        except (RefusedError, LimitError) as error:
            if answer.status is None:
                await PlainTextResponse(str(error), error.status)(scope, receive, answer)

    async def _pass(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        headers, path, method = Headers(scope=scope), scope['path'], scope['method']
        client = client_of(scope['client'][0] if scope.get('client') else None)
        self._check_source(headers, path, method)
        opened = OPEN_POST if method == 'POST' else OPEN_GET
        if method not in ('GET', 'HEAD', 'POST') or not opened.fullmatch(path) or '/..' in path:
            raise RefusedError(404, 'There is nothing here.')
        if not (PUBLIC.fullmatch(path) or self._logged_in(scope)):
            raise RefusedError(401, 'Log in first.')
        scope['headers'] = [(name, value) for name, value in scope['headers'] if not _redirects(name)]
        if method != 'POST':
            await self.app(scope, receive, answer)
            return
        length = self._length(headers, path)
        is_login = path.rstrip('/') == '/login'
        if is_login:
            self.passwords.take(client)
        marks = None if path.startswith('/gradio_api/upload') else MOST_MARKS
        with self.budget.hold(client, length):
            await self._forward(scope, _Body(receive, length, marks), answer)
        if is_login and answer.status == 200:
            self.passwords.forget(client)

    async def _forward(self, scope: Scope, body: _Body, answer: _Answer) -> None:
        answer.body = body
        try:
            await self.app(scope, body, answer)
        except Exception:
            if body.refusal is None:
                raise
        answer.body = None
        if body.refusal is not None:
            raise body.refusal

    def _check_source(self, headers: Headers, path: str, method: str) -> None:
        host = headers.get('host', '')
        if not self.names.trusts(host):
            raise RefusedError(
                403, f'This page is not served under the name {host[:100]!r}: restart it with --allow-host.'
            )
        site, dest = headers.get('sec-fetch-site'), headers.get('sec-fetch-dest')
        if not is_own_request(method, path, host, headers.get('origin'), site, dest):
            raise RefusedError(403, 'This request comes from another web page, which is not allowed.')

    def _length(self, headers: Headers, path: str) -> int:
        limit = self.most_bytes if WITH_PICTURES.fullmatch(path) else min(SMALL_BODY, self.most_bytes)
        length = headers.get('content-length', '')
        if not length.isascii() or not length.isdecimal() or int(length[:20]) > limit:
            raise LimitError(413, f'The request is too large or does not say its size: at most {limit:,} bytes.')
        return int(length)

    def _logged_in(self, scope: Scope) -> bool:
        if self.gradio.auth is None:
            return True
        cookies = HTTPConnection(scope).cookies  # as gradio reads them; http.cookies drops all beside an unusual one
        names = (f'access-token-{self.gradio.cookie_id}', f'access-token-unsecure-{self.gradio.cookie_id}')
        return any(cookies.get(name) in self.gradio.tokens for name in names)


def _redirects(header: bytes) -> bool:
    """Return whether a header would make gradio write another server's address into the page."""
    return header in (b'x-forwarded-host', b'x-gradio-server', b'x-forwarded-prefix')


class _Answer:
    """A ``send`` that adds the security headers and records the status."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.status: int | None = None
        self.body: _Body | None = None

    async def __call__(self, message: Message) -> None:
        if self.status is None and self.body is not None and self.body.refusal is not None:
            return  # drop the application's answer to a truncated body
        if message['type'] == 'http.response.start':
            self.status = message['status']
            MutableHeaders(scope=message).update(SECURITY_HEADERS)
        await self.send(message)


class _Body:
    """A ``receive`` that enforces limits on a body, and reports a disconnected client once a limit is exceeded.

    Args:
        receive: The ``receive`` that delivers the body.
        length: The announced number of bytes.
        marks: Limit on JSON delimiters, each of which may create an object in memory; None for no limit.
    """

    def __init__(self, receive: Receive, length: int, marks: int | None) -> None:
        self.receive, self.length, self.marks = receive, length, marks
        self.end = asyncio.get_running_loop().time() + body_seconds(length)
        self.complete = False
        self.refusal: RefusedError | None = None

    async def __call__(self) -> Message:
        if self.complete:  # the next message is the end of the connection
            return await self.receive()
        try:
            async with asyncio.timeout_at(self.end):
                message = await self.receive()
        except TimeoutError:
            self.refusal = RefusedError(408, 'The request took too long to arrive.')
            return {'type': 'http.disconnect'}
        self.complete = message['type'] != 'http.request' or not message.get('more_body', False)
        self._count(message.get('body', b''))
        return message if self.refusal is None else {'type': 'http.disconnect'}

    def _count(self, part: bytes) -> None:
        self.length -= len(part)
        if self.marks is not None:
            self.marks -= sum(part.count(mark) for mark in b',:[{')
        if self.length < 0 or (self.marks is not None and self.marks < 0):
            self.complete = True
            self.refusal = RefusedError(413, 'The request is too large: it exceeds its announced length or the limit.')
