"""Any pictures and any words: the Python interface for those who want labels, not training."""

from .inferencer import AlignZegInferencer
from .prediction import Failure, Prediction, Proposal

__all__ = ['AlignZegInferencer', 'Failure', 'Prediction', 'Proposal']
