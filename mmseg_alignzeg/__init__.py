"""AlignZeg for MMSegmentation: one import registers every model, dataset, metric and hook of the package."""

import sys

from .startup import is_own_command

# `alignzeg --help` should not wait for torch, and `alignzeg doctor` has to say why mmseg does not import: the package's
# own command line loads the library when a command needs it.
if not is_own_command(sys.argv, sys.orig_argv):
    from .library import AlignZegInferencer, datasets, engine, evaluation, models

__version__ = '0.1.0'
__all__ = ['AlignZegInferencer', '__version__', 'datasets', 'engine', 'evaluation', 'models']
