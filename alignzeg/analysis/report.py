"""The report: findings, figures and tables as a page, and the same numbers as JSON and CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from mmseg_alignzeg.files import whole_file, write_text

from .figures import gamma_figure, histogram_figure, stacking_figure
from .html import PAGE

Row = dict[str, Any]
HEADINGS = {
    'pAcc': 'pAcc',
    'mIoU': 'mIoU',
    'mIoU_seen': 'mIoU seen',
    'mIoU_unseen': 'mIoU unseen',
    'hIoU': 'hIoU',
    'unseen_as_seen': 'unseen → seen',
}
SHOWN_CLASSES = 40


def write_report(result: Mapping[str, Any], about: Mapping[str, str], folder: Path) -> None:
    """Write ``report.html``, ``analysis.json`` and ``curves.csv``.

    Args:
        result: Result of :meth:`Summary.result`.
        about: Entries of the footer: config, checkpoint, images, date, versions.
        folder: Output folder; created if necessary.
    """
    write_text(folder / 'report.html', render(result, about))
    text = json.dumps({'about': about, **result}, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(folder / 'analysis.json', text + '\n')
    with whole_file(folder / 'curves.csv') as part, part.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, ['setting', 'gamma', 'constant', 'oracle', 'own', *HEADINGS])
        writer.writeheader()
        writer.writerows({'setting': label(row), **row} for row in result['rows'])


def label(row: Row) -> str:
    """Describe a setting."""
    if row['oracle']:
        return 'oracle classes'
    parts = [f'PBC γ={row["gamma"]:g}'] if row['gamma'] is not None else []
    parts += [f'stacking {row["constant"]:g}'] if row['constant'] else []
    return ' + '.join(parts) or 'without PBC'


def measured(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the measures that have values, with their headings."""
    return {key: text for key, text in HEADINGS.items() if any(key in row for row in result['rows'])}


class Curves:
    """The rows of a result, grouped by curve.

    Attributes:
        leading: The measure by which settings are compared.
        plain: The row without any correction.
        gammas: PBC, sorted by γ.
        base: PBC at the γ of comparisons, if there is PBC.
        stacking: Stacking without PBC, sorted by constant; the first may be 0, which is ``plain``.
        both: Stacking in addition to ``base``.
        oracle: Oracle classes.
        own: The setting of the config.
    """

    def __init__(self, result: Mapping[str, Any]) -> None:
        rows: Sequence[Row] = result['rows']
        self.oracle = next(row for row in rows if row['oracle'])
        self.own = next(row for row in rows if row['own'])
        rows = sorted((row for row in rows if not row['oracle']), key=lambda row: (row['gamma'] or 0, row['constant']))
        self.plain = next(row for row in rows if row['gamma'] is None and not row['constant'])
        self.leading = next(key for key in ('hIoU', 'mIoU', 'pAcc') if key in self.plain)
        self.gammas = [row for row in rows if row['gamma'] is not None and not row['constant']]
        self.base = next((row for row in self.gammas if row['gamma'] == result['base']), None)
        self.stacking = [row for row in rows if row['gamma'] is None]
        self.both = [row for row in rows if row['gamma'] == result['base'] and row['gamma'] is not None]

    def best(self, rows: Sequence[Row]) -> Row:
        """Return the first row with the largest leading measure."""
        return max(rows, key=lambda row: row.get(self.leading, 0.0))

    def summary(self) -> list[tuple[str, Row]]:
        """Return the rows of the table at the top, without duplicates."""
        chosen = [(self.plain, '')]
        if self.base is not None:
            chosen += [(self.base, ''), (self.best(self.gammas), 'best')]
        chosen += [(row, 'literature') for row in self.stacking if row['constant'] == 0.1]
        stacked = [self.best(rows) for rows in (self.stacking, self.both) if len(rows) > 1]
        chosen += [(row, 'best') for row in stacked if row['constant']]
        chosen.append((self.own, ''))
        notes: dict[str, list[str]] = {}
        rows = {label(row): row for row, _ in [*chosen, (self.oracle, '')]}
        for row, note in chosen:
            notes.setdefault(label(row), []).extend([note] if note else [])
        return [(f'{name} ({", ".join(notes[name])})' if notes.get(name) else name, row) for name, row in rows.items()]


