"""The splits of a config, built and looked at."""

from __future__ import annotations

import copy
import os.path as osp
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmseg.registry import DATASETS

from ...vocabulary import Vocabulary
from ..checked import CheckedFiles
from ..files import Problem, is_local
from ..folders import refuse_unknown
from .splits import Counts, Progress, SplitReport, check_split


def keep_broken_files(dataset: dict) -> None:
    """Let datasets with ``CheckedFiles`` be built with broken files, which the check lists instead."""
    for part in [*dataset.get('datasets', ()), dataset.get('dataset')]:
        if isinstance(part, dict):
            keep_broken_files(part)
    kind = dataset.get('type')
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    if isinstance(kind, type) and issubclass(kind, CheckedFiles):
        dataset['check_files'] = False


def build(name: str, cfg: dict) -> Any:
    """Build the dataset of a split.

    Raises:
        RuntimeError: If that fails; one line with the reason.
    """
    keep_broken_files(cfg)
    try:
        return DATASETS.build(cfg)
    except Exception as error:  # a dataset may raise anything; mmseg's raise AssertionError without a message
        roots = [part.get('data_root') or '' for part in (cfg, *cfg.get('datasets', ()))]
        gone = [root for root in roots if is_local(root) and not osp.isdir(root or '.')]
        reason = str(error) or 'the folders of `data_prefix` or the list `ann_file` are not there'
        if gone and '`data_root' not in reason:
            reason = f'`data_root={gone[0]!r}` is no folder (looked for {osp.abspath(gone[0])}): put the data there'
        raise RuntimeError(f'The {name} data cannot be built: {" ".join(reason.split())}') from error


def check_config(
    cfg: Config, splits: Sequence[str], limit: int | None, workers: int, progress: Callable[[str], Progress]
) -> dict[str, SplitReport]:
    """Reports of the splits of a config.

    Args:
        cfg: With ``{split}_dataloader``; ``model.classes`` and ``expected_images`` are looked at if they are there.
        splits: Among ``'train'``, ``'val'`` and ``'test'``.
        limit: Open at most so many images per split.
        workers: Processes.
        progress: Of the name of a split, what shows how it goes on.

    Raises:
        RuntimeError, ValueError: If a dataset cannot be built or has no names, or an expected number is none.
    """
    model = cfg.get('model') or {}
    refuse_unknown(model.get('unseen_classes') or (), '`unseen_classes`', model.get('classes') or (), '`classes`')
    vocabulary = Vocabulary.from_metainfo(model) if model.get('classes') else None
    reports: dict[str, SplitReport] = {}
    datasets: dict[str, tuple[dict, Counts]] = {}
    for name in splits:
        expected = (cfg.get('expected_images') or {}).get(name)
        data = cfg[f'{name}_dataloader'].dataset.to_dict()
        # Often one set serves to validate and to test: it is checked once.
        twins = [other for other in reports if 'train' not in (name, other) and datasets[other] == (data, expected)]
        datasets[name] = (copy.deepcopy(data), expected)
        if twins:
            reports[name] = reports[twins[0]]
            continue
        seen = vocabulary.seen_classes if vocabulary and name == 'train' else None
        reports[name] = check_split(build(name, data), expected, seen, limit, workers, progress(name))
    if 'train' in reports:
        reports['train'].problems += overlap_problems(reports)
    return reports


def distinct(reports: Mapping[str, SplitReport]) -> dict[str, SplitReport]:
    """Each report once, under the names of all splits that share it."""
    return {', '.join(name for name, r in reports.items() if r is report): report for report in reports.values()}


def overlap_problems(reports: Mapping[str, SplitReport]) -> list[Problem]:
    """Training images that are also validated or tested on."""
    trained = set(reports['train'].paths) if 'train' in reports else set()
    problems = []
    for name, report in distinct(reports).items():
        common = trained.intersection(report.paths) if name != 'train' else set()
        if common:
            what = f'{len(common):,} training image(s), first this one, are also in {name}'
            problems.append(Problem('overlap', min(common), what, 'give each split a folder, or a list, of its own'))
    return problems
