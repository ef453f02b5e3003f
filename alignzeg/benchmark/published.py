"""Published results with their sources, and whether one's own results are comparable with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config

from .shipped import shipped
from .table import KEYS, pipe_table, score_cell

ABOUT = ('year', 'venue', 'backbone', 'training', 'input', 'window', 'stride', 'calibration', 'background')
#: Results are comparable if these agree. Whether seen scores are lowered at all counts, not by how much.
PROTOCOL = ('training', 'window', 'stride', 'calibration', 'background')
FIELDS = ('method', 'variant', 'split', *ABOUT, *KEYS, 'source', 'note', 'config')
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Published:
    """The content of ``configs/published_results.yml``, whose head describes all fields.

    Attributes:
        splits: ``name``, ``task`` and ``config`` of each split, by its key.
        rows: The results, each with the fields of its method.
    """

    splits: Mapping[str, Row]
    rows: Sequence[Row]

    def paper(self) -> dict[str, dict[str, Any]]:
        """Return the paper's scores by the config that repeats them, and ``where`` they are printed."""
        rows = [row for row in self.rows if 'config' in row]
        return {row['config']: {'where': row['source'], **scores_of(row)} for row in rows}

    def split_of(self, cfg: Config) -> str | None:
        """Return the key of the split that a config trains and tests on, or None if it is not listed."""
        return next((key for key, split in self._known.items() if split == _split(cfg)), None)

    @cached_property
    def _known(self) -> dict[str, tuple[Any, ...]]:
        return {key: _split(Config.fromfile(shipped(split['config']))) for key, split in self.splits.items()}


def scores_of(row: Row) -> dict[str, float]:
    """Return the scores of a result."""
    return {key: row[key] for key in KEYS if key in row}


def read_published(path: Path) -> Published:
    """Read a file of published results.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If a result has no source or no score, or names an unknown field, method or split.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist below this folder: run this from the project folder.')
    content = yaml.safe_load(path.read_text(encoding='utf-8'))
    splits, methods = content['splits'], content['methods']
    rows = []
    for number, row in enumerate(content['results'], start=1):
        where = f'{path}, result {number} ({row.get("method")}, {row.get("split")})'
        if not row.get('source'):
            raise ValueError(f'{where} has no `source`: add where its numbers are printed, or remove it.')
        for key, known in (('method', methods), ('split', splits)):
            if row.get(key) not in known:
                raise ValueError(f'{where}: `{key}` must be one of {", ".join(known)}.')
        about = methods[row['method']]
        unknown = [key for key in (*about, *row) if key not in FIELDS]
        if unknown or not scores_of(row):
            fault = f'unknown fields {unknown}' if unknown else 'no score'
            raise ValueError(f'{where} has {fault}: the fields are {", ".join(FIELDS)}.')
        # A field that a result sets to null is unknown for it.
        rows.append({key: value for key, value in {**about, **row}.items() if value is not None})
    return Published(splits, rows)


def _split(cfg: Config) -> tuple[Any, ...]:
    """Return what makes a split: the trained and the tested names, and which images are tested."""
    test, model = cfg.test_dataloader.dataset, cfg.model
    metainfo = {key: value for key, value in (test.get('metainfo') or {}).items() if key != 'palette'}
    return test.type, test.get('ann_file'), metainfo, model.get('classes'), model.get('unseen_classes')


def own_protocol(cfg: Config) -> dict[str, Any]:
    """Return the fields of :data:`ABOUT` that follow from a config of this project."""
    model, test = cfg.model, cfg.model.get('test_cfg') or {}
    sizes = [step.scale for step in cfg.test_dataloader.dataset.pipeline if 'scale' in step]
    protocol: dict[str, Any] = {'training': 'inductive', 'window': 'whole'}
    if sizes:
        protocol['input'] = sizes[0] if isinstance(sizes[0], int) else min(sizes[0])
    if test.get('mode') == 'slide':
        protocol |= {'window': max(test['crop_size']), 'stride': max(test['stride'])}
    if (views := len((model.get('decoder') or {}).get('views', ()))) > 1:
        protocol['window'] = f'ensemble of {views} views'
    constant = (model.get('calibration') or {}).get('constant', 0)
    protocol['calibration'] = 'PBC' if model.get('bias_correction') else constant or 'none'
    protocol['background'] = {'share': 'dropped', 'ignore': 'ignored'}[test.get('background_at_test', 'share')]
    return protocol


def compared(task: str) -> tuple[str, ...]:
    """Return the parts of the protocol that matter in a task: calibration does not if all tested classes are unseen."""
    return tuple(key for key in PROTOCOL if not (task == 'ZS3' and key == 'calibration'))


def differences(row: Row, own: Row, keys: Sequence[str] = PROTOCOL) -> list[str]:
    """Return which of these parts of the protocol are known to differ in a result, as ``window 480``."""
    stated = [key for key in keys if key in row]
    return [f'{key} {row[key]}' for key in stated if _same(key, row[key]) != _same(key, own.get(key))]


def _same(key: str, value: Any) -> Any:
    """Return what must agree in a field of the protocol."""
    return value not in ('none', 0) if key == 'calibration' else value


def not_stated(row: Row, keys: Sequence[str] = PROTOCOL) -> list[str]:
    """Return which of these parts of the protocol are not known of a result."""
    return [key for key in keys if key not in row and not (key == 'stride' and row.get('window') == 'whole')]


def beside(published: Published, rows: Sequence[Row], configs: Mapping[str, Config]) -> str:
    """Return Markdown: own results with published ones of the same protocol, and how the others differ.

    Args:
        published: The published results.
        rows: Own results, see :func:`table_rows`.
        configs: The tested config of each own row, with its overrides.
    """
    groups: dict[tuple, list[Row]] = {}  # own rows of one split and protocol share a table
    for row in rows:
        cfg = configs[row['row']]
        split, own = published.split_of(cfg), own_protocol(cfg)
        oracle = (cfg.model.get('decoder') or {}).get('type') == 'OracleDecoder'  # comparable with no method
        if split is not None and not oracle:
            parts = compared(published.splits[split]['task'])
            groups.setdefault((split, *(_same(key, own.get(key)) for key in parts)), []).append(row)
    texts = []
    for (split, *_), members in groups.items():
        own, parts = own_protocol(configs[members[0]['row']]), compared(published.splits[split]['task'])
        others = [row for row in published.rows if row['split'] == split and 'variant' not in row]
        keys = [
            key for key in KEYS if any(key in row for row in others) and any(f'{key}_mean' in row for row in members)
        ]
        lines = [[f'`{row["row"]}` (own)', *(score_cell(row, key) for key in keys), '', ''] for row in members]
        apart = []
        for row in others:
            if differs := differences(row, own, parts):
                apart.append(f'{row["method"]} ({", ".join(differs)})')
                continue
            cells = [str(row.get(key, '-')) for key in keys]
            lines.append([row['method'], *cells, ', '.join(not_stated(row, parts)), source_of(row)])
        table = pipe_table(['method', *keys, 'not stated', 'source'], lines)
        stated = ', '.join(f'{key} {own[key]}' for key in parts if key in own)
        text = f'{published.splits[split]["name"]}, {stated}:\n\n{table}'
        texts.append(text + (f'\nNot beside, because their protocol differs: {"; ".join(apart)}.\n' if apart else ''))
    return '\n'.join(texts)


def source_of(row: Row) -> str:
    """Return the source of a result with its note."""
    return f'{row["source"]} ({row["note"]})' if 'note' in row else row['source']
