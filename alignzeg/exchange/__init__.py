"""Exchange formats for trained models: a folder of two plain files, and ONNX."""

from .hub import model_card, push_to_hub
from .pretrained import find_pretrained, load_pretrained, read_config, save_pretrained
from .weights import load_weights, read_weights, save_weights

__all__ = [
    'find_pretrained',
    'load_pretrained',
    'load_weights',
    'model_card',
    'push_to_hub',
    'read_config',
    'read_weights',
    'save_pretrained',
    'save_weights',
]
