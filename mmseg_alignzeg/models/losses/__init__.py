"""One file per loss term of Eq. (8)."""

from .background_diversity import BackgroundDiversityLoss, background_diversity
from .classification import classification_loss
from .feature_expansion import FeatureExpansionLoss, expand, virtual_logits
from .jaccard_metric import JaccardMetricLoss, jaccard_mask_loss, jaccard_metric_loss
from .mask import OVERLAP_LOSSES, dice_loss, mask_loss
from .matching import HungarianMatcher, Match
from .ranks import mean_count
from .targets import Targets, checked_targets

__all__ = [
    'OVERLAP_LOSSES',
    'BackgroundDiversityLoss',
    'FeatureExpansionLoss',
    'HungarianMatcher',
    'JaccardMetricLoss',
    'Match',
    'Targets',
    'background_diversity',
    'checked_targets',
    'classification_loss',
    'dice_loss',
    'expand',
    'jaccard_mask_loss',
    'jaccard_metric_loss',
    'mask_loss',
    'mean_count',
    'virtual_logits',
]
