"""Make MMSegmentation importable with an MMCV without compiled operators (``mmcv-lite``, or OneDL's sources)."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import NoReturn

_EXT = 'mmcv._ext'


def enable_mmcv_lite() -> bool:
    """Import ``mmcv.ops`` even if MMCV has no compiled extension.

    ``import mmseg.models`` needs ``mmcv.ops``, which loads the names of its compiled operators from ``mmcv._ext`` on
    import. MMCV wheels with that extension exist for few versions of torch, and AlignZeg calls only the pure-Python
    ``mmcv.ops.point_sample``. Therefore, placeholders provide these names while ``mmcv.ops`` is imported: its Python
    parts work, and a compiled operator raises an ``ImportError`` when called. A compiled MMCV is not changed.

    Returns:
        True if placeholders were used, False if ``mmcv.ops`` was already imported or MMCV is compiled.

    Raises:
        ImportError: If MMCV is not installed.
    """
    if 'mmcv.ops' in sys.modules:
        return False
    if importlib.util.find_spec('mmcv') is None:
        raise ImportError('MMCV is not installed: run `pip install mmcv-lite==2.1.0` (a wheel, no compiler needed).')
    if importlib.util.find_spec(_EXT) is not None:
        return False
    sys.modules[_EXT] = _PlaceholderExtension(_EXT)
    try:
        importlib.import_module('mmcv.ops')
    finally:
        # If it remained, MMEngine would assume that the operators are compiled (`mmcv_full_available`).
        del sys.modules[_EXT]
    return True


class _PlaceholderExtension(ModuleType):
    """Placeholder for ``mmcv._ext``: every name is an operator that raises an ImportError when called."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith('__'):  # the import system looks up dunder attributes, which must be missing
            raise AttributeError(name)

        def missing_operator(*args: object, **kwargs: object) -> NoReturn:
            raise ImportError(
                f'`{name}` is a compiled MMCV operator, and the installed MMCV has none. To use it, install a compiled '
                'MMCV (`mim install "mmcv>=2.0.0rc4,<2.2.0"`, or `mim install onedl-mmcv` with the OneDL forks).'
            )

        missing_operator.__name__ = name
        return missing_operator
