"""One file per loss term of Eq. (8)."""

from .background_diversity import BackgroundDiversityLoss, background_diversity
from .classification import classification_loss
from .feature_expansion import FeatureExpansionLoss, expand, virtual_logits
from .mask import dice_loss, mask_loss
from .matching import HungarianMatcher, Match

__all__ = [
    'BackgroundDiversityLoss',
    'FeatureExpansionLoss',
    'HungarianMatcher',
    'Match',
    'background_diversity',
    'classification_loss',
    'dice_loss',
    'expand',
    'mask_loss',
    'virtual_logits',
]
