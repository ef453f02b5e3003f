import numpy as np
import pytest
import torch

from alignzeg.apis import AlignZegInferencer
from alignzeg.apis.hints import SURE, all_hints, far_words
from mmseg_alignzeg.datasets.patterns import draw_scene
from mmseg_alignzeg.vocabulary import Vocabulary

CLOSE = [
    'stripes that are red', 'red stripe', 'a blob with yellow dots', 'Blue checks', 'GREEN GRID', 'dots', 'zigzags',
    'red', 'orange stripes', 'blue checks pattern',
]  # fmt: skip
STREET = ['road', 'building', 'car', 'traffic light', '猫', 'fire hydrant', 'sidewalk']


@pytest.fixture(scope='module')
def inferencer():
    return AlignZegInferencer(device='cpu')


def test_its_own_words_and_close_ones_give_no_hint_but_street_words_do(inferencer):
    scenes = [draw_scene(2, index)[0] for index in (0, 2, 3, 4, 5, 7)]
    assert [result.hints for result in inferencer(scenes)] == [()] * 6
    assert inferencer(scenes[0], classes=CLOSE)[0].far_words == ()
    mixed = inferencer(scenes[1], classes=[*STREET, 'red checks', 'blue checks'])[0]
    assert mixed.far_words == tuple(STREET)
    assert mixed.hints == (
        '7 of 9 words are far from what this model was trained on: road, building, car, traffic light, 猫, …',
    )
    alone = inferencer(scenes[1], classes=['road'], others=True)[0]
    assert len(alone.hints) == 2 and alone.hints[1].startswith('the word is far')


def test_the_best_score_is_that_of_the_first_proposal(inferencer):
    # Like a photograph: smooth areas, an edge, no pattern.
    street = np.full((96, 128, 3), (150, 170, 200), np.uint8)
    street[50:] = (90, 90, 95)
    result = inferencer(street, classes=STREET, proposals=True)[0]
    assert result.best_score == pytest.approx(result.proposals[0].score, abs=1e-3) and result.best_score < SURE
    assert result.hints[0].startswith('no proposal is sure: the best score is 0.')
    scene = inferencer(draw_scene(2, 4)[0], proposals=True)[0]
    assert scene.best_score == pytest.approx(scene.proposals[0].score, abs=1e-6) and scene.best_score > SURE
    assert inferencer(street, classes=STREET, windows=(64, 32))[0].best_score is None


def test_limits_by_hand():
    def bank(names, device='cpu'):
        angles = {'a': 0, 'b': 30, 'c': 50, 'near': 79, 'far': 81}
        turned = torch.tensor([float(angles.get(name, 180)) for name in names]).deg2rad()
        return torch.stack([turned.cos(), turned.sin()], dim=1)[:, None]

    trained = Vocabulary(('a', 'b', 'c', 'd'), ('d',))
    # Each trained word has a neighbour within 30 degrees; 'd' is unseen, but named by the model.
    assert far_words(['near', 'far', 'b', 'd'], trained, bank) == ('far',)
    assert far_words(['x'], Vocabulary(('a',)), bank) == ()  # one word has no neighbour
    assert all_hints(SURE, (), 3) == () and len(all_hints(0.1, ('far',), 3)) == 2 and all_hints(None, (), 3) == ()
