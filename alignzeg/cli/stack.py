"""Which OpenMMLab packages are installed: the upstream ones, the OneDL forks, or a mixture that cannot work."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from importlib import metadata

from packaging.requirements import Requirement

from .versions import DISTRIBUTION, Check, check_version, one_line, requirements_of

UPSTREAM = ('mmcv', 'mmcv-lite', 'mmengine', 'mmsegmentation', 'mmdet', 'openmim')
FORKS = ('onedl-mmcv', 'onedl-mmengine', 'onedl-mmsegmentation', 'onedl-mmdetection', 'onedl-mim')
PREFERRED = f'pip install "{DISTRIBUTION}[lite]"'


def check_stack(requirements: Sequence[Requirement]) -> Iterator[Check]:
    """Name the installed stack, find mixtures of packages that write the same folders, and check the versions.

    Args:
        requirements: Those in the metadata of this package, with their extras.
    """
    upstream, forks = installed(UPSTREAM), installed(FORKS)
    if not upstream and not forks:
        yield Check('stack', 'PROBLEM', 'no MMSegmentation is installed', f'run: {PREFERRED} (wheels, no compiler)')
        return
    if upstream and forks:
        fix = (
            f'both write the same folders; run: pip uninstall -y {" ".join((*upstream, *forks))}, then {PREFERRED} or '
            f'pip install "{DISTRIBUTION}[onedl]"'
        )
        yield Check('stack', 'PROBLEM', f'a mixture of upstream ({told(upstream)}) and OneDL ({told(forks)})', fix)
        return
    if {'mmcv', 'mmcv-lite'} <= upstream.keys():
        fix = 'both write the same folder; run: pip uninstall -y mmcv mmcv-lite, then pip install mmcv-lite==2.1.0'
        yield Check('stack', 'PROBLEM', told({name: upstream[name] for name in ('mmcv', 'mmcv-lite')}), fix)
        return
    name, extra = (
        ('OneDL forks', 'onedl') if forks else ('upstream OpenMMLab', 'mmcv' if 'mmcv' in upstream else 'lite')
    )
    yield check_operators(name)
    for requirement in requirements_of(extra, requirements):
        install = 'run: pip uninstall -y mmcv, then pip install mmcv-lite==2.1.0' if requirement.name == 'mmcv' else ''
        yield check_version(requirement, install=install)
    extra = 'onedl-mmdet' if forks else 'mmdet'
    for requirement in requirements_of(extra, requirements):
        yield check_version(requirement, 'only for table 5', f'pip install "{DISTRIBUTION}[{extra}]"')


def check_operators(name: str) -> Check:
    """Report whether MMCV has compiled operators."""
    try:
        compiled = importlib.util.find_spec('mmcv._ext') is not None
    except ModuleNotFoundError:  # MMCV is not installed, which its own line reports
        return Check('stack', 'ok', name)
    except Exception as error:  # looking for it imports mmcv, which may fail in any way
        return Check('stack', 'PROBLEM', f'{name}: {one_line(error)}', 'install the packages of the stack again')
    operators = 'compiled operators' if compiled else 'no compiled operators (none needed)'
    return Check('stack', 'ok', f'{name}, {operators}')


def installed(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of those distributions that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def told(found: dict[str, str]) -> str:
    """Format names and versions."""
    return ', '.join(f'{name} {version}' for name, version in found.items())
