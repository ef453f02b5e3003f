"""The configs that are installed with the package."""

from __future__ import annotations

from pathlib import Path

INSTALLED = Path(__file__).parents[2] / 'mmseg_alignzeg/.mim'


def shipped(name: str) -> Path:
    """Return a file such as ``configs/alignzeg_voc.py``: that of the current folder, or else the installed one."""
    own = Path(name)
    return own if own.exists() else INSTALLED / name
