"""The train, val and test lists of small datasets without official ones: a rule over the numbers of the photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .originals import folder

PARTS = ('train',) * 6 + ('val',) + ('test',) * 3  # by the last digit of a number


def split_by_number(names: Sequence[str], numbers: Sequence[int]) -> dict[str, list[str]]:
    """Split names by the last digit of their numbers: 0 to 5 train, 6 val, 7 to 9 test.

    Examples:
        >>> split_by_number(['a', 'b', 'c', 'd'], [5, 6, 10, 19])
        {'train': ['a', 'c'], 'val': ['b'], 'test': ['d']}
    """
    lists: dict[str, list[str]] = {part: [] for part in dict.fromkeys(PARTS)}
    for name, number in zip(names, numbers, strict=True):
        lists[PARTS[number % 10]].append(name)
    return lists


def check_names(path: Path, ending: str, names: Sequence[str], noun: str, advice: str, others: bool = False) -> None:
    """Check that a folder holds exactly the files of a split.

    Args:
        path: The folder.
        ending: The ending of each file, which follows the name.
        names: The names of the split.
        noun: What the files are, for messages.
        advice: What to do about a fault.
        others: Whether the folder may hold further files with this ending.

    Raises:
        FileNotFoundError: If the folder does not exist, or files are missing.
        ValueError: If the folder holds files that the split does not know.
    """
    found = {file.name.removesuffix(ending) for file in folder(path, advice).iterdir() if file.name.endswith(ending)}
    missing = [name for name in names if name not in found]
    if missing:
        raise FileNotFoundError(
            f'{path} lacks {len(missing):,} of {len(names):,} {noun}, first {missing[0]}{ending}: {advice}'
        )
    unknown = sorted(found.difference(names))
    if unknown and not others:
        raise ValueError(
            f'{path} holds {len(unknown):,} {noun} that the split does not know, first {unknown[0]}{ending}: {advice}'
        )
