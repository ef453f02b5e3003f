"""Reports of the pictures of a job."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from .large_job import Job
from .output import complain, printable, writer

if TYPE_CHECKING:
    from .progress import JobProgress


class Report:
    """Reports each picture: on stdout or stderr, in the records of the job, and in the progress.

    Args:
        args: The command line.
        job: The job.
        progress: The progress.

    Attributes:
        failed: Number of pictures of this process that failed.
    """

    def __init__(self, args: argparse.Namespace, job: Job, progress: JobProgress) -> None:
        self.json = args.json
        self.job = job
        self.progress = progress
        self.emit = writer(args, progress.bars)
        self.failed = 0

    def success(self, content: dict[str, Any], text: str) -> None:
        """Report what was found in a picture, whose files are written."""
        self.job.note(content)
        self.emit(json.dumps(content) if self.json else text)

    def failure(self, name: str, message: str) -> None:
        """Report which picture failed and why."""
        self.failed += 1
        complain(f'failed: {printable(message if name in message else f"{name} {message}")}')
        content = {'image': name, 'error': message}
        self.job.note(content)
        if self.json:
            self.emit(json.dumps(content))

    def seen(self) -> None:
        """Count a picture of this process."""
        self.progress.update(self.job.team.add('seen'))

    def look(self) -> None:
        """Show what the other processes have done."""
        self.progress.update(self.job.team.add('seen', 0))
