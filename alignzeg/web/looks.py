"""What the model saw in visitors' pictures, kept in memory for further questions."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..apis.looks import Look
from .limits import MIB

CLIENT_LOOKS, TOTAL_LOOKS = 128 * MIB, 512 * MIB  # limits on their bytes: per client, in total
UNUSED = 600  # seconds after which a look is dropped


@dataclass
class Held:
    """A kept look.

    Attributes:
        client: The client whose picture it is.
        session: The client's browser tab.
        look: The look.
        size: Its size in bytes.
        used: When it was last used, by the store's clock.
    """

    client: str
    session: str
    look: Look
    size: int
    used: float


class Looks:
    """A store of looks, of which the least recently used are dropped first.

    A look is found only with the random token that its browser tab received, by the same client in the same tab.

    Args:
        client_bytes: Limit on the looks of one client, so that nobody can drop those of others.
        total_bytes: Limit on all looks.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        client_bytes: int = CLIENT_LOOKS,
        total_bytes: int = TOTAL_LOOKS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.client_bytes, self.total_bytes, self.clock = client_bytes, total_bytes, clock
        self.held: dict[str, Held] = {}  # the least recently used first
        self._lock = threading.Lock()

    def keep(self, client: str, session: str, look: Look) -> str:
        """Keep a look; return its token, or an empty string if it is too large."""
        size = look.nbytes
        if size > min(self.client_bytes, self.total_bytes):
            return ''
        token = secrets.token_urlsafe(32)
        with self._lock:
            self.held[token] = Held(client, session, look, size, self.clock())
            self._shrink([other for other, held in self.held.items() if held.client == client], self.client_bytes)
            self._shrink(list(self.held), self.total_bytes)
        return token

    def find(self, client: str, session: str, token: object) -> Look | None:
        """Return the look of a token that this client received in this session; None if there is none, or no more."""
        with self._lock:
            held = self.held.get(token) if isinstance(token, str) else None
            if held is None or not isinstance(token, str) or (held.client, held.session) != (client, session):
                return None
            held.used = self.clock()
            self.held[token] = self.held.pop(token)  # now the newest
            return held.look

    def sweep(self) -> None:
        """Drop looks that were not used for ``UNUSED`` seconds."""
        with self._lock:
            for token in [token for token, held in self.held.items() if self.clock() - held.used > UNUSED]:
                del self.held[token]

    def _shrink(self, tokens: list[str], most: int) -> None:
        size = sum(self.held[token].size for token in tokens)
        for token in tokens:
            if size <= most:
                return
            size -= self.held.pop(token).size
