"""Datasets of the plugin."""

from .checked_datasets import (
    CheckedADE20KDataset,
    CheckedCOCOStuffDataset,
    CheckedFiles,
    CheckedPascalContextDataset59,
    CheckedPascalVOCDataset,
)
from .folders import FoldersDataset
from .large_vocabulary import ADE20KFullDataset, PascalContext459Dataset, original_labels
from .loading import CheckLabelMap, DropUnlabelled, LoadClassSubset, LoadWideAnnotations
from .patterns import PatternsDataset, draw_scene

__all__ = [
    'ADE20KFullDataset',
    'CheckLabelMap',
    'CheckedADE20KDataset',
    'CheckedCOCOStuffDataset',
    'CheckedFiles',
    'CheckedPascalContextDataset59',
    'CheckedPascalVOCDataset',
    'DropUnlabelled',
    'FoldersDataset',
    'LoadClassSubset',
    'LoadWideAnnotations',
    'PascalContext459Dataset',
    'PatternsDataset',
    'draw_scene',
    'original_labels',
]
