"""A split is data: it is checked once, and every mistake is one clear line."""

import dataclasses

import pytest

from mmseg_alignzeg.vocabulary import Vocabulary


def test_seen_classes_keep_label_order():
    vocabulary = Vocabulary(['a', 'b', 'c', 'd'], ['d', 'b'])
    assert vocabulary.classes == ('a', 'b', 'c', 'd')
    assert vocabulary.unseen_classes == ('d', 'b')
    assert vocabulary.seen_classes == ('a', 'c')


def test_no_unseen_class_is_allowed():
    assert Vocabulary(['a', 'b']).seen_classes == ('a', 'b')


def test_reads_metainfo_of_a_dataset():
    expected = Vocabulary(['a', 'b'], ['b'])
    assert Vocabulary.from_metainfo(dict(classes=('a', 'b'), unseen_classes=['b'], palette=[])) == expected
    assert Vocabulary.from_metainfo(dict(classes=['a', 'b'])) == Vocabulary(['a', 'b'])
    assert Vocabulary.from_metainfo(dict(classes=['a', 'b'], unseen_classes=None)) == Vocabulary(['a', 'b'])


def test_equal_vocabularies_share_a_hash_and_cannot_change():
    vocabulary = Vocabulary(['a', 'b'], ['b'])
    assert hash(vocabulary) == hash(Vocabulary(('a', 'b'), ('b',)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        vocabulary.classes = ('c',)


@pytest.mark.parametrize(
    ('classes', 'unseen', 'message'),
    [
        ([], [], 'vocabulary is empty'),
        (['a', ' '], [], r'`classes` has no name at position\(s\) \[1\]'),
        (['a', None], [], r'`classes` has no name at position\(s\) \[1\]'),
        (['a'], [''], r'`unseen_classes` has no name at position\(s\) \[0\]'),
        (['a', 'b', 'a'], [], r"`classes` names \['a'\] more than once"),
        (['a', 'b'], ['b', 'b'], r"`unseen_classes` names \['b'\] more than once"),
        (['a', 'b'], ['B'], r"`unseen_classes` names \['B'\], which are not among the 2 classes \(a, b\)"),
    ],
)
def test_mistakes_are_named(classes, unseen, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary(classes, unseen)


def test_metainfo_without_classes_is_named():
    with pytest.raises(ValueError, match=r"no `classes`; its keys are \['palette'\]"):
        Vocabulary.from_metainfo(dict(palette=[]))
