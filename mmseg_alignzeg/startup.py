"""Whether Python was started for this package's own command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def is_own_command(argv: Sequence[str], orig_argv: Sequence[str]) -> bool:
    """Whether the program is ``alignzeg`` or ``python -m mmseg_alignzeg``.

    Args:
        argv: ``sys.argv``; while Python looks for the module of ``-m``, it begins with ``-m``.
        orig_argv: ``sys.orig_argv``.
    """
    if argv[:1] == ['-m']:
        return 'mmseg_alignzeg' in orig_argv and orig_argv[orig_argv.index('mmseg_alignzeg') - 1] == '-m'
    return bool(argv) and Path(argv[0]).name in ('alignzeg', 'alignzeg.exe')
