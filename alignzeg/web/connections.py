"""The server: its socket, its thread, and limits on the number and the duration of connections."""

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
HEAD_SECONDS = 20  # within which the headers of a request must arrive
START_SECONDS = 30
READ_SECONDS = 120  # within which a client must read its response, which stays in memory until then


class LimitedProtocol(H11Protocol):
    """One connection. uvicorn alone would keep a silent connection, or one that does not read, open for ever."""

    waits: asyncio.TimerHandle | None = None
    stalls: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or abort it if the client has too many."""
        super().connection_made(transport)
        own = sum(self._client(other) == self._client(self) for other in self.connections)
        if own > OF_ONE_CLIENT or len(self.connections) > IN_ALL:
            transport.abort()
        else:
            self.waits = self.loop.call_later(HEAD_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers of the connection."""
        _cancel(self.waits)
        _cancel(self.stalls)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Start the timer for the next request."""
        _cancel(self.waits)
        self.waits = self.loop.call_later(HEAD_SECONDS, self._look)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Start the timer for the client to read the response."""
        super().pause_writing()
        _cancel(self.stalls)
        self.stalls = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Cancel the timer, because the client has read."""
        _cancel(self.stalls)
        super().resume_writing()

    def _look(self) -> None:
        """Abort the connection unless a request is being answered: the awaited headers or body did not arrive."""
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
        close: Called at the end, to close the streams of the application.

    Raises:
        OSError: If the server does not start.
    """
    config = uvicorn.Config(
        app,
        http=LimitedProtocol,
        ws='none',
        log_level='warning',
        proxy_headers='FORWARDED_ALLOW_IPS' in os.environ,  # by default, uvicorn trusts every process on this machine
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
    """Open a listening socket on host and port.

    Raises:
        OSError: If host and port cannot be used.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            host.strip('[]') or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, dualstack_ipv6=host.strip('[]') == '::')
    except OSError as error:
        raise OSError(
            f'The page cannot be served on {host}, port {port}: the port is in use, or the address does not belong to '
            'this machine. Pass another --port or --host.'
        ) from error


def url(host: str, port: int) -> str:
    """Return the address of the page for a browser on this machine."""
    name = 'localhost' if is_wildcard(host) else host.strip('[]')
    return f'http://[{name}]:{port}/' if ':' in name else f'http://{name}:{port}/'