def render(result: Mapping[str, Any], about: Mapping[str, str]) -> str:
    """Render the page as text."""
    curves = Curves(result)
    summary = curves.summary()
    sections = [
        *_gamma_section(curves),
        *_stacking_section(curves),
        *_masks_section(result['masks'], curves),
        *_indicator_section(result['indicator'], result['base']),
    ]
    page = Environment(autoescape=True, trim_blocks=True).from_string(PAGE)
    return page.render(
        title=f'Analysis of {about["checkpoint"]}',
        subtitle=f'{about["config"]}, {about["images"]} images, {about["classes"]}',
        left_out=result['left_out'],
        columns=measured(result).items(),
        leading=curves.leading,
        top=max(row[curves.leading] for _, row in summary if not row['oracle'] and curves.leading in row),
        bias_shown='unseen_as_seen' in measured(result),
        summary=summary,
        sections=sections,
        confusion=_confusion(result['confusion'], curves),
        everything=[(label(row), row) for row in result['rows']],
        about=about,
    )


def _change(name: str, before: float, after: float) -> str:
    """Return 'raises hIoU from 1.00 to 2.00' or a similar description of a change."""
    if f'{before:.2f}' == f'{after:.2f}':
        return f'leaves {name} at {before:.2f}'
    return f'{"raises" if after > before else "lowers"} {name} from {before:.2f} to {after:.2f}'


def _section(heading: str, figure: str, caption: str, narrow: bool = False) -> list[dict[str, Any]]:
    return [{'heading': heading, 'figure': Markup(figure), 'caption': caption, 'narrow': narrow}]  # nosec B704 (SVG of matplotlib, which escapes texts)


def _gamma_section(curves: Curves) -> list[dict[str, Any]]:
    if curves.base is None:
        return []
    key, base, best = curves.leading, curves.base, curves.best(curves.gammas)
    heading = f'PBC at γ = {base["gamma"]:g} {_change(key, curves.plain[key], base[key])}'
    if best is base:
        heading += ', and no other γ of the curve is better'
    else:
        heading += f'; the best γ of the curve, {best["gamma"]:g}, gives {best[key]:.2f}'
    caption = (
        'A proposal whose indicator I exceeds γ loses its scores of seen classes (Eq. 7; the curve is figure 6 of the '
        'paper). At γ = 1 nothing is corrected. A smaller γ corrects more proposals, eventually also of seen classes.'
    )
    return _section(heading, gamma_figure(curves.gammas, curves.plain, base['gamma']), caption, narrow=True)


def _stacking_section(curves: Curves) -> list[dict[str, Any]]:
    if len(curves.stacking) < 2:
        return []
    key, best = curves.leading, curves.best(curves.stacking)
    heading = f'Subtracting {best["constant"]:g} from all seen scores {_change(key, curves.plain[key], best[key])}'
    if not best['constant']:
        heading = f'Stacking improves nothing: {key} is {best[key]:.2f} without it'
    if curves.gammas:
        rival = curves.best(curves.gammas)[key]
        gap = best[key] - rival
        words = 'as much as' if abs(gap) < 0.005 else f'{abs(gap):.2f} {"more" if gap > 0 else "less"} than'
        heading += f', {words} PBC at its best γ'
    marked = 0.1 if any(row['constant'] == 0.1 for row in curves.stacking) else None
    figure = stacking_figure(curves.stacking, curves.both, curves.gammas, marked)
    on_top = f', alone and in addition to PBC at γ = {curves.base["gamma"]:g}' if curves.base else ''
    caption = (
        f'Calibrated stacking (Chao et al. 2016){on_top}: a constant is subtracted from the pixel score Σ p·σ(M) of '
        'every seen class before the argmax. ZegCLIP and OTSeg subtract 0.1 from sigmoid scores. Right: trade-off of '
        'each method between seen and unseen classes; grey lines have equal hIoU.'
    )
    return _section(heading, figure, caption)


