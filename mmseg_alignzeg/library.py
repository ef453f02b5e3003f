"""Importing this registers every model, dataset, metric and hook; ``import mmseg_alignzeg`` does so."""

from .compat import enable_mmcv_lite
from .cpu_ranks import enable_cpu_ranks

enable_mmcv_lite()  # before anything below imports mmseg.models
enable_cpu_ranks()

from . import datasets, engine, evaluation, models, peers  # noqa: E402, F401
from .apis import AlignZegInferencer  # noqa: E402

__all__ = ['AlignZegInferencer', 'datasets', 'engine', 'evaluation', 'models']
