"""Serving the page: to this machine alone unless asked, and without traces."""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmengine.logging import print_log
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ..apis import AlignZegInferencer
from ..apis.loading import PathLike
from .page import CSS, THEME, build_page
from .uploads import delete

EVERY = 60  # seconds between two looks for files that nobody asked about
UNCLAIMED = 300  # seconds after which an upload without a request is deleted
SESSIONS = 8  # browsers whose last values gradio keeps in memory


class BodyLimit:
    """Refuses requests with a larger body: gradio limits files, but pictures also come within JSON.

    Args:
        app: The application.
        limit: Bytes.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413, or hand on."""
        if scope['type'] == 'http' and scope['method'] == 'POST':
            length = Headers(scope=scope).get('content-length', '')
            if not length.isdecimal() or int(length) > self.limit:
                text = f'The request is too large or does not say its size: at most {self.limit:,} bytes.'
                await PlainTextResponse(text, 413)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def say(line: str) -> None:
    """Where lines go without a terminal's own way to show them."""
    print_log(line, 'current')


def serve(
    model: PathLike | None = None,
    weights: PathLike | None = None,
    device: str | None = None,
    host: str = '127.0.0.1',
    port: int = 7860,
    max_upload_mb: int = 20,
    tell: Callable[[str], None] = say,
) -> None:
    """Serve the page until the process is stopped. For the main thread.

    Args:
        model: See :class:`AlignZegInferencer`, as for weights and device.
        weights: A checkpoint.
        device: Such as ``'cuda:0'``.
        host: Address to listen on; anything but this machine itself lets others in.
        port: 1 to 65535.
        max_upload_mb: Size of the largest picture, in MiB.
        tell: Takes the lines that say where the page is.

    Raises:
        FileNotFoundError: See :class:`AlignZegInferencer`.
        ValueError: See :class:`AlignZegInferencer`.
        OSError: If host and port cannot be used.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what follows is tidied up
    with serving(AlignZegInferencer(model, weights, device), host, port, max_upload_mb) as (address, folder):
        tell(f'The page is at {address} (Ctrl-C ends it).')
        if not is_loopback(host):
            tell(
                'Whoever reaches this machine over the network can use the page: it asks for no password, and pictures '
                'travel unencrypted.'
            )
        while True:
            time.sleep(EVERY)
            sweep(folder, UNCLAIMED)


@contextmanager
def serving(
    inferencer: AlignZegInferencer, host: str = '127.0.0.1', port: int = 7860, max_upload_mb: int = 20
) -> Iterator[tuple[str, Path]]:
    """Serve the page in threads; see :func:`serve`.

    Args:
        inferencer: The model. From now on the embeddings of new words are in memory alone: what strangers type should
            not fill the disk.

    Returns:
        The page's address, and the folder of uploads, which ends with the context.
    """
    bank = inferencer.model.text_bank
    bank(inferencer.model.vocabulary.classes, inferencer.device)  # the model's own words may be kept, as always
    with (
        tempfile.TemporaryDirectory(prefix='alignzeg_web_') as private,
        environment('GRADIO_TEMP_DIR', f'{private}/uploads'),
    ):
        uploads, bank.cache_dir = Path(private) / 'uploads', Path(private) / 'words'
        page = build_page(inferencer, clean=lambda: shutil.rmtree(bank.cache_dir, ignore_errors=True))
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                share=False,
                prevent_thread_lock=True,
                inline=False,
                quiet=True,
                show_error=False,
                max_file_size=f'{max_upload_mb}mb',
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                mcp_server=False,
                state_session_capacity=SESSIONS,
                css=CSS,
                theme=THEME,
                app_kwargs={'middleware': [Middleware(BodyLimit, limit=max_upload_mb * 2**20 * 4 // 3 + 2**20)]},
            )
        except OSError as error:
            raise OSError(
                f'The page cannot be served on {host}, port {port}: the port is in use, or the address is not of this '
                'machine. Give another --port or --host.'
            ) from error
        try:
            yield address, uploads
        finally:
            page.close(verbose=False)


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def is_loopback(host: str) -> bool:
    """Whether only this machine itself reaches a host."""
    try:
        return ipaddress.ip_address(host.strip('[]')).is_loopback
    except ValueError:
        return host == 'localhost'


def sweep(folder: Path, age: float) -> None:
    """Delete uploads older than ``age`` seconds: those never asked about, and those that broke off."""
    for path in [path for path in folder.rglob('*') if path.is_file()]:
        with suppress(FileNotFoundError):  # its request came in the meantime
            if time.time() - path.stat().st_mtime > age:
                delete(path)
