"""One look, many questions."""

import numpy as np
import pytest

from alignzeg.apis import AlignZegInferencer
from mmseg_alignzeg.datasets.patterns import draw_scene

QUESTIONS = [
    dict(),
    dict(classes=['blue checks', 'green zigzags', 'sky'], others=True),
    dict(classes=['blue checks', 'green zigzags'], unseen=['green zigzags'], gamma=0.05),
    dict(pbc=False, templates='single'),
]


@pytest.fixture(scope='module')
def inferencer():
    return AlignZegInferencer(device='cpu')


def test_a_look_answers_like_a_call(inferencer, monkeypatch):
    image = np.tile(draw_scene(2, 43)[0], (2, 1, 1))
    expected = [inferencer(image, proposals=True, **question)[0] for question in QUESTIONS]
    look = inferencer.look(image)
    monkeypatch.setattr(inferencer.model, 'look', lambda *a: pytest.fail('looked again'))
    for question, one in zip(QUESTIONS, expected, strict=True):
        found = inferencer.answer(look, proposals=True, **question)
        np.testing.assert_array_equal(found.labels, one.labels)
        assert (found.classes, found.unseen, found.notes) == (one.classes, one.unseen, one.notes)
        assert [(p.label, p.score) for p in found.proposals] == [(p.label, p.score) for p in one.proposals]
    assert not np.array_equal(expected[1].labels, expected[2].labels)
    assert look.nbytes > image.nbytes + look.views[0].mask_logits.nbytes


def test_windows_are_not_kept(inferencer, monkeypatch):
    monkeypatch.setattr(inferencer.model, 'tiling', object())
    with pytest.raises(ValueError, match='windows'):
        inferencer.look(draw_scene(2, 43)[0])
