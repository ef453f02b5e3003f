"""A page on a server of this process."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from web_visitor import LIMIT_MB, Visitor, data_url, free_port, png

from alignzeg.apis import AlignZegInferencer
from alignzeg.web import serving
from mmseg_alignzeg.datasets.patterns import draw_scene


@pytest.fixture(scope='session')
def inferencer():
    return AlignZegInferencer(device='cpu')


@pytest.fixture(scope='session')
def scene():
    return draw_scene(2, 43)[0]


@pytest.fixture
def shown(scene):
    """A picture as the browser keeps it."""
    return {'path': None, 'url': data_url(png(scene)), 'orig_name': 'scene.png', 'mime_type': 'image/png'}


@pytest.fixture(scope='session')
def serve_page(inferencer, tmp_path_factory):
    """Serve a page for a while: its address, private folder, and a :class:`Visitor`."""

    @contextmanager
    def serve(**settings):
        inferencer.model.text_bank.cache_dir = tmp_path_factory.mktemp('text_cache')
        with serving(inferencer, port=free_port(), max_upload_mb=LIMIT_MB, **settings) as (address, folder):
            yield SimpleNamespace(address=address, folder=folder, visitor=Visitor(address))
        assert not folder.parent.exists()

    return serve


@pytest.fixture(scope='module')
def page(serve_page):
    with serve_page() as found:
        yield found
