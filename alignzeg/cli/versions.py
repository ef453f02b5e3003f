"""One check of ``alignzeg doctor``, and the checks of versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement

DISTRIBUTION = 'mmseg_alignzeg'


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: Name of what was checked.
        status: ``ok``, ``note`` (optional, or good to know) or ``PROBLEM``.
        found: The finding, in one line.
        fix: What to do about it, or ''.
    """

    name: str
    status: str
    found: str
    fix: str = ''


def requirements_of(extra: str, requirements: Sequence[Requirement]) -> list[Requirement]:
    """Return the requirements that an extra adds; those without any extra for ''."""
    return [
        requirement
        for requirement in requirements
        if (requirement.marker is None or requirement.marker.evaluate({'extra': extra}))
        and not (extra and (requirement.marker is None or requirement.marker.evaluate({'extra': ''})))
    ]


def check_version(requirement: Requirement, purpose: str = '', install: str = '') -> Check:
    """Check that a package is installed in a tested version. With a ``purpose`` the package is optional."""
    name, wanted = requirement.name, str(requirement.specifier)
    bad = 'note' if purpose else 'PROBLEM'
    suffix = f' ({purpose})' if purpose else ''
    fix = install or f'run: pip install "{name}{wanted}"'
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, bad, f'not installed{suffix}', fix)
    if not requirement.specifier.contains(version, prereleases=True):
        return Check(name, bad, f'{version}, outside the tested range {wanted}{suffix}', fix)
    return Check(name, 'ok', f'{version}{f" (tested: {wanted})" if wanted else ""}')


def one_line(error: Exception) -> str:
    """Format the type and the message of an error as one line."""
    return f'{type(error).__name__}: {" ".join(str(error).split())}'
