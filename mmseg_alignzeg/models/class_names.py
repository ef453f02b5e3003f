"""Names of classes in prompts: the raw name, a comma-separated list of synonyms, or the phrases of a file."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

COMBINATIONS = ('first', 'mean', 'max')


class ClassNames:
    """Phrases used for a class in prompts.

    Args:
        source: ``'raw'``: the unchanged name, as in most papers. ``'comma'``: a name is a comma-separated list of
            synonyms, as in A-847. Otherwise, the path of a file with lines ``name: phrase, phrase``, or ``'cleaned'``
            for the included file; a class without a line keeps its name.
        combine: Handling of several phrases: ``'first'`` uses only the first, ``'mean'`` the mean of their
            embeddings, ``'max'`` the best score among them; feature expansion uses the first phrase then.

    Raises:
        ValueError: If ``combine`` is unknown, or a line of the file is malformed or repeated.
        FileNotFoundError: If the file does not exist.
    """

    def __init__(self, source: str = 'raw', combine: str = 'first') -> None:
        if combine not in COMBINATIONS:
            raise ValueError(f'combine={combine!r} must be one of {COMBINATIONS}.')
        self.source = source
        self.combine = combine
        self.table = {} if source in ('raw', 'comma') else read_names(source)

    def phrases(self, name: str) -> tuple[str, ...]:
        """Return the phrases of one class, at least one."""
        found = tuple(filter(None, map(str.strip, name.split(',')))) if self.source == 'comma' else self.table.get(name)
        found = found or (name,)
        return found[:1] if self.combine == 'first' else found

    def of(self, classes: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the phrases of every class.

        Raises:
            ValueError: If a file is used and contains none of the classes.
        """
        if self.table and not any(name in self.table for name in classes):
            raise ValueError(
                f'{self.source!r} names none of the {len(classes)} classes ({classes[0]!r}, …); its first name is '
                f"{next(iter(self.table))!r}. Use the file of this dataset, or source='raw'."
            )
        return [self.phrases(name) for name in classes]


def read_names(source: str) -> dict[str, tuple[str, ...]]:
    """Read lines ``name: phrase, phrase``; ``#`` starts a comment line.

    Args:
        source: A path, or ``'cleaned'``.

    Returns:
        Phrases by name, in the order of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: On a line without a name or a phrase, or a name that has two lines.
    """
    shipped = resources.files('mmseg_alignzeg') / 'assets/names/cleaned.txt'
    path = shipped if source == 'cleaned' else Path(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"No file {source!r} with class names: give a path, 'cleaned' (the included file), 'comma' or 'raw'."
        )
    table: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), start=1):
        if not line.strip() or line.startswith('#'):
            continue
        name, _, rest = (part.strip() for part in line.partition(':'))
        phrases = tuple(filter(None, map(str.strip, rest.split(','))))
        if not name or not phrases:
            raise ValueError(f'{source}, line {number}: expected `name: phrase, phrase`, got {line!r}.')
        if name in table:
            raise ValueError(f'{source}, line {number}: {name!r} is already defined on an earlier line.')
        table[name] = phrases
    return table
