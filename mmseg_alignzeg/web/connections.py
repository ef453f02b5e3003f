"""The server: its socket, its thread, and limits on connections and on how long one may take."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .access import is_wildcard
from .limits import client_of

OF_ONE_CLIENT, IN_ALL = 256, 768  # a process may usually open 1,024 files
HEAD_SECONDS = 20  # for the headers of a request
START_SECONDS = 30
READ_SECONDS = 120  # for a client to read what it was sent, which is in memory until then


class LimitedProtocol(H11Protocol):
    """One connection; uvicorn on its own would keep a silent one, or one that does not read, for ever."""

    waits: asyncio.TimerHandle | None = None
    stalls: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or hang up on a client with too many connections."""
        super().connection_made(transport)
        own = sum(self._client(other) == self._client(self) for other in self.connections)
        if own > OF_ONE_CLIENT or len(self.connections) > IN_ALL:
            transport.abort()
        else:
            self.waits = self.loop.call_later(HEAD_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        _cancel(self.waits)
        _cancel(self.stalls)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        _cancel(self.waits)
        self.waits = self.loop.call_later(HEAD_SECONDS, self._look)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        _cancel(self.stalls)
        self.stalls = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on, because the client has read."""
        _cancel(self.stalls)
        super().resume_writing()

    def _look(self) -> None:
        """Hang up if no request is being answered: its headers, or the rest of a refused one, are still to come."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()

    @staticmethod
    def _client(connection: Any) -> str:
        return client_of(connection.client[0] if connection.client else None)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


@contextmanager
def running(app: Any, listener: socket.socket, close: Callable[[], None]) -> Iterator[None]:
    """Run a server in a thread.

    Args:
        app: An ASGI application.
        listener: See :func:`listen`.
        close: Called at the end, to end its streams.

    Raises:
        OSError: If it does not start.
    """
    config = uvicorn.Config(
        app,
        http=LimitedProtocol,
        ws='none',
        log_level='warning',
        proxy_headers='FORWARDED_ALLOW_IPS' in os.environ,  # by itself, uvicorn believes anyone on this machine
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name='alignzeg web', daemon=True)
    thread.start()
    try:
        end = time.monotonic() + START_SECONDS
        while not server.started:
            if not thread.is_alive() or time.monotonic() > end:
                raise OSError(f'The page could not be started within {START_SECONDS} s.')
            threading.Event().wait(0.01)
        yield
    finally:
        server.should_exit = True
        close()
        thread.join(timeout=10)


def listen(host: str, port: int) -> socket.socket:
    """A socket on host and port.

    Raises:
        OSError: If they cannot be used.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            host.strip('[]') or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, dualstack_ipv6=host.strip('[]') == '::')
    except OSError as error:
        raise OSError(
            f'The page cannot be served on {host}, port {port}: the port is in use, or the address is not of this '
            'machine. Give another --port or --host.'
        ) from error


def url(host: str, port: int) -> str:
    """Where a browser on this machine finds the page."""
    name = 'localhost' if is_wildcard(host) else host.strip('[]')
    return f'http://[{name}]:{port}/' if ':' in name else f'http://{name}:{port}/'
