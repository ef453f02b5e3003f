"""The mim command, and the scores written by its tests."""

from __future__ import annotations

import json
import sys
from pathlib import Path

#: mim of the current environment, independent of PATH.
MIM = (sys.executable, '-m', 'mim')


def newest_scores(work_dir: Path) -> dict[str, float] | None:
    """Return the scores of the last test in a work directory; None if there is none."""
    files = sorted(work_dir.glob('*/*.json'), key=lambda path: path.stat().st_mtime)
    return json.loads(files[-1].read_text()) if files else None
