"""Start the worker processes of a pool so that none of them outlives it."""

from __future__ import annotations

import os
import signal
import threading
import time


def end_with_parent(parent: int) -> None:
    """Let this process exit within a second of its parent: the workers of a killed pool would wait forever.

    Args:
        parent: The parent's process ID.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def start_worker(parent: int) -> None:
    """Let the parent handle Ctrl-C, and exit with it; an initializer of ``ProcessPoolExecutor``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(parent)
