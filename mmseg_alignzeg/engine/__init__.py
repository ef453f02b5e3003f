"""Hooks and the training loop; reading of checkpoint files; construction of the optimizer."""

from . import checkpoint_sources  # noqa: F401  (replaces MMEngine's loaders)
from .auto_amp_optim_wrapper import AutoAmpOptimWrapper
from .checked_runner import CheckedRunner
from .checkpoint_file import read_checkpoint
from .finite_guard_hook import FiniteGuardHook
from .health_hook import HealthHook
from .optim_wrapper_constructor import TrainableOptimWrapperConstructor
from .proposal_visualization_hook import ProposalVisualizationHook
from .random_state_hook import RandomStateHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .train_loop import ResumableTrainLoop
from .visualization_hook import ZeroShotVisualizationHook
from .vocabulary_hook import VocabularyHook
from .whole_checkpoint_hook import WholeCheckpointHook

__all__ = [
    'AutoAmpOptimWrapper',
    'CheckedRunner',
    'FiniteGuardHook',
    'HealthHook',
    'ProposalVisualizationHook',
    'RandomStateHook',
    'ResumableTrainLoop',
    'SafeCheckpointHook',
    'TrainableOptimWrapperConstructor',
    'VocabularyHook',
    'WholeCheckpointHook',
    'ZeroShotVisualizationHook',
    'read_checkpoint',
]
