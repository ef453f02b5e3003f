"""Uploaded picture files, from the upload route to the handler that uses them."""

from __future__ import annotations

import errno
import functools
import operator
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from .limits import CLIENT_PICTURES, TOTAL_PICTURES, LimitError, client_of

CLIENT_FILES, TOTAL_FILES = 32, 256
LONGEST_NAME = 100  # characters
GONE = 'no longer exists, or was not uploaded to this page: upload it again'
UNCLAIMED = 300  # seconds after which an upload without a request is deleted
WRITE = 'O_WRONLY', 'O_CREAT', 'O_EXCL', 'O_NOFOLLOW', 'O_BINARY'
READ = 'O_RDONLY', 'O_NOFOLLOW', 'O_NONBLOCK', 'O_BINARY'


def clean_name(name: object) -> str:
    """Return the last part of a path, with everything removed that could be more than a plain name."""
    text = name if isinstance(name, str) else ''
    text = re.sub(r'[^\w.()+ -]', '_', text.replace('\\', '/').rpartition('/')[2]).strip(' .')
    return text[-LONGEST_NAME:].lstrip(' .') or 'picture'


def flags(names: tuple[str, ...]) -> int:
    """Combine flags of ``os.open`` by name, skipping those that the system lacks (Windows: ``O_NOFOLLOW``)."""
    return functools.reduce(operator.or_, (getattr(os, name, 0) for name in names))


@dataclass(frozen=True)
class Held:
    """A stored file.

    Attributes:
        client: The client that sent it.
        size: Its size in bytes.
        since: When it was stored, in seconds of ``time.time``.
    """

    client: str
    size: int
    since: float


class Uploads:
    """The store of uploaded files. It opens and deletes only files that the upload route wrote.

    A file is identified by the path that its upload was answered with: ``folder/ID/NAME`` with a random ID. Each file
    is read once, and deleted then.

    Error messages describe the fault of a file without its name.

    Args:
        folder: A folder for this page only; it is created.
        most_bytes: Size limit of one file.
        clock: Returns the seconds since the epoch.
    """

    def __init__(self, folder: Path, most_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self.folder, self.most_bytes, self.clock = Path(folder), most_bytes, clock
        self.files: dict[str, Held] = {}
        self._lock = threading.Lock()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, client: str, name: object, content: bytes) -> str:
        """Write a file.

        Returns:
            Its path, the argument of :meth:`take`.

        Raises:
            LimitError: If the file is too large (413), the client or all clients together store too much (429), or the
                disk is full (507).
        """
        size = len(content)
        self.check_size(size)
        folder = self.folder / secrets.token_hex(32)
        path = str(folder / clean_name(name))
        with self._lock:
            self._check_room(client, size)
            self.files[path] = Held(client, size, self.clock())
        with ExitStack() as undo:
            undo.callback(self._drop, path)
            try:
                folder.mkdir(mode=0o700)
                with open(os.open(path, flags(WRITE), 0o600), 'wb') as file:
                    file.write(content)
            except OSError as error:
                raise LimitError(507, f'could not be stored ({error.strerror}): try again later') from error
            undo.pop_all()
        return path

    def check_size(self, size: int) -> None:
        """Refuse a picture of too many bytes.

        Raises:
            LimitError: If the picture is too large (413).
        """
        if size > self.most_bytes:
            raise LimitError(413, f'has {size:,} bytes, above the maximum allowed size of {self.most_bytes:,}')

    def take(self, path: object) -> bytes:
        """Read a file and delete it.

        Raises:
            ValueError: If ``path`` was not returned by :meth:`put`, or the file no longer exists.
        """
        with self._lock:
            held = self.files.get(path) if isinstance(path, str) else None
            if held is None or not isinstance(path, str):
                raise ValueError(GONE)
            try:
                return self._read(path, held.size)
            finally:
                self._forget(path)

    def _read(self, path: str, size: int) -> bytes:
        try:
            descriptor = os.open(path, flags(READ))
        except OSError as error:
            reason = 'is a link' if error.errno == errno.ELOOP else 'no longer exists'
            raise ValueError(f'{reason}: upload it again') from error
        with open(descriptor, 'rb') as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size != size:
                raise ValueError('is not the file that was uploaded: upload it again')
            return file.read(size)

    def sweep(self, age: float = UNCLAIMED) -> None:
        """Delete files older than ``age`` seconds, which no request has used."""
        with self._lock:
            for path in [path for path, held in self.files.items() if self.clock() - held.since > age]:
                self._forget(path)

    def _check_room(self, client: str, size: int) -> None:
        own = [held.size for held in self.files.values() if held.client == client]
        if len(own) >= CLIENT_FILES or sum(own) + size > CLIENT_PICTURES * self.most_bytes:
            raise LimitError(
                429, 'has to wait: too many of your pictures are stored already, try again in a few minutes'
            )
        everything = sum(held.size for held in self.files.values())
        if len(self.files) >= TOTAL_FILES or everything + size > TOTAL_PICTURES * self.most_bytes:
            raise LimitError(429, 'has to wait: this page holds too many pictures, try again in a few minutes')

    def _drop(self, path: str) -> None:
        with self._lock:
            self._forget(path)

    def _forget(self, path: str) -> None:
        """Delete a stored file, and the folder with its ID."""
        self.files.pop(path, None)
        Path(path).unlink(missing_ok=True)
        try:
            Path(path).parent.rmdir()
        except OSError:
            pass  # it was not created, or contains foreign files; the parent folder is deleted with the page

    async def receive(self, request: Request) -> Response:
        """Handle the upload route: store one file of a form, and answer with a list of its path, as gradio does."""
        client = client_of(request.client.host if request.client else None)
        async with request.form(max_files=1, max_fields=8, max_part_size=1024) as form:
            file = form.get('files')
            if not isinstance(file, UploadFile):
                return PlainTextResponse('Send one picture, in the field `files` of a form.', 400)
            try:
                self.check_size(file.size or 0)
                path = await run_in_threadpool(self.put, client, file.filename, await file.read())
            except LimitError as error:
                return PlainTextResponse(f'{clean_name(file.filename)} {error}', error.status)
            return JSONResponse([path])
