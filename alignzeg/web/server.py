"""Serving the page: by default to this machine only, and without keeping files."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
from fastapi import FastAPI
from mmengine.logging import print_log
from starlette.routing import Mount, Route

from ..apis import AlignZegInferencer
from ..apis.trained_models import PathLike
from .access import Names, is_loopback, reach, read_password, require_protection, same_password
from .connections import listen, running, url
from .gate import Gate
from .limits import CLIENT_BODIES, MIB, TOTAL_BODIES, Budget
from .page import CSS, THEME, build_page
from .uploads import Uploads

SESSIONS = 8  # browser sessions whose last values gradio keeps in memory
END_SECONDS = 5  # to wait for a running prediction when the page ends


def say(line: str) -> None:
    """Log a line; the default of ``tell`` in :func:`serve`."""
    print_log(line, 'current')


def serve(
    model: PathLike | None = None,
    weights: PathLike | None = None,
    device: str | None = None,
    host: str = '127.0.0.1',
    port: int = 7860,
    max_upload_mb: int = 20,
    allow_hosts: Collection[str] = (),
    password_file: PathLike | None = None,
    no_password: bool = False,
    dtype: str = 'fp32',
    clip_weights: str | None = None,
    tell: Callable[[str], None] = say,
) -> None:
    """Serve the page until the process is stopped. Must be called in the main thread.

    Args:
        model: See :class:`AlignZegInferencer`, as for weights, device, dtype and clip_weights.
        weights: A checkpoint.
        device: The device, such as ``'cuda:0'``.
        host: Address to listen on; any address but this machine's loopback admits other machines.
        port: 1 to 65535.
        max_upload_mb: Size of the largest picture, in MiB.
        allow_hosts: Further host names of the page, such as that of a proxy in front of it.
        password_file: A file whose first line is the password of all users, with any user name; by default the
            password is the value of ``MMSEG_ALIGNZEG_PASSWORD``, if it is set.
        no_password: Admit other machines without a password.
        dtype: The precision.
        clip_weights: A file or tag of CLIP weights in place of those in the config or folder.
        tell: Called with the lines that tell the address of the page.

    Raises:
        FileNotFoundError: See :class:`AlignZegInferencer`.
        ValueError: See :class:`AlignZegInferencer`; also if a host name is invalid, or other machines would be admitted
            without a decision about a password.
        OSError: If host and port cannot be used, or the password file cannot be read.
    """
    password = read_password(password_file)
    require_protection(host, password, no_password)
    Names(host, allow_hosts)  # fails before a model is loaded if a name is invalid
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that context managers clean up
    inferencer = AlignZegInferencer(model, weights, device, dtype, clip_weights=clip_weights)
    with serving(inferencer, host, port, max_upload_mb, allow_hosts, password, no_password) as (address, _):
        tell(f'The page is at {address} (Ctrl-C stops it).')
        if not is_loopback(host):
            tell(reach(host, allow_hosts, password))
        while True:
            time.sleep(60)


@contextmanager
def serving(
    inferencer: AlignZegInferencer,
    host: str = '127.0.0.1',
    port: int = 7860,
    max_upload_mb: int = 20,
    allow_hosts: Collection[str] = (),
    password: str | None = None,
    no_password: bool = False,
) -> Iterator[tuple[str, Path]]:
    """Serve the page in threads; see :func:`serve`.

    Args:
        inferencer: The model. Embeddings of what clients ask are not kept on disk, so that they cannot fill it.
        host: See :func:`serve`.
        port: See :func:`serve`.
        max_upload_mb: See :func:`serve`.
        allow_hosts: See :func:`serve`.
        password: The password of all users, or None.
        no_password: See :func:`serve`.

    Yields:
        The address of the page, and the folder of uploads, which is deleted at the end of the context.
    """
    require_protection(host, password, no_password)
    names = Names(host, allow_hosts)
    inferencer.model.text_bank(inferencer.model.vocabulary.classes, inferencer.device)  # these may be kept
    inferencer = inferencer.without_text_cache()
    with listen(host, port) as listener, tempfile.TemporaryDirectory(prefix='alignzeg_web_') as private:
        uploads = Uploads(Path(private) / 'uploads', max_upload_mb * MIB)
        busy = threading.Lock()
        with environment('GRADIO_TEMP_DIR', str(uploads.folder)):
            page = build_page(inferencer, uploads, busy)
            app = application(page, uploads, names, password)
            try:
                with running(app, listener, lambda: close(page)):
                    yield url(host, port), uploads.folder
            finally:
                busy.acquire(timeout=END_SECONDS)  # Python must not end in the middle of a prediction


def application(page: gr.Blocks, uploads: Uploads, names: Names, password: str | None) -> Gate:
    """Return gradio's application behind the gate."""
    page.state_session_capacity = SESSIONS
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        '/',
        footer_links=[],
        run_history=False,
        app_kwargs={'routes': [Route('/gradio_api/upload', uploads.receive, methods=['POST'])]},
        auth=None if password is None else lambda user, given: same_password(given, password),
        show_error=False,
        max_file_size=uploads.most_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=THEME,
        css=CSS,
    )
    page.app = next(route.app for route in app.routes if isinstance(route, Mount))  # type: ignore[assignment]
    largest = uploads.most_bytes * 4 // 3 + MIB  # pictures are sent raw, or as base64 in JSON
    return Gate(app, page.app, names, largest, Budget(CLIENT_BODIES * largest, TOTAL_BODIES * largest))


def close(page: gr.Blocks) -> None:
    """Stop gradio's tasks for open browsers; gradio's own method works only for servers that it started."""
    page._queue.close()
    page.is_running = False
    page.app.stop_event.set()


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable within the context."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