def _masks_section(masks: Mapping[str, Any], curves: Curves) -> list[dict[str, Any]]:
    groups = [(name, masks[name]) for name in ('seen', 'unseen') if masks[name]['count']]
    if not groups:
        return []
    key = curves.leading
    heading = (
        f'With oracle classes, the same masks give {key} {curves.oracle[key]:.2f} instead of {curves.own[key]:.2f}'
    )
    if len(groups) == 2:
        gap = masks['unseen']['mean'] - masks['seen']['mean']
        words = 'as well as' if abs(gap) < 0.005 else ('better than' if gap > 0 else 'worse than')
        heading += f'; masks of unseen classes fit {words} those of seen ones'
    shares = ', '.join(f'{100 * group["above_half"]:.0f} % of {name}' for name, group in groups)
    caption = (
        'IoU of each class region of an image with the proposal that fits it best, whatever its class (masks of '
        f'Eq. 1, binarised at 0.5, on labelled pixels). It exceeds 0.5 for {shares} regions. Oracle classes: each '
        'proposal gets the class of most of its pixels (table 6 of the paper).'
    )
    panels = [(f'regions of {name} classes', group) for name, group in groups]
    return _section(heading, histogram_figure(panels, 'IoU of the best proposal'), caption)


def _indicator_section(indicator: Mapping[str, Any], base: float | None) -> list[dict[str, Any]]:
    if not indicator:
        return []
    names = {
        'seen': 'matched to seen classes',
        'unseen': 'matched to unseen classes',
        'background': 'matched to nothing',
    }
    groups = [(text, indicator[name]) for name, text in names.items() if indicator[name]['count']]
    if indicator['auroc'] is None:
        heading = 'φ_bc cannot be evaluated: seen or unseen classes have no matched proposals'
    else:
        heading = (
            f'φ_bc ranks proposals of unseen classes above those of seen ones with an AUROC of {indicator["auroc"]:.3f}'
        )
    shares = ', '.join(f'{100 * group["above_base"]:.0f} % of those {text}' for text, group in groups)
    caption = (
        'Indicator I of all proposals (Eq. 5), grouped by Hungarian matching with ground-truth masks as in training. '
        f'Above γ = {base:g}, and therefore corrected, are {shares}. An AUROC of 0.5 is chance, 1 is perfect.'
    )
    return _section(heading, histogram_figure(groups, 'indicator I', base), caption)


def _confusion(confusion: Mapping[str, list[Row]], curves: Curves) -> dict[str, Any] | None:
    tables = {name: {row['name']: row for row in rows} for name, rows in confusion.items()}
    last = list(tables.values())[-1]
    if not last or 'unseen_as_seen' not in curves.plain:
        return None
    order = sorted(last.values(), key=lambda row: row['itself'])[:SHOWN_CLASSES]
    heading = f'{curves.plain["unseen_as_seen"]:.1f} % of unseen pixels are predicted as seen classes without PBC'
    if curves.base is not None:
        heading += f', {curves.base["unseen_as_seen"]:.1f} % with PBC'
    heading += f'; “{order[0]["name"]}” has the lowest accuracy'
    more = (
        f' The {SHOWN_CLASSES} worst of {len(last)} classes; all are in analysis.json.'
        if len(last) > len(order)
        else ''
    )
    return {
        'heading': heading,
        'groups': [[(name, table[row['name']]) for name, table in tables.items()] for row in order],
        'caption': 'Share of the ground-truth pixels of each unseen class, in percent. Section 3.3 of the paper '
        f'corrects this bias towards seen classes.{more}',
    }
