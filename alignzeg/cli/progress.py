"""Progress of a job: a bar on a terminal, and now and then a line in a log."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from .output import complain, printable

EVERY = 60.0  # seconds between two lines
PATIENCE = 3.0  # seconds after which the windows of one picture are shown


class Rate(ProgressColumn):
    """Pictures per second, or seconds per picture."""

    def render(self, task: Task) -> Text:
        """Return the cell of a task."""
        return Text(rate(task.speed) if task.speed else '', style='progress.data.speed')


def rate(speed: float) -> str:
    """Format a speed in items per second."""
    return f'{speed:.1f}/s' if speed >= 1 else f'{1 / speed:.1f} s each'


class JobProgress:
    """Shows how many pictures are done, how fast, and how long the rest takes.

    Args:
        total: Number of pictures.
        windows: Whether a picture may take long, because it is predicted window by window.
        shown: Whether this process is the one that shows the progress of all.

    Attributes:
        bars: The bars of rich; disabled without a terminal, and for a single short picture.
    """

    def __init__(self, total: int, windows: bool, shown: bool = True) -> None:
        bars = shown and sys.stderr.isatty() and (total > 1 or windows)
        columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
        self.bars = Progress(*columns, console=Console(stderr=True), transient=True, disable=not bars)
        self._logs = shown and not sys.stderr.isatty()
        self._pictures = self.bars.add_task('Segmenting', total=total, start=False)
        self._tiles: Any = None
        self._total = total
        self._begin = self._said = self._picture = time.monotonic()

    def __enter__(self) -> JobProgress:
        """Show the bars."""
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bars."""
        self.bars.stop()

    def begin(self, total: int) -> None:
        """Start the clock; ``total`` pictures are to be done by all processes together."""
        self._total, self._begin = total, time.monotonic()
        self._said = self._picture = self._begin
        self.bars.update(self._pictures, total=total)
        self.bars.start_task(self._pictures)

    def update(self, done: int) -> None:
        """Show that ``done`` pictures are done."""
        self._picture = time.monotonic()
        self.bars.update(self._pictures, completed=done)
        if self._tiles is not None:
            self.bars.remove_task(self._tiles)
            self._tiles = None
        if done < self._total and self._due():
            speed = done / (time.monotonic() - self._begin)
            left = timedelta(seconds=round((self._total - done) / speed)) if done else 'unknown time'
            complain(f'{done:,} of {self._total:,} pictures, {rate(speed) if done else "none yet"}, {left} left')

    def window(self, name: str, done: int, total: int) -> None:
        """Show that ``done`` of the ``total`` windows of a picture are done, if it takes long."""
        if total < 2 or time.monotonic() - self._picture < PATIENCE:
            return
        if self._tiles is None:
            self._tiles = self.bars.add_task('Windows of one picture', total=total)
        self.bars.update(self._tiles, completed=done)
        if done < total and self._due():
            complain(f'{printable(name)}: {done:,} of {total:,} windows')

    def _due(self) -> bool:
        """Whether it is time for a line in a log."""
        if not self._logs or time.monotonic() - self._said < EVERY:
            return False
        self._said = time.monotonic()
        return True
