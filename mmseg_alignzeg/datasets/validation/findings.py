"""Problems, and possible problems, found in the sums over the label maps of a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from ...vocabulary import abridged
from ..file_checks import Problem
from .pairs import MANY_COLOURS, Tally
from .rules import VOC_BORDER, LabelRules

STRAY = 1  # percent of the pixels
SHOWN_COLOURS = 40
REMAKE = 'create the label maps again from the originals, as PNG, resized with NEAREST if at all'
NO_CLASS = frozenset({'unlabelled', 'unlabeled', 'void', 'ignore', 'ignored', 'none', 'unknown', 'background'})
COCO_STUFF_IDS = frozenset(range(171, 182))  # values in COCO-Stuff's original files above all TrainIds


def spans(values: Iterable[int]) -> str:
    """Format numbers for a message: ``1…3, 7``."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return abridged([str(a) if a == b else f'{a}…{b}' for a, b in runs])


def value_problems(tally: Tally) -> list[Problem]:
    """Find faults of the values: unnamed ones, a shift by one, colours as grey, unconverted files, only 255."""
    problems = []
    for (value, label), use in tally.values.items():
        if value is not None and value > 255 and tally.rules.label_of(value) not in (None, label):
            todo = "mmseg's loader keeps 8 bits; use `LoadWideAnnotations` in the pipeline"
            problems.append(Problem('values', use.first, f'value {value} becomes label {label}', todo))
            break
    misfits = {key: use for key, use in tally.values.items() if not tally.rules.fits(*key)}
    if misfits:
        share = 100 * sum(u.pixels for u in misfits.values()) / sum(u.pixels for u in tally.values.values())
        foreign = {label if value is None else value for value, label in misfits}
        what, todo = _explain(foreign, _raw_values(tally), tally.rules, share)
        problems.append(Problem('values', next(iter(misfits.values())).first, what, todo))
    if tally.rules.num_values == 2 and {0, 255} == _raw_values(tally) and not tally.rules.reduce_zero_label:
        what = 'all files contain only 0 and 255, as black and white masks do, but 255 means "no label"'
        problems.append(Problem('values', next(iter(tally.values.values())).first, what, 'replace 255 by 1'))
    if tally.images and len(tally.unlabelled) == tally.images:
        todo = 'check `metainfo.classes`, `reduce_zero_label` and the values in the files'
        what = 'no file has a label left after loading; this is the first one'
        problems.append(Problem('empty', tally.unlabelled[0], what, todo))
    return problems


def _raw_values(tally: Tally) -> set[int]:
    return {value for value, _ in tally.values if value is not None}


def _explain(foreign: set[int], raw: set[int], rules: LabelRules, share: float) -> tuple[str, str]:
    """Explain where values without a class, ``share`` percent of the pixels, may come from, and what to do."""
    count, first = rules.num_values, int(rules.reduce_zero_label)
    holds = f'contains {spans(foreign)} ({share:.2g}% of the pixels)'
    if rules.train_ids and foreign <= COCO_STUFF_IDS:
        what = f'{holds}: class ids of COCO-Stuff that were not converted to TrainIds'
        return what, 'run `alignzeg convert coco_stuff ROOT`'
    if first == 0 and 0 not in raw and count in raw - rules.ignored and max(raw - rules.ignored) <= count + 1:
        what = f'values are {spans(raw - rules.ignored)} where 0…{count - 1} are expected, off by one'
        return what, 'set `reduce_zero_label=True` in the dataset, or subtract 1 from each value'
    if foreign == {count} and first == 0:
        what = f'{holds}, one more than the last of 0…{count - 1}'
        todo = f'set `ignored_labels=[{count}]` of FoldersDataset, or replace it by 255'
        others = 'if it is a class, add its name; if 0 means "no label", set `reduce_zero_label=True`'
        return what, f'if this value means "no label", {todo}; {others}'
    if rules.palette and raw <= _greys(rules.palette):
        what = f'{holds}, the grey shades of the class colours'
        return what, "palette files were converted to grey (`convert('L')`); use the original palette files"
    if foreign == {65535}:
        return holds, 'if it means "no label", set `ignore_index=65535` in dataset, model and metric'
    what = f'{holds} where {first}…{count - 1 + first} and 255 for "no label" are expected'
    todo = 'for "no label" use 255, or set `ignored_labels` of FoldersDataset; for a class add its name'
    if len(foreign) > 1 and share < STRAY:
        return (
            what,
            f'few pixels of several values usually come from JPEG or smooth resizing: {REMAKE}; otherwise, {todo}',
        )
    return what, todo


