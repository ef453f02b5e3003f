"""Hooks for training, resuming, testing and drawing with a vocabulary, and the optimizer's choice of parameters."""

from .health_hook import HealthHook
from .optim_wrapper_constructor import TrainableOptimWrapperConstructor
from .proposal_visualization_hook import ProposalVisualizationHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .visualization_hook import ZeroShotVisualizationHook
from .vocabulary_hook import VocabularyHook

__all__ = [
    'HealthHook',
    'ProposalVisualizationHook',
    'SafeCheckpointHook',
    'TrainableOptimWrapperConstructor',
    'VocabularyHook',
    'ZeroShotVisualizationHook',
]
