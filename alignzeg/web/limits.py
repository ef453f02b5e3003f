"""Resource limits of one request, of one client and of all clients together."""

from __future__ import annotations

import ipaddress
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.nn.modules.module import register_module_forward_pre_hook

MIB = 2**20
MOST_PIXELS = 50_000_000
LEAST_PIXELS = 4_000_000  # always accepted, because the reported memory may be wrong
BYTES_PER_PIXEL = 64  # that decoding, converting and drawing need together in the worst case
MOST_ANSWER_BYTES = 16 * MIB  # size limit of the overlay, as PNG
REQUEST_SECONDS = 120  # limit on the computing time
BODY_SECONDS, BODY_RATE = 20, 50_000  # time limit of a body: these seconds, plus one second per so many bytes
CLIENT_BODIES, TOTAL_BODIES = 3, 8  # limits on bodies being received, in units of the largest: per client, in total
CLIENT_PICTURES, TOTAL_PICTURES = 4, 16  # limits on waiting uploads, in units of the largest: per client, in total


class LimitError(ValueError):
    """A limit is exceeded: something is too large, or there are too many requests at this time.

    Attributes:
        status: The HTTP status code: 413, 429 or 507.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def client_of(address: str | None) -> str:
    """Return the client that a request counts for: its IPv4 address, or its /64 network for IPv6."""
    try:
        ip = ipaddress.ip_address(address or '')
    except ValueError:
        return address or 'unknown'
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False))


def available_memory(root: Path = Path('/')) -> int | None:
    """Return the bytes of memory available on the machine, or in its container if that is less; None if unknown.

    A container's usage includes the page cache. The inactive part of the cache is freed on demand, so it counts as
    available, as it does in ``MemAvailable`` and for Docker and Kubernetes.

    Args:
        root: The folder that contains ``proc`` and ``sys``.
    """
    found = []
    try:
        for line in (root / 'proc/meminfo').read_text().splitlines():
            if line.startswith('MemAvailable:'):
                found.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError, IndexError):
        pass  # not Linux
    for folder, limit, used, cache in (
        ('sys/fs/cgroup', 'memory.max', 'memory.current', 'inactive_file'),
        ('sys/fs/cgroup/memory', 'memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file'),
    ):
        try:
            most, now = (int((root / folder / name).read_text()) for name in (limit, used))
        except (OSError, ValueError):
            continue  # another version of control groups, or no limit ("max")
        found.append(max(0, most - max(0, now - _statistic(root / folder / 'memory.stat', cache))))
    return min(found) if found else None


def _statistic(path: Path, name: str) -> int:
    """Read the number called ``name`` from a file with lines ``name number``; 0 if it is missing."""
    try:
        return int(dict(line.split() for line in path.read_text().splitlines())[name])
    except (OSError, ValueError, KeyError):
        return 0


def most_pixels(memory: int | None) -> int:
    """Return the pixels of the largest picture that is decoded: ``LEAST_PIXELS`` to ``MOST_PIXELS``.

    Args:
        memory: Available bytes, of which one picture may use a quarter.
    """
    return MOST_PIXELS if memory is None else min(MOST_PIXELS, max(LEAST_PIXELS, memory // 4 // BYTES_PER_PIXEL))


def body_seconds(length: int) -> float:
    """Return the seconds within which a body of ``length`` bytes must arrive."""
    return BODY_SECONDS + length / BODY_RATE


class Budget:
    """Limits the bytes that clients hold at the same time. Not thread-safe.

    Args:
        client_bytes: Limit of one client.
        total_bytes: Limit of all clients together.
    """

    def __init__(self, client_bytes: int, total_bytes: int) -> None:
        self.client_bytes, self.total_bytes = client_bytes, total_bytes
        self.held: dict[str, int] = defaultdict(int)

    @contextmanager
    def hold(self, client: str, size: int) -> Iterator[None]:
        """Hold ``size`` bytes within the context.

        Raises:
            LimitError: If a limit would be exceeded (429).
        """
        if self.held[client] + size > self.client_bytes or sum(self.held.values()) + size > self.total_bytes:
            self._drop(client, 0)
            raise LimitError(429, 'Too much is being sent to this page: wait until it has arrived, then try again.')
        self.held[client] += size
        try:
            yield
        finally:
            self._drop(client, size)

    def _drop(self, client: str, size: int) -> None:
        self.held[client] -= size
        if not self.held[client]:
            del self.held[client]


class Tries:
    """Counts the attempts of each client, such as passwords, within a sliding time window.

    Args:
        most: Limit on the attempts of one client.
        seconds: Length of the window.
        clock: Returns the time in seconds.
    """

    def __init__(self, most: int = 10, seconds: float = 300, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self.seconds, self.clock = most, seconds, clock
        self.times: dict[str, deque[float]] = {}

    def take(self, client: str) -> None:
        """Count an attempt.

        Raises:
            LimitError: If there were too many (429).
        """
        now = self.clock()
        for other in [other for other, times in self.times.items() if times[-1] <= now - self.seconds]:
            del self.times[other]
        times = self.times.setdefault(client, deque(maxlen=self.most))
        if len(times) == self.most and times[0] > now - self.seconds:
            raise LimitError(429, f'Too many attempts: wait {self.seconds / 60:.0f} minutes.')
        times.append(now)

    def forget(self, client: str) -> None:
        """Forget a client's attempts, because one succeeded."""
        self.times.pop(client, None)


@contextmanager
def time_limit(seconds: float, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Limit the computing time of models within the context.

    A thread cannot be stopped from outside, so every module checks the clock before its forward pass. Only one
    computation at a time is supported.

    Raises:
        LimitError: From the forward pass of a module, once the time is over (413).
    """
    end = clock() + seconds

    def look(module: object, inputs: object) -> None:
        if clock() > end:
            raise LimitError(413, f'this takes longer than {seconds:g} s: use fewer words.')

    hook = register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        hook.remove()
