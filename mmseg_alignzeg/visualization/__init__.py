"""Visualisation of predictions, of the effect of bias correction, and of proposal features."""

from .corrections import Correction, corrections_picture
from .features import features_picture
from .label_maps import contact_sheet, predictions_picture
from .overlay import overlay_picture

__all__ = [
    'Correction',
    'contact_sheet',
    'corrections_picture',
    'features_picture',
    'overlay_picture',
    'predictions_picture',
]
