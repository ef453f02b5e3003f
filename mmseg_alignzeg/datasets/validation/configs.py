"""Building and checking the splits of a config."""

from __future__ import annotations

import copy
import os.path as osp
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmseg.registry import DATASETS

from ...vocabulary import Vocabulary
from ..checked_datasets import CheckedFiles
from ..file_checks import Problem, is_local
from ..folders import refuse_unknown
from .splits import Counts, Progress, SplitReport, check_split


def keep_broken_files(dataset: dict) -> None:
    """Allow datasets with ``CheckedFiles`` to be built with broken files, which the full check lists instead."""
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
        RuntimeError: If that fails; the message is one line with the reason.
    """
    keep_broken_files(cfg)
    try:
        return DATASETS.build(cfg)
    except Exception as error:  # a dataset may raise anything; mmseg's raise AssertionError without a message
        roots = [part.get('data_root') or '' for part in (cfg, *cfg.get('datasets', ()))]
        gone = [root for root in roots if is_local(root) and not osp.isdir(root or '.')]
        reason = str(error) or 'the folders of `data_prefix` or the list `ann_file` do not exist'
        if gone and '`data_root' not in reason:
            reason = f'`data_root={gone[0]!r}` is not a folder (looked for {osp.abspath(gone[0])}): put the data there'
        raise RuntimeError(f'The {name} data cannot be built: {" ".join(reason.split())}') from error


def trained_vocabulary(model: Mapping[str, Any]) -> Vocabulary | None:
    """Return the classes of a model's config, or None if it has none.

    Raises:
        ValueError: If an unseen class is not one of the classes, or no class is seen.
    """
    classes, unseen = model.get('classes') or (), model.get('unseen_classes') or ()
    refuse_unknown(unseen, '`unseen_classes`', classes, '`classes`')
    vocabulary = Vocabulary.from_metainfo(model) if classes else None
    if vocabulary and not vocabulary.seen_classes:
        raise ValueError(
            f'`unseen_classes` names all {len(classes)} `classes`, so that none is left to train on: leave the classes '
            'that have training labels out of `unseen_classes`.'
        )
    return vocabulary


def check_config(
    cfg: Config, splits: Sequence[str], limit: int | None, workers: int, progress: Callable[[str], Progress]
) -> dict[str, SplitReport]:
    """Check the splits of a config and return their reports.

    Args:
        cfg: A config with ``{split}_dataloader``, and optionally ``model.classes`` and ``expected_images``.
        splits: Splits to check, among ``'train'``, ``'val'`` and ``'test'``.
        limit: Maximum number of images to open per split.
        workers: Number of processes.
        progress: Returns the progress display of a split, given its name.

    Raises:
        RuntimeError: If a dataset cannot be built.
        ValueError: If a dataset has no class names, or ``expected_images`` contains something that is not a number.
    """
    vocabulary = trained_vocabulary(cfg.get('model') or {})
    reports: dict[str, SplitReport] = {}
    datasets: dict[str, tuple[dict, Counts]] = {}
    for name in splits:
        expected = (cfg.get('expected_images') or {}).get(name)
        data = cfg[f'{name}_dataloader'].dataset.to_dict()
        # One set is often used for validation and for testing; it is checked once.
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
    """Return each report once, under the names of all splits that share it."""
    return {', '.join(name for name, r in reports.items() if r is report): report for report in reports.values()}


def overlap_problems(reports: Mapping[str, SplitReport]) -> list[Problem]:
    """Find training images that are also used for validation or testing."""
    trained = set(reports['train'].paths) if 'train' in reports else set()
    problems = []
    for name, report in distinct(reports).items():
        common = trained.intersection(report.paths) if name != 'train' else set()
        if common:
            what = f'{len(common):,} training image(s), first this one, are also in {name}'
            problems.append(
                Problem('overlap', min(common), what, 'use a separate folder, or a separate list, for each split')
            )
    return problems
