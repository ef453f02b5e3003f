"""Datasets of the plugin."""

from .folders import FoldersDataset
from .large_vocabulary import ADE20KFullDataset, PascalContext459Dataset, original_labels
from .loading import DropUnlabelled, LoadWideAnnotations
from .patterns import LoadPatternsScene, PatternsDataset, draw_scene

__all__ = [
    'ADE20KFullDataset',
    'DropUnlabelled',
    'FoldersDataset',
    'LoadPatternsScene',
    'LoadWideAnnotations',
    'PascalContext459Dataset',
    'PatternsDataset',
    'draw_scene',
    'original_labels',
]
