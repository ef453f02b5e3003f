"""Where what was computed once is kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$MMSEG_ALIGNZEG_CACHE`` or ``~/.cache/mmseg_alignzeg``."""
    return Path(os.environ.get('MMSEG_ALIGNZEG_CACHE', '~/.cache/mmseg_alignzeg')).expanduser()
