"""How much one request, one client and all of them together may take."""

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
LEAST_PIXELS = 4_000_000  # are always taken, because what is known about memory may be wrong
BYTES_PER_PIXEL = 64  # that decoding, converting and drawing take together at their worst
MOST_ANSWER_BYTES = 16 * MIB  # of the overlay, as PNG
REQUEST_SECONDS = 120  # of computing
BODY_SECONDS, BODY_RATE = 20, 50_000  # a body has this long, and one second more for so many bytes
CLIENT_BODIES, TOTAL_BODIES = 3, 8  # largest requests on their way, of one client and of all
CLIENT_PICTURES, TOTAL_PICTURES = 4, 16  # largest pictures that wait for their request


class LimitError(ValueError):
    """Something is too large, or too much at this time.

    Attributes:
        status: HTTP's code for it: 413, 429 or 507.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def client_of(address: str | None) -> str:
    """Who a request is counted for: an IPv4 address, or the /64 that one IPv6 connection usually has to itself."""
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
    """Bytes that this process may still take: of the machine, or of its container if that has less; None if unknown.

    A container's usage includes the page cache. Its inactive part is given back on demand, so it counts as available,
    as it does in ``MemAvailable`` and for Docker and Kubernetes.

    Args:
        root: Where ``proc`` and ``sys`` are.
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
    """A number of a file with lines ``name number``; 0 if it is not there."""
    try:
        return int(dict(line.split() for line in path.read_text().splitlines())[name])
    except (OSError, ValueError, KeyError):
        return 0


def most_pixels(memory: int | None) -> int:
    """Pixels of the largest picture that is decoded: ``LEAST_PIXELS`` to ``MOST_PIXELS``.

    Args:
        memory: Bytes available; a quarter of them is for one picture.
    """
    return MOST_PIXELS if memory is None else min(MOST_PIXELS, max(LEAST_PIXELS, memory // 4 // BYTES_PER_PIXEL))


def body_seconds(length: int) -> float:
    """Seconds within which a request's body of ``length`` bytes has to arrive."""
    return BODY_SECONDS + length / BODY_RATE


class Budget:
    """Bytes that clients hold at a time. Used by one thread.

    Args:
        client_bytes: Of one client.
        total_bytes: Of all.
    """

    def __init__(self, client_bytes: int, total_bytes: int) -> None:
        self.client_bytes, self.total_bytes = client_bytes, total_bytes
        self.held: dict[str, int] = defaultdict(int)

    @contextmanager
    def hold(self, client: str, size: int) -> Iterator[None]:
        """Hold ``size`` bytes for a while.

        Raises:
            LimitError: If that is too much, 429.
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
    """Counts what each client tries, such as passwords, within a sliding window of time.

    Args:
        most: Tries of one client.
        seconds: Length of the window.
        clock: Gives seconds.
    """

    def __init__(self, most: int = 10, seconds: float = 300, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self.seconds, self.clock = most, seconds, clock
        self.times: dict[str, deque[float]] = {}

    def take(self, client: str) -> None:
        """Count a try.

        Raises:
            LimitError: If there were too many, 429.
        """
        now = self.clock()
        for other in [other for other, times in self.times.items() if times[-1] <= now - self.seconds]:
            del self.times[other]
        times = self.times.setdefault(client, deque(maxlen=self.most))
        if len(times) == self.most and times[0] > now - self.seconds:
            raise LimitError(429, f'Too many tries: wait {self.seconds / 60:.0f} minutes.')
        times.append(now)

    def forget(self, client: str) -> None:
        """Forget a client's tries, because one was right."""
        self.times.pop(client, None)


@contextmanager
def time_limit(seconds: float, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """End what models compute in the meantime with an error once the time is over.

    A thread cannot be stopped from outside, so every module looks at the clock before its forward pass. For one
    computation at a time.

    Raises:
        LimitError: From within, 413.
    """
    end = clock() + seconds

    def look(module: object, inputs: object) -> None:
        if clock() > end:
            raise LimitError(413, f'this takes longer than {seconds:g} s: give fewer words.')

    hook = register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        hook.remove()
