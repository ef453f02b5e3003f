"""A page to try pictures and words on; it needs gradio, an extra of this package."""

try:
    import gradio  # noqa: F401
except ImportError as error:
    raise ImportError('The web page needs gradio: pip install "mmseg_alignzeg[web]"') from error

from .page import build_page
from .segment import segment
from .server import serve, serving

__all__ = ['build_page', 'segment', 'serve', 'serving']
