"""One file per loss term of Eq. (8), and one for the preference score."""

from .background_diversity import BackgroundDiversityLoss, background_diversity
from .classification import classification_loss
from .feature_expansion import FeatureExpansionLoss, expand, virtual_logits
from .jaccard_metric import JaccardMetricLoss, jaccard_mask_loss, jaccard_metric_loss
from .mask import OVERLAP_LOSSES, dice_loss, mask_loss
from .matching import HungarianMatcher, Match
from .preference import PreferenceLoss, cover_with_noise, mask_iou, ranked_pairs, ranking_loss
from .ranks import mean_count, mean_counts
from .targets import Targets, checked_targets

__all__ = [
    'OVERLAP_LOSSES',
    'BackgroundDiversityLoss',
    'FeatureExpansionLoss',
    'HungarianMatcher',
    'JaccardMetricLoss',
    'Match',
    'PreferenceLoss',
    'Targets',
    'background_diversity',
    'checked_targets',
    'classification_loss',
    'cover_with_noise',
    'dice_loss',
    'expand',
    'jaccard_mask_loss',
    'jaccard_metric_loss',
    'mask_iou',
    'mask_loss',
    'mean_count',
    'mean_counts',
    'ranked_pairs',
    'ranking_loss',
    'virtual_logits',
]
