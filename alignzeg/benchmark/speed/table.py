"""Results of a benchmark: medians with their range, ratios of pairs, a Markdown table, and a CSV file."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmseg_alignzeg.files import whole_file

from ..table import pipe_table
from .rows import MODELS

FIELDS = ('row', 'label', 'setup', 'model', 'values', 'memory_mb')
HEADINGS = ('', 'AlignZeg', "mmseg's SAN", 'ratio', 'AlignZeg, peak MB', 'SAN, peak MB', 'ratio')
ABSENT = '-'


@dataclass(frozen=True)
class Spread:
    """Median and range of measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        median, low, high = map(shown, (self.median, self.low, self.high))
        return median if low == high else f'{median} ({low}–{high})'


@dataclass(frozen=True)
class Result:
    """The measurements of one row.

    Attributes:
        row: Name of the row.
        label: Description, with the unit of the values.
        setup: Device, threads and version of torch.
        values: Measurements by model, in order; the i-th ones of both models were taken one after the other.
        memory_mb: Peak memory by model.
    """

    row: str
    label: str
    setup: str
    values: Mapping[str, Sequence[float]]
    memory_mb: Mapping[str, float] = field(default_factory=dict)

    def ratio(self) -> Spread | None:
        """Return AlignZeg / SAN over pairs; of the medians, if their numbers differ; None if one is missing."""
        ours, theirs = (self.values.get(name, ()) for name in MODELS)
        if not ours or not theirs:
            return None
        if len(ours) == len(theirs):
            return Spread.of([a / b for a, b in zip(ours, theirs, strict=True)])
        return Spread.of([statistics.median(ours) / statistics.median(theirs)])

    def cells(self) -> list[str]:
        """Return the cells of the row in the table."""
        values = [str(Spread.of(self.values[name])) if self.values.get(name) else ABSENT for name in MODELS]
        memory = [shown(self.memory_mb[name]) if name in self.memory_mb else ABSENT for name in MODELS]
        share = self.memory_mb[MODELS[0]] / self.memory_mb[MODELS[1]] if set(MODELS) <= set(self.memory_mb) else None
        ratio = self.ratio()
        return [
            self.label,
            *values,
            ABSENT if ratio is None else str(ratio),
            *memory,
            ABSENT if share is None else shown(share),
        ]


def shown(value: float) -> str:
    """Format with three significant digits, or as a whole number from 100."""
    return f'{value:,.0f}' if abs(value) >= 99.95 else f'{value:#.3g}'


def markdown(results: Sequence[Result]) -> str:
    """Format the results as a Markdown table, with what was measured where above it."""
    setups = '; '.join(dict.fromkeys(result.setup for result in results))
    note = f'{setups}. Median (minimum–maximum). Ratios are AlignZeg / SAN, of pairs of steps.\n\n'
    return note + pipe_table(HEADINGS, [result.cells() for result in results])


def write(results: Iterable[Result], path: Path) -> None:
    """Write one line per row and model."""
    with whole_file(path) as part, part.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator='\n')
        writer.writeheader()
        for result in results:
            for name in MODELS:
                values = ' '.join(f'{value:.5g}' for value in result.values.get(name, ()))
                memory = f'{result.memory_mb[name]:.0f}' if name in result.memory_mb else ''
                line = (result.row, result.label, result.setup, name, values, memory)
                writer.writerow(dict(zip(FIELDS, line, strict=True)))


def read(path: Path) -> list[Result]:
    """Read the file of :func:`write`."""
    found: dict[str, Result] = {}
    with path.open(newline='', encoding='utf-8') as file:
        for line in csv.DictReader(file):
            result = found.setdefault(line['row'], Result(line['row'], line['label'], line['setup'], {}, {}))
            if line['values']:
                result.values[line['model']] = [float(value) for value in line['values'].split()]  # type: ignore[index]
            if line['memory_mb']:
                result.memory_mb[line['model']] = float(line['memory_mb'])  # type: ignore[index]
    return list(found.values())
