"""What the sums over the label maps of a dataset say is wrong, or may be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from ...vocabulary import abridged
from ..files import Problem
from .pairs import Tally
from .rules import VOC_BORDER, LabelRules

COCO_STUFF_IDS = frozenset(range(171, 182))  # values of COCO-Stuff's own files that no TrainId reaches


def spans(values: Iterable[int]) -> str:
    """Numbers for a message: ``1…3, 7``."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return abridged([str(a) if a == b else f'{a}…{b}' for a, b in runs])


def value_problems(tally: Tally) -> list[Problem]:
    """What the values tell: unnamed ones, a shift by one, colours as grey, unconverted files, nothing but 255."""
    problems = []
    for (value, label), use in tally.values.items():
        if value is not None and value > 255 and tally.rules.label_of(value) not in (None, label):
            todo = "mmseg's loader keeps 8 bits; put `LoadWideAnnotations` into the pipeline"
            problems.append(Problem('values', use.first, f'value {value} becomes label {label}', todo))
            break
    misfits = {key: use for key, use in tally.values.items() if not tally.rules.fits(*key)}
    if misfits:
        share = 100 * sum(u.pixels for u in misfits.values()) / sum(u.pixels for u in tally.values.values())
        foreign = {label if value is None else value for value, label in misfits}
        what, todo = _explain(foreign, _raw_values(tally), tally.rules, f'{share:.2g}% of the pixels')
        problems.append(Problem('values', next(iter(misfits.values())).first, what, todo))
    if tally.images and len(tally.unlabelled) == tally.images:
        todo = 'check `metainfo.classes`, `reduce_zero_label` and the values in the files'
        what = 'neither this nor any other file has a label left after loading'
        problems.append(Problem('empty', tally.unlabelled[0], what, todo))
    return problems


def _raw_values(tally: Tally) -> set[int]:
    return {value for value, _ in tally.values if value is not None}


def _explain(foreign: set[int], raw: set[int], rules: LabelRules, share: str) -> tuple[str, str]:
    """Where values that no class names may come from, and what to do."""
    count, first = rules.num_values, int(rules.reduce_zero_label)
    if rules.train_ids and foreign <= COCO_STUFF_IDS:
        what = f'holds {spans(foreign)} ({share}): class ids of COCO-Stuff, not converted to TrainIds'
        return what, 'run `python tools/convert_dataset.py coco_stuff ROOT`'
    if foreign == {count} and first == 0:
        if 0 not in raw:
            what = f'values are {spans(raw - rules.ignored)} where 0…{count - 1} are expected, off by one'
            return what, 'set `reduce_zero_label=True` in the dataset, or write each value less 1'
        what = f'holds {count} ({share}), one more than the last of 0…{count - 1}'
        todo = f'set `ignored_labels=[{count}]` of FoldersDataset, or write 255 in its place'
        return what, f'if this value means "no label", {todo}; if 0 does, set `reduce_zero_label=True`'
    if rules.palette and raw <= _greys(rules.palette):
        what = f'holds {spans(foreign)} ({share}), the grey shades of the class colours'
        return what, "palette files were made grey (`convert('L')`); use the palette files as they are"
    if foreign == {65535}:
        return f'holds 65535 ({share})', 'if it means "no label", set `ignore_index=65535` in dataset, model and metric'
    what = f'holds {spans(foreign)} ({share}) where {first}…{count - 1 + first} and 255 for "no label" are expected'
    return what, 'for "no label" write 255, or set `ignored_labels` of FoldersDataset; name what is a class'


def _greys(palette: Sequence[tuple[int, ...]]) -> set[int]:
    """Grey values that PIL makes of colours and of VOC's border, with 255."""
    colours = np.array([*palette, VOC_BORDER], dtype=np.uint8)[None]
    return {255, *np.asarray(Image.fromarray(colours).convert('L'))[0].tolist()}


def shift_notes(tally: Tally) -> list[Problem]:
    """A hint that ``reduce_zero_label`` may be one too many: all of 0 … K-1 occur, and K does not."""
    raw, count = _raw_values(tally), tally.rules.num_values
    if not tally.rules.reduce_zero_label or not set(range(count)) <= raw or count in raw:
        return []
    what = f'with `reduce_zero_label`, 1…{count} are classes; all of 0…{count - 1} occur and {count} does not'
    first = next(iter(tally.values.values())).first
    return [Problem('shift', first, what, 'if 0 is a class in the files, set `reduce_zero_label=False`')]


def training_problems(tally: Tally, seen_classes: Sequence[str]) -> list[Problem]:
    """Training labels of classes that the model must not see, and names that differ from the model's.

    Args:
        tally: Sums over the training labels.
        seen_classes: The model's classes less its unseen ones, in order.
    """
    todo = 'set `metainfo.classes` of the training data to the seen classes, in the order of the model'
    problems = [
        Problem('unseen', use.first, f'{use.pixels:,} pixels of {name!r}, no seen class, reach training', todo)
        for name, use in tally.class_uses.items()
        if name not in seen_classes
    ]
    names = tally.rules.classes
    pairs = enumerate(zip(names, seen_classes, strict=False))
    what = next((f'label {i} is {a!r}, and {b!r} in the model' for i, (a, b) in pairs if a != b), '')
    if not what and len(names) != len(seen_classes):
        what = f'{len(names)} class names, and {len(seen_classes)} seen ones in the model'
    return problems + ([Problem('names', 'training data', what, todo)] if what else [])
