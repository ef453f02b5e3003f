"""A runner that says what is missing before it starts, and ends with one line where the user can mend the cause."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmseg.registry import RUNNERS

from ..printable import printable
from .missing_parts import missing_data, missing_parts

PACKAGE = Path(__file__).parents[1]


@RUNNERS.register_module()
class CheckedRunner(Runner):
    """MMEngine's runner for `mim train` and `mim test`, with short errors: ``runner_type='CheckedRunner'``.

    Before anything is built, everything that is missing is listed: weights, GPUs and data. With ``load_from``, as in
    `mim test`, these are the data of ``test_dataloader``, unless nothing is missing for a training that starts from
    these weights. An error in a config, and an error that this
    package raises, end the process with code 2 and one line; the traceback is in the log file of the run.
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> Runner:
        """Build a runner.

        Raises:
            SystemExit: If something is missing, or the config is wrong.
        """
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmseg')):
            is_test = cfg.get('load_from') and missing_data(cfg, ('train', 'val'))
            lines = missing_parts(cfg, ('test',) if is_test else ('train', 'val'))
        if lines:
            stop(*lines)
        try:
            return super().from_cfg(cfg)
        except Exception as error:  # building from a config may raise anything
            _stop_for(error)

    def train(self) -> Any:
        """Train, as MMEngine does.

        Raises:
            SystemExit: After an error of this package.
        """
        return _plainly(super().train)

    def test(self) -> dict[str, float]:
        """Test, as MMEngine does.

        Raises:
            SystemExit: After an error of this package.
        """
        return _plainly(super().test)


def _plainly(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:
        if not _raised_here(error):
            raise
        _stop_for(error)


def _raised_here(error: Exception) -> bool:
    """Return whether this package raised an error on purpose, in this process or in one that loads data."""
    if not isinstance(error, (ValueError, OSError, RuntimeError, TypeError)):
        return False
    lines = [line for line in str(error).splitlines() if line.startswith('  File "')]  # of torch's data workers
    place = lines[-1].split('"')[1] if lines else traceback.extract_tb(error.__traceback__)[-1].filename
    return PACKAGE in Path(place).parents


def _stop_for(error: Exception) -> NoReturn:
    """Write the traceback to the log file, print the error in one line, and end the process."""
    text = ''.join(traceback.format_exception(error))
    log = ''
    for handler in MMLogger.get_current_instance().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.emit(logging.LogRecord('mmengine', logging.ERROR, '', 0, text, None, None))
            log = f' (traceback: {os.path.relpath(handler.baseFilename)})'
    message = str(error)
    if '  File "' in message:  # torch adds the traceback of a data worker
        message = message.rstrip().splitlines()[-1].partition(': ')[2]
    stop(f'{type(error).__name__}: {" ".join(message.split())}{log}', every_rank=True)


def stop(*lines: str, every_rank: bool = False) -> NoReturn:
    """Print errors, one line each, and end the process with code 2.

    Args:
        *lines: The messages.
        every_rank: Whether each rank of a distributed run prints them, not only the first.

    Raises:
        SystemExit: Always.
    """
    sys.stdout.flush()
    if every_rank or _rank() == 0:
        for line in lines:
            print(printable(line if line.partition(':')[0].endswith('Error') else f'Error: {line}'), file=sys.stderr)
    sys.exit(2)


def _rank() -> int:
    """Return the rank of a process that has not joined the others yet."""
    return int(os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')))
