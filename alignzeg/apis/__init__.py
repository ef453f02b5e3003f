"""Python interface for inference with arbitrary images and class names."""

from .inferencer import AlignZegInferencer
from .prediction import Failure, Prediction, Proposal

__all__ = ['AlignZegInferencer', 'Failure', 'Prediction', 'Proposal']
