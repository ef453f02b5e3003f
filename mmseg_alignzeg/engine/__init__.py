"""Hooks for training, resuming, testing and drawing with a vocabulary, and the optimizer's choice of parameters."""

from .checkpoint_file import read_checkpoint
from .optim_wrapper_constructor import TrainableOptimWrapperConstructor
from .proposal_visualization_hook import ProposalVisualizationHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .visualization_hook import ZeroShotVisualizationHook
from .vocabulary_hook import VocabularyHook
from .whole_checkpoint_hook import WholeCheckpointHook

__all__ = [
    'ProposalVisualizationHook',
    'SafeCheckpointHook',
    'TrainableOptimWrapperConstructor',
    'VocabularyHook',
    'WholeCheckpointHook',
    'ZeroShotVisualizationHook',
    'read_checkpoint',
]
