"""Hooks for training, resuming and testing with a vocabulary, and the optimizer's choice of parameters."""

from .optim_wrapper_constructor import TrainableOptimWrapperConstructor
from .safe_checkpoint_hook import SafeCheckpointHook
from .vocabulary_hook import VocabularyHook

__all__ = ['SafeCheckpointHook', 'TrainableOptimWrapperConstructor', 'VocabularyHook']