def _greys(palette: Sequence[tuple[int, ...]]) -> set[int]:
    """Return the grey values to which PIL converts the colours and VOC's border, and 255."""
    colours = np.array([*palette, VOC_BORDER], dtype=np.uint8)[None]
    return {255, *np.asarray(Image.fromarray(colours).convert('L'))[0].tolist()}


def shift_notes(tally: Tally) -> list[Problem]:
    """Note that values may be off by one although all of them are named, if those at one end are missing."""
    raw, count = _raw_values(tally), tally.rules.num_values
    reduced = tally.rules.reduce_zero_label
    if reduced and set(range(count)) <= raw and count not in raw:
        what = f'with `reduce_zero_label`, 1…{count} are classes; all of 0…{count - 1} occur and {count} does not'
        todo = 'if 0 is a class in the files, set `reduce_zero_label=False`'
    elif not reduced and raw - {255} == set(range(1, count + 1)) and tally.rules.label_of(count) is not None:
        what = f'0 occurs nowhere, all of 1…{count} do, and {count} is not a class'
        todo = 'if classes count from 1 in the files, set `reduce_zero_label=True`'
    else:
        return []
    return [Problem('shift', next(iter(tally.values.values())).first, what, todo)]


def colour_notes(tally: Tally) -> list[Problem]:
    """Note the colours of label maps with several channels, the most frequent first, and how to convert them."""
    if not tally.coloured:
        return []
    total, count = tally.colours.total(), len(tally.colours)
    shown = ', '.join(f'{colour} {100 * n / total:.2g}%' for colour, n in tally.colours.most_common(SHOWN_COLOURS))
    more = f' and {count - SHOWN_COLOURS:,} more' if count > SHOWN_COLOURS else ''
    what = f'{count:,} colours in {len(tally.coloured):,} label map(s): {shown}{more}'
    if count >= MANY_COLOURS:
        what = f'{count:,} colours or more in {len(tally.coloured):,} label map(s)'
        todo = (
            f'too many for classes: these are photographs (check `seg_map_path`), or JPEG or smooth resizing ({REMAKE})'
        )
    elif all(len(set(colour)) == 1 for colour in tally.colours):
        todo = 'all channels are equal: keep one with `Image.open(file).getchannel(0).save(file)`'
    else:
        todo = 'replace each colour by the number of its class, with the code in docs/custom_dataset.md'
    return [Problem('colours', tally.coloured[0], what, todo)]


def name_notes(rules: LabelRules) -> list[Problem]:
    """Note class names that suggest the absence of a class, such as ``void``."""
    names = [name for name in rules.classes if name.casefold() in NO_CLASS]
    if not names:
        return []
    todo = (
        'if pixels of this value have no class, remove the name: for value 0 with `reduce_zero_label=True`, for the '
        'last value with `ignored_labels`'
    )
    return [Problem('no class', 'class names', f'{names[0]!r} is trained and scored like any other class', todo)]


def training_problems(tally: Tally, seen_classes: Sequence[str]) -> list[Problem]:
    """Find training labels of classes that the model must not see, and names that differ from the model's.

    Args:
        tally: Sums over the training labels.
        seen_classes: The model's classes less its unseen ones, in order.
    """
    todo = 'set `metainfo.classes` of the training data to the seen classes, in the order of the model'
    problems = [
        Problem(
            'unseen', use.first, f'{use.pixels:,} pixels of {name!r}, which is not a seen class, reach training', todo
        )
        for name, use in tally.class_uses.items()
        if name not in seen_classes
    ]
    names = tally.rules.classes
    pairs = enumerate(zip(names, seen_classes, strict=False))
    what = next((f'label {i} is {a!r}, and {b!r} in the model' for i, (a, b) in pairs if a != b), '')
    if not what and len(names) != len(seen_classes):
        what = f'{len(names)} class names, and {len(seen_classes)} seen ones in the model'
    return problems + ([Problem('names', 'training data', what, todo)] if what else [])
