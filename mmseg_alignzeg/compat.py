"""Let MMSegmentation import beside an MMCV without compiled operators (``mmcv-lite``)."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import NoReturn

_EXT = 'mmcv._ext'


def enable_mmcv_lite() -> bool:
    """Import ``mmcv.ops`` even where MMCV has no compiled extension.

    ``import mmseg.models`` needs ``mmcv.ops``, which reads the names of its compiled operators from ``mmcv._ext`` on
    import. A wheel of MMCV with that extension exists for few versions of torch; AlignZeg calls only the pure-Python
    ``mmcv.ops.point_sample``. So the names are lent to ``mmcv.ops`` while it is imported: its Python parts work, and
    a compiled operator raises an ``ImportError`` when called. A compiled MMCV is left untouched.

    Returns:
        True when placeholders were used, False when ``mmcv.ops`` was there already or MMCV is compiled.

    Raises:
        ImportError: If MMCV is not installed at all.
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
        # Left in place, it would make MMEngine believe that the operators are compiled (`mmcv_full_available`).
        del sys.modules[_EXT]
    return True


class _PlaceholderExtension(ModuleType):
    """Stands for ``mmcv._ext``: every name is an operator that says why it cannot run."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith('__'):  # the import system asks for dunder attributes and must hear "none"
            raise AttributeError(name)

        def missing_operator(*args: object, **kwargs: object) -> NoReturn:
            raise ImportError(
                f'`{name}` is a compiled MMCV operator, and the installed MMCV (mmcv-lite) has none: '
                'install a compiled one (`mim install "mmcv>=2.0.0rc4,<2.2.0"`) to use it.'
            )

        missing_operator.__name__ = name
        return missing_operator
