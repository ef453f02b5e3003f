"""What the page does, without a page."""

import numpy as np
import pytest
import torch

from alignzeg.apis import AlignZegInferencer, Prediction, Proposal
from alignzeg.web import segment
from alignzeg.web.segment import MOST_WORDS, SHOWN_PROPOSALS, proposal_rows, share_rows, split
from mmseg_alignzeg.datasets.patterns import CLASSES, draw_scene
from mmseg_alignzeg.models import text_bank
from mmseg_alignzeg.visualization import overlay_picture
from mmseg_alignzeg.vocabulary import Vocabulary


@pytest.fixture(scope='module')
def inferencer():
    return AlignZegInferencer(device='cpu')


def test_shows_what_the_inferencer_finds(inferencer):
    image = draw_scene(2, 43)[0]
    result = segment(inferencer, image, 'blue checks, sky\n green zigzags,', unseen='sky', others=True, gamma=0.2)
    words = ['blue checks', 'sky', 'green zigzags']
    expected = inferencer(image, words, ['sky'], others=True, gamma=0.2, proposals=True)[0]
    vocabulary = Vocabulary((*words, 'others'), ('sky',))
    np.testing.assert_array_equal(result.overlay, overlay_picture(image, expected.labels, vocabulary, ('others',)))
    shares = {word: round(100 * float((expected.labels == i).mean()), 1) for i, word in enumerate(vocabulary.classes)}
    assert {word: share for word, share, *_ in result.shares} == shares
    assert [share for _, share, *_ in result.shares] == sorted(shares.values(), reverse=True)
    assert [mark for word, _, mark, _ in result.shares if word == 'sky'] == ['unseen']
    assert sum(mark == 'unseen' for *_, mark, _ in result.shares) == 1
    assert [row[0] for row in result.proposals] == [p.label for p in expected.proposals[:SHOWN_PROPOSALS]]
    assert result.hints == list(expected.hints) and 'sky' in result.hints[-1]
    assert result.status[0].startswith('128 × 128 pixels into 3 words in ')


def test_no_words_are_those_of_the_model_and_notes_are_passed_on(inferencer):
    image = draw_scene(2, 1)[0]
    result = segment(inferencer, np.tile(image, (2, 2, 1)), unseen='red stripes')
    assert {word for word, *_ in result.shares} == set(CLASSES)
    assert {word for word, _, mark, _ in result.shares if mark} == {'red stripes'}
    assert result.status[1:] == [
        'scaled from 256 × 256 to 128 × 128 pixels for the model',
        'treated as unseen as requested, although trained: red stripes',
    ]
    unseen = inferencer.model.vocabulary.unseen_classes
    assert {word for word, _, mark, _ in segment(inferencer, image).shares if mark} == set(unseen)


def test_rows_by_hand():
    labels = np.array([[0, 1, 1], [1, 1, 2]], np.uint8)
    masks = [labels == 1, np.ones((2, 3), bool)]
    proposals = tuple(Proposal(mask, 'b', 0.12345, unseen) for mask, unseen in zip(masks, (0.9876, None), strict=True))
    prediction = Prediction('x', np.zeros((2, 3, 3), np.uint8), labels, ('a', 'b', 'c'), ('a',), (), proposals * 15)
    rows = share_rows(prediction, ['#1', '#2', '#3'])
    assert rows == [['b', 66.7, '', '#2'], ['a', 16.7, 'unseen', '#1'], ['c', 16.7, '', '#3']]
    rows = proposal_rows(prediction)
    assert rows[:2] == [['b', 0.123, 0.988, 66.7], ['b', 0.123, None, 100.0]] and len(rows) == 20


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('', None),
        (' , \n', None),
        ('a', ['a']),
        ('a b,c,', ['a b', 'c']),
        ('猫，犬、空\nroof', ['猫', '犬', '空', 'roof']),
    ],
)
def test_words_as_people_type_them(text, words):
    assert split(text) == words


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(words='a, b, A'), 'twice'),
        (dict(words='a, b', unseen='c'), '`unseen` names c, not among the 2 classes'),
        (dict(words='a, others', others=True), "'others'"),
        (dict(gamma=0.0), 'gamma=0.0 must be in'),
        (dict(words=','.join(map(str, range(MOST_WORDS + 1)))), '1,001 words are too many for this page'),
        (dict(words='a\ud800'), 'not valid Unicode'),
    ],
)
def test_bad_settings_have_a_message(inferencer, settings, message):
    with pytest.raises(ValueError, match=message):
        segment(inferencer, draw_scene(2, 0, 32)[0], **settings)


def test_no_picture(inferencer):
    with pytest.raises(ValueError, match='no picture yet: choose one'):
        segment(inferencer, None, 'a')


def test_words_of_strangers_are_not_written_to_disk(inferencer, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(inferencer.model.text_bank, 'cache_dir', tmp_path)
    page = inferencer.without_text_cache()
    assert segment(page, scene, 'a word, never asked').shares == segment(page, scene, 'a word, never asked').shares
    assert not list(tmp_path.iterdir())
    inferencer(scene, classes=['a word', 'never asked'])
    assert inferencer.model.text_bank.path(('a word', 'never asked')).parent == tmp_path and any(tmp_path.iterdir())


def test_memory_holds_the_last_vocabularies(inferencer, monkeypatch):
    bank = text_bank.TextBank(inferencer.model.text_bank.source, 'single')
    computed = []

    def embed(phrases, device):
        computed.append(*phrases)
        return torch.eye(32)[:1]

    monkeypatch.setattr(bank, '_load_or_compute', embed)
    names = [f'word {i}' for i in range(text_bank.KEPT + 1)]
    for name in names[:-1]:
        bank([name])
    bank(names[:1])  # used again, so it is not the oldest
    bank(names[-1:])
    assert computed == names and len(bank._memory) == text_bank.KEPT == 16
    bank(names[:1])
    assert computed == names
    bank(names[1:2])  # had to go
    assert computed == [*names, names[1]]
