"""The rows of the table: what is measured. This module imports no library, so that a wrong name is refused at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

MODELS = ('alignzeg', 'san')
SIDE = 640
LARGE = (1024, 2048)
PRECISIONS = {'fp32': 'fp32', 'amp': 'AMP', 'compile': 'AMP, compiled encoders'}


@dataclass(frozen=True)
class Row:
    """One row: the same work for both models.

    Attributes:
        name: Name of the row, for ``--rows``.
        label: Description in the table.
        kind: The step, a function of :data:`~alignzeg.benchmark.speed.steps.STEPS`, or ``'first'``.
        unit: Unit of the figures: ``'s'``, the duration of a step, a rate, ``'%'``, or that of a count.
        per_step: Number of images or names in a step, if the figure is their number per second, or 0.
        shape: Rows and columns of the image.
        classes: C.
        backbone: ``'b16'``, ``'l14'``, or ``'tiny'``, the embedded world.
        prompts: Number of CLIP prompts of AlignZeg.
        batch: Images of a step.
        precision: A key of :data:`PRECISIONS`.
        windows: Whether a prediction uses windows of 640² at a stride of 480.
        rounds: Maximum number of measured steps of each model; 1 for long ones, see :attr:`timed_with_memory`.
        memory: Whether the peak memory is measured.
        models: The models that are measured.
    """

    name: str
    label: str
    kind: str
    unit: str = 's'
    per_step: int = 0
    shape: tuple[int, int] = (SIDE, SIDE)
    classes: int = 171
    backbone: str = 'b16'
    prompts: int = 0
    batch: int = 1
    precision: str = 'fp32'
    windows: bool = False
    rounds: int = 7
    memory: bool = True
    models: tuple[str, ...] = MODELS

    @property
    def timed_with_memory(self) -> bool:
        """Whether the process that measures the memory measures the time too."""
        return self.memory and self.rounds == 1

    @property
    def title(self) -> str:
        """Label and unit."""
        return f'{self.label} ({self.unit})'


def _predict(name: str, classes: int = 171, shape: tuple[int, int] = (SIDE, SIDE), **options: Any) -> Row:
    size = f'{shape[0]}²' if shape[0] == shape[1] else f'{shape[0]:,} × {shape[1]:,}'
    note = options.pop('note', '')
    label = f'prediction, {size}{note}, {classes:,} classes'
    return Row(name, label, 'predict', shape=shape, classes=classes, **options)


def _precisions(row: Row) -> list[Row]:
    return [
        replace(
            row,
            name=f'{row.name}_{key}',
            label=f'{row.label}, {text}',
            precision=key,
            rounds=20,
            memory=key != 'compile',  # which would compile once more in each process
        )
        for key, text in PRECISIONS.items()
    ]


def _vocabulary(classes: int, shape: tuple[int, int] = (SIDE, SIDE)) -> Row:
    """The included model knows the embedded world; SAN has no trained weights here."""
    row = _predict(f'vocabulary_{"large_" if shape == LARGE else ""}{classes}', classes, shape)
    rounds = 1 if shape == LARGE else row.rounds
    return replace(row, label=f'{row.label}, trained masks', kind='vocabulary', rounds=rounds, models=MODELS[:1])


PREDICT = _predict('predict')
LARGE_847 = _predict('large_847', 847, LARGE, rounds=1)
PREDICT_L14 = replace(PREDICT, name='predict_l14', label=f'{PREDICT.label}, ViT-L/14', backbone='l14', rounds=1)
FIRST = Row('first', 'first prediction in a new process', 'first')
TEXT = Row('text', 'text bank, 14 templates', 'text', unit='names/s', per_step=8, memory=False)
TRAIN = Row('train', 'training step, batch 2, 640²', 'train', batch=2, rounds=1)
TRAIN_16 = replace(TRAIN, label='training, batch 16, 640²', unit='images/s', batch=16, per_step=16)

CPU_ROWS = (
    Row('parameters', 'parameters without text tower', 'count', unit='M', rounds=1, memory=False),
    Row('trainable', 'trainable parameters', 'count', unit='M', rounds=1, memory=False),
    Row('flops', 'FLOPs of a prediction', 'count', unit='G', rounds=1, memory=False),
    FIRST,
    TEXT,
    PREDICT,
    replace(PREDICT, name='predict_bf16', label=f'{PREDICT.label}, bf16', precision='amp', rounds=1),
    _predict('predict_20', 20),
    _predict('predict_847', 847, rounds=1),
    _predict('predict_5000', 5000, rounds=1),
    *map(_vocabulary, (20, 171, 847, 5000)),
    *(_vocabulary(classes, LARGE) for classes in (20, 5000)),
    _predict('large_20', 20, LARGE, rounds=1),
    LARGE_847,
    _predict('windows', shape=(1280, 1280), windows=True, note=' in 9 windows of 640²', rounds=1),
    PREDICT_L14,
    TRAIN,
    replace(TRAIN, name='train_prompts', label=f'{TRAIN.label}, 20 prompts', prompts=20),
    Row(
        'train_demo',
        "the demo's training step, batch 8, 128²",
        'train',
        backbone='tiny',
        shape=(128, 128),
        batch=8,
        classes=12,
        memory=False,
    ),
    Row('data', 'data pipeline on one core', 'data', unit='images/s', per_step=8, memory=False),
)

_PROMPTS_16 = replace(TRAIN_16, name='train_prompts', label=f'{TRAIN_16.label}, 20 prompts', prompts=20)
_SHARE = replace(TRAIN_16, unit='%', per_step=0, precision='amp', rounds=3, memory=False)
CUDA_ROWS = (
    *(row for base in (PREDICT, LARGE_847, PREDICT_L14, TRAIN_16, _PROMPTS_16) for row in _precisions(base)),
    replace(_SHARE, name='matcher', kind='matcher', label='share of the matcher in a training step, AMP'),
    replace(_SHARE, name='loading', kind='loading', label='share of waiting for data in training, AMP'),
    replace(TEXT, per_step=16),  # one batch of AlignZeg's
)


def choose(device: str, names: Sequence[str] | None = None) -> list[Row]:
    """Return the rows of a device, or those with the given names, in the order of the table.

    Raises:
        ValueError: If a name is unknown.
    """
    rows = {row.name: row for row in (CUDA_ROWS if device == 'cuda' else CPU_ROWS)}
    unknown = [name for name in names or () if name not in rows]
    if unknown:
        raise ValueError(f'--rows {unknown[0]!r} is not a row of --device {device}: choose from {", ".join(rows)}.')
    return [row for name, row in rows.items() if names is None or name in names]
