"""mim as a command, and the scores that its tests write."""

from __future__ import annotations

import json
import sys
from pathlib import Path

#: mim of this very environment, whatever comes first on PATH.
MIM = (sys.executable, '-m', 'mim')


def newest_scores(work_dir: Path) -> dict[str, float] | None:
    """Scores of the last test in a work directory, if there was one."""
    files = sorted(work_dir.glob('*/*.json'), key=lambda path: path.stat().st_mtime)
    return json.loads(files[-1].read_text()) if files else None
