"""Start the worker processes of a pool so that none of them outlives it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time


def end_with_parent() -> None:
    """Let this process exit within a second of its parent: the workers of a killed pool would wait forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        while os.getppid() == parent.pid:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def start_worker() -> None:
    """Let the parent handle Ctrl-C, and exit with it; an initializer of ``ProcessPoolExecutor``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
