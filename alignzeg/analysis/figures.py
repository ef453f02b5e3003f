"""SVG figures for a web page, which use the page's light or dark colours."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Drawn in these colours, which :func:`_svg` replaces by variables of the page's style sheet.
INK, GRID = '#010101', '#020202'
SEEN, UNSEEN, HARMONIC, OTHER = '#030303', '#040404', '#050505', '#060606'
VARIABLES = {
    INK: 'var(--ink)',
    GRID: 'var(--grid)',
    SEEN: 'var(--seen)',
    UNSEEN: 'var(--unseen)',
    HARMONIC: 'var(--harmonic)',
    OTHER: 'var(--other)',
}
STYLE: dict[Any, Any] = {
    'svg.fonttype': 'none',  # keep text as text
    'svg.hashsalt': 'alignzeg',
    'font.family': 'sans-serif',
    'font.size': 10,
    'axes.edgecolor': GRID,
    'axes.labelcolor': INK,
    'axes.titlecolor': INK,
    'axes.titlesize': 10,
    'axes.titlelocation': 'left',
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'axes.axisbelow': True,
    'grid.color': GRID,
    'grid.linewidth': 0.6,
    'text.color': INK,
    'xtick.color': INK,
    'ytick.color': INK,
    'legend.frameon': False,
    'lines.linewidth': 1.8,
    'lines.markersize': 5,
}
# Measures as (key, label, colour, marker): markers distinguish them without colour.
MEASURES = (
    ('mIoU_seen', 'mIoU seen', SEEN, 's'),
    ('hIoU', 'hIoU', HARMONIC, 'o'),
    ('mIoU_unseen', 'mIoU unseen', UNSEEN, '^'),
)
Rows = Sequence[dict[str, Any]]


def gamma_figure(curve: Rows, without: dict[str, Any], marked: float) -> str:
    """Draw the measures over γ.

    Args:
        curve: Rows of PBC, sorted by γ.
        without: The row without PBC, drawn as dotted lines.
        marked: γ of a vertical line.
    """
    with mpl.rc_context(STYLE):
        figure, (axis,) = _figure(1)
        _measures_over(axis, curve, 'gamma')
        for key, _, colour, _ in MEASURES:
            if key in without:
                axis.axhline(without[key], color=colour, linestyle=':', linewidth=1.4)
        _mark(axis, marked, f'γ = {marked:g}')
        axis.set(xlabel='γ  (1 corrects nothing)', ylabel='percent')
        _legend(axis, 'dotted: without PBC')
        return _svg(figure)


def stacking_figure(plain: Rows, corrected: Rows, gammas: Rows, marked: float | None) -> str:
    """Draw calibrated stacking: the measures over its constant, and its trade-off in comparison with that of γ.

    Args:
        plain: Rows without PBC, sorted by constant.
        corrected: Rows with PBC, sorted by constant; empty for a model without PBC.
        gammas: Rows of PBC, sorted by γ; empty for a model without PBC.
        marked: Constant of a vertical line, the value in the literature.
    """
    with mpl.rc_context(STYLE):
        figure, (left, right) = _figure(2)
        _measures_over(left, plain, 'constant')
        for key, _, colour, _ in MEASURES:
            _line(left, corrected, 'constant', key, color=colour, linestyle='--', linewidth=1.2)
        _mark(left, marked, 'literature')
        left.set(xlabel='constant taken from seen classes', ylabel='percent')
        _legend(left, 'dashed: on top of PBC' if corrected else None)

        curves = [
            (gammas, 'PBC, all γ', HARMONIC, 'o', '-'),
            (plain, 'stacking, all constants', OTHER, 'D', '-'),
            (corrected, 'stacking on top of PBC', INK, '.', '--'),
        ]
        for rows, label, colour, marker, style in curves:
            points = [row for row in rows if 'hIoU' in row]
            if points:
                _line(right, points, 'mIoU_unseen', 'mIoU_seen', color=colour, marker=marker, linestyle=style,
                      linewidth=1.2, label=label)  # fmt: skip
        start = [row for row in plain if not row['constant'] and 'hIoU' in row]
        if start:
            _line(right, start, 'mIoU_unseen', 'mIoU_seen', color=INK, marker='*', markersize=13, linestyle='none',
                  label='neither')  # fmt: skip
        _look_at_the_best(right, [*gammas, *plain, *corrected])
        _harmonic_contours(right)
        right.set(xlabel='mIoU unseen (percent)', ylabel='mIoU seen (percent)')
        _legend(right)
        return _svg(figure)


def histogram_figure(groups: Sequence[tuple[str, dict[str, Any]]], xlabel: str, marked: float | None = None) -> str:
    """Draw histograms over [0, 1], one panel per group.

    Args:
        groups: Heading, and result of :func:`~alignzeg.analysis.summary.histogram`.
        xlabel: Name of the quantity.
        marked: Value of a vertical line, if any.
    """
    colours = dict(zip(('seen', 'unseen'), (SEEN, UNSEEN), strict=True))
    with mpl.rc_context(STYLE):
        figure, axes = _figure(len(groups), height=2.5)
        for axis, (heading, group) in zip(axes, groups, strict=True):
            counts = np.array(group['histogram'])
            edges = np.linspace(0, 1, len(counts) + 1)
            name = next((name for name in ('unseen', 'seen') if name in heading), '')
            axis.bar(
                edges[:-1], 100 * counts / max(counts.sum(), 1), width=np.diff(edges), align='edge',
                color=colours.get(name, OTHER), edgecolor=colours.get(name, OTHER), alpha=0.75,
            )  # fmt: skip
            mean = f', mean {group["mean"]:.2f}' if group['mean'] is not None else ''
            axis.set(xlim=(0, 1), xlabel=xlabel, title=f'{heading}\n{group["count"]:,}{mean}')
            axis.grid(axis='x', visible=False)
            _mark(axis, marked, 'γ', bottom=0.88)
        axes[0].set_ylabel('percent of each group')
        return _svg(figure)


def _figure(panels: int, height: float = 3.6) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(9.6 if panels > 1 else 6.4, height), layout='constrained')
    FigureCanvasSVG(figure)
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def _line(axis: Axes, rows: Rows, x: str, y: str, **style: Any) -> None:
    rows = [row for row in rows if y in row]
    axis.plot([row[x] for row in rows], [row[y] for row in rows], **style)


def _measures_over(axis: Axes, rows: Rows, x: str) -> None:
    for key, label, colour, marker in MEASURES:
        if any(key in row for row in rows):
            _line(axis, rows, x, key, color=colour, marker=marker, label=label)


def _mark(axis: Axes, value: float | None, text: str, bottom: float = 0.0) -> None:
    """Draw a vertical line with a text beside it, at a height in axes coordinates."""
    if value is not None:
        axis.axvline(value, color=INK, linewidth=1)
        axis.annotate(
            text, (value, bottom), xycoords=('data', 'axes fraction'), xytext=(4, 4), textcoords='offset points',
            fontsize=9,
        )  # fmt: skip


def _legend(axis: Axes, note: str | None = None) -> None:
    """Draw the legend above the axes, where it hides no curve."""
    handles, labels = axis.get_legend_handles_labels()
    if note:
        handles, labels = [*handles, mpl.lines.Line2D([], [], linestyle='none')], [*labels, note]
    axis.legend(handles, labels, loc='lower left', bbox_to_anchor=(0, 1), ncols=2, fontsize=9, borderaxespad=0.2)


def _look_at_the_best(axis: Axes, rows: Rows, depth: float = 10.0) -> None:
    """Limit the axes to settings with a hIoU close to the best, because poor settings would compress the rest."""
    scores = [row.get('hIoU', 0.0) for row in rows]
    near = [row for row, score in zip(rows, scores, strict=True) if score > max(scores) - depth]
    for key, limit in (('mIoU_unseen', axis.set_xlim), ('mIoU_seen', axis.set_ylim)):
        values = [row[key] for row in near if key in row] or [0.0, 100.0]
        margin = 0.08 * (max(values) - min(values)) + 0.5
        limit(min(values) - margin, max(values) + margin)


def _harmonic_contours(axis: Axes) -> None:
    """Draw lines of equal hIoU behind the curves."""
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    x, y = np.meshgrid(np.linspace(max(left, 0.1), right, 80), np.linspace(max(bottom, 0.1), top, 80))
    lines = axis.contour(x, y, 2 * x * y / (x + y), levels=5, colors=GRID, linewidths=1)
    axis.clabel(lines, fontsize=8, fmt='hIoU %g', colors=INK)
    axis.grid(visible=False)


def _svg(figure: Figure) -> str:
    """Convert a figure to an <svg> element with the page's colours."""
    stream = StringIO()
    figure.savefig(stream, format='svg', transparent=True, metadata={'Date': None, 'Creator': None})
    text = stream.getvalue()
    text = text[text.index('<svg') :]
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return text
