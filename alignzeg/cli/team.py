"""The processes of a job: its pictures are divided among them, and their counts are added."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

PAUSE = 0.5  # seconds between two looks at the other processes

Item = TypeVar('Item')


class Team:
    """The processes that share a job, started by ``torchrun`` or with the same environment variables.

    They exchange only counts, through torch's key-value store; pictures are divided by position in the list, which
    every process makes for itself.

    Args:
        environment: ``RANK`` and ``WORLD_SIZE``; with several processes also ``MASTER_ADDR`` and ``MASTER_PORT``.

    Attributes:
        rank: Position of this process, 0 ≤ rank < size.
        size: Number of processes; 1 without such variables.

    Raises:
        ValueError: If the variables are incomplete or contradict each other.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        given = [environment.get(name, default) for name, default in (('RANK', '0'), ('WORLD_SIZE', '1'))]
        if not all(map(str.isdecimal, given)) or int(given[0]) >= int(given[1]):
            raise ValueError(
                f'RANK={given[0]} and WORLD_SIZE={given[1]} do not fit: 0 ≤ RANK < WORLD_SIZE is expected.'
            )
        self.rank, self.size = map(int, given)
        missing = [name for name in ('MASTER_ADDR', 'MASTER_PORT') if name not in environment]
        if self.size > 1 and missing:
            raise ValueError(f'WORLD_SIZE={self.size}, but {missing[0]} is not set: start the processes with torchrun.')
        self.local_rank = int(environment.get('LOCAL_RANK', self.rank))
        self._counts: dict[str, int] = {}
        self._store: Any = None

    @property
    def alone(self) -> bool:
        """Whether this is the only process."""
        return self.size == 1

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process's part of a list."""
        return items[self.rank :: self.size]

    def device(self, asked: str | None) -> str | None:
        """Return the device for this process: with several, a GPU of its machine each, unless one is asked for."""
        if asked is not None or self.alone:
            return asked
        import torch

        count = torch.cuda.device_count()
        return f'cuda:{self.local_rank % count}' if count else None

    def add(self, name: str, amount: int = 1) -> int:
        """Add to a count of the team, and return its new value."""
        if self.alone:
            self._counts[name] = self._counts.get(name, 0) + amount
            return self._counts[name]
        if self._store is None:
            import torch.distributed

            self._store = next(torch.distributed.rendezvous('env://'))[0]
        return self._store.add(f'alignzeg/{name}', amount)

    def meet(self, name: str, watch: Callable[[], None] | None = None) -> None:
        """Wait until every process has called this with the same name; ``watch`` is called while waiting."""
        self.add(name)
        while self.add(name, 0) < self.size:
            if watch is not None:
                watch()
            time.sleep(PAUSE)

    def together(self, counts: Mapping[str, int], watch: Callable[[], None]) -> dict[str, int]:
        """Wait until every process has finished, and return the sums of their counts, and of ``seen``.

        Args:
            counts: Counts of this process.
            watch: Called while waiting.
        """
        for name, amount in counts.items():
            self.add(name, amount)
        self.meet('finished', watch)
        return {name: self.add(name, 0) for name in (*counts, 'seen')}

    def leave(self) -> None:
        """Wait at the end; the process that keeps the store leaves last."""
        self.meet('end')
        self.add('left')
        while self.rank == 0 and self.add('left', 0) < self.size:
            time.sleep(PAUSE / 10)
