"""AlignZeg for MMSegmentation: one import registers every model, dataset, metric and hook of the package."""

from .compat import enable_mmcv_lite
from .cpu_ranks import enable_cpu_ranks

enable_mmcv_lite()  # before anything below imports mmseg.models
enable_cpu_ranks()

from . import datasets, engine, evaluation, models  # noqa: E402

__version__ = '0.1.0'
__all__ = ['__version__', 'datasets', 'engine', 'evaluation', 'models']
