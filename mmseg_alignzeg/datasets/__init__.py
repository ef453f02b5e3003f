"""Datasets of the plugin."""

from .patterns import LoadPatternsScene, PatternsDataset, draw_scene

__all__ = ['LoadPatternsScene', 'PatternsDataset', 'draw_scene']
