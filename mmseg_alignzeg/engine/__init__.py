"""Hooks that guard, resume, test and draw with a vocabulary, and the optimizer's choice of parameters."""

from .finite_guard_hook import FiniteGuardHook
from .optim_wrapper_constructor import TrainableOptimWrapperConstructor
from .proposal_visualization_hook import ProposalVisualizationHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .visualization_hook import ZeroShotVisualizationHook
from .vocabulary_hook import VocabularyHook

__all__ = [
    'FiniteGuardHook',
    'ProposalVisualizationHook',
    'SafeCheckpointHook',
    'TrainableOptimWrapperConstructor',
    'VocabularyHook',
    'ZeroShotVisualizationHook',
]
