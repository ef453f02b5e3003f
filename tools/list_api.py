"""Write ``docs/api.md``: every public name of the packages, with the first line of its documentation."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import mmseg_alignzeg  # noqa: F401  (registers everything)
from mmseg_alignzeg.files import write_text

PAGE = Path(__file__).parents[1] / 'docs/api.md'
MODULES = (
    'alignzeg.apis',
    'alignzeg.exchange',
    'alignzeg.analysis',
    'alignzeg.web',
    'mmseg_alignzeg.models',
    'mmseg_alignzeg.models.losses',
    'mmseg_alignzeg.datasets',
    'mmseg_alignzeg.evaluation',
    'mmseg_alignzeg.engine',
    'mmseg_alignzeg.visualization',
)
HEADER = """\
# Public names

Written by `tools/list_api.py` from the `__all__` of each module. Models, losses, datasets, transforms, metrics, hooks
and loops are also registered with mmseg; a config names them with `type='NAME'` after
`custom_imports = dict(imports=['mmseg_alignzeg'])`. The docstrings give shapes, units and errors: `python -m pydoc
mmseg_alignzeg.models.AlignZeg`. Both packages have type hints (`py.typed`). Names that start with `_`, or that are not
listed here, may change in any release.
"""


def first_line(thing: object) -> str:
    """Return the first line of a docstring, as Markdown."""
    lines = (inspect.getdoc(thing) or '').splitlines() or ['']
    return re.sub(r':\w+:`~?(?:\w+\.)*(\w+)`', r'`\1`', lines[0]).replace('``', '`').replace('|', '\\|')


def page() -> str:
    """Return the Markdown of the page."""
    parts = [HEADER]
    for name in MODULES:
        module = importlib.import_module(name)
        rows = [
            f'| `{item}` | {first_line(value) if callable(value) else "a constant"} |'
            for item, value in ((item, getattr(module, item)) for item in module.__all__)
        ]
        parts.append(
            f'\n## `{name}`\n\n{first_line(module)}\n\n| name | what it is |\n|---|---|\n' + '\n'.join(rows) + '\n'
        )
    return ''.join(parts)


if __name__ == '__main__':
    write_text(PAGE, page())
