"""Datasets of the plugin."""

from .folders import FoldersDataset
from .patterns import LoadPatternsScene, PatternsDataset, draw_scene

__all__ = ['FoldersDataset', 'LoadPatternsScene', 'PatternsDataset', 'draw_scene']
