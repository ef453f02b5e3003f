"""The page of a model whose class embeddings are from a file."""

import json
from dataclasses import replace

import pytest
from safetensors.torch import save_file
from web_visitor import Visitor, error_of, free_port

from alignzeg.apis import AlignZegInferencer
from alignzeg.apis.banks import Banks
from alignzeg.web import serving
from mmseg_alignzeg.datasets.patterns import CLASSES
from mmseg_alignzeg.models import EmbeddingBank


@pytest.fixture
def from_file(tmp_path):
    found = AlignZegInferencer(device='cpu')
    model = found.model
    rows = {'embeddings': model.text_bank(CLASSES)[:, 0]}
    save_file(rows, tmp_path / 'rows.safetensors', {'names': json.dumps(CLASSES)})
    bank = EmbeddingBank(model.text_bank.source, str(tmp_path / 'rows.safetensors'), CLASSES)
    model.text_bank, model.question, found._banks = bank, replace(model.question, text_bank=bank), Banks(bank)
    return found


def test_the_page_answers_with_the_names_of_the_file(from_file, page, shown):
    with serving(from_file, port=free_port()) as (address, _):
        visitor = Visitor(address)
        expected, found = (user.segment(shown, 'blue checks, yellow grid')[2][0] for user in (page.visitor, visitor))
        assert found['shares'] == expected['shares'] and found['overlay'] == expected['overlay']
        assert 'has no embedding of sofa' in error_of(visitor.segment(shown, 'blue checks, sofa'))
