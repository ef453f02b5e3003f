"""A web page for trying pictures and words; it needs gradio, which the extra ``web`` installs."""

try:
    import gradio  # noqa: F401
except ImportError as error:
    raise ImportError('The web page needs gradio: pip install "mmseg_alignzeg[web]"') from error

from .page import build_page
from .segment import segment
from .server import serve, serving

__all__ = ['build_page', 'segment', 'serve', 'serving']
