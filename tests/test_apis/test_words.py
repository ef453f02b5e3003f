"""Words as people type them."""

import open_clip
import pytest
import torch

from alignzeg.apis.words import check_words, cut_words, num_tokens
from mmseg_alignzeg.models import CLIPSource, TextBank
from mmseg_alignzeg.vocabulary import Vocabulary

TRAINED = Vocabulary(('cat', 'hot dog', 'zebra'), ('zebra',))


def test_words_of_the_model_are_the_default():
    words = check_words(None, None, TRAINED)
    assert words.classes == ('cat', 'hot dog', 'zebra') and words.unseen == ('zebra',) and words.notes == ()


def test_unseen_is_what_was_not_trained_on_however_it_is_written():
    words = check_words([' CAT', 'Hot   Dog', 'Zebra', 'straße 🌊'], None, TRAINED)
    assert words.classes == ('CAT', 'Hot Dog', 'Zebra', 'straße 🌊')
    assert words.unseen == ('Zebra', 'straße 🌊')


def test_unseen_words_can_be_named():
    words = check_words(['cat', 'owl', 'fox'], ['FOX', 'cat'], TRAINED)
    assert words.unseen == ('cat', 'fox')
    assert words.notes == ('treated as unseen as requested, although trained: cat',)
    assert check_words(['cat', 'owl'], [], TRAINED).unseen == ()


@pytest.mark.parametrize(
    ('classes', 'unseen', 'message'),
    [
        ([], None, '`classes` is empty: give at least one word'),
        (['cat', ' '], None, r"`classes` has no word at position 1 \(' '\)"),
        (['cat', '\u200b'], None, '`classes` has no word at position 1'),
        (['cat', 3], None, r'no word at position 1 \(3\)'),
        (['cat', 'dog', 'cat'], None, r"`classes` has 'cat' twice \(positions 0 and 2\)"),
        (['hot dog', 'Hot  DOG'], None, r"`classes` has 'Hot DOG' twice \(positions 0 and 1\)"),
        (['caf\u00e9', 'cafe\u0301'], None, r'twice \(positions 0 and 1\)'),
        (['a\ud800'], None, 'not valid Unicode'),
        ('cat, dog', None, "`classes` must be a list of words, got 'cat, dog'"),
        (7, None, '`classes` must be a list of words, got 7'),
        (['cat'], ['owl', 'fox'], r'`unseen` names owl, fox, not among the 1 classes \(cat\)'),
        (['cat'], 'cat', "`unseen` must be a list of words, got 'cat'"),
    ],
)
def test_bad_words_are_named(classes, unseen, message):
    with pytest.raises(ValueError, match=message):
        check_words(classes, unseen, TRAINED)


def test_words_longer_than_clip_reads_are_said():
    bank = TextBank(CLIPSource('tiny_clip', 'embedded'), 'single')
    tokenizer = open_clip.get_tokenizer('tiny_clip')
    context = tokenizer.context_length
    prompt = len(tokenizer.encode('a photo of a')) + 2
    fits, long = ' '.join(['dog'] * (context - prompt)), ' '.join(['dog'] * (context - prompt + 1))
    assert cut_words(check_words(['cat', fits], None, TRAINED), bank).notes == ()
    words = cut_words(check_words(['cat', long], None, TRAINED), bank)
    assert words.notes == (f'CLIP reads only {context} tokens and ignores the end of 1 long name(s): {long[:40]!r}…',)


def test_ten_thousand_words_are_fine():
    names = [f'thing number {i}' for i in range(10_000)]
    words = check_words(names, names[:5000], TRAINED)
    assert len(words.classes) == 10_000 and words.unseen == tuple(names[:5000])


@pytest.mark.parametrize('pad', [0, 1])
def test_tokens_are_counted_whatever_the_padding_is(pad):
    """CLIP pads with 0 after an end mark; SigLIP pads with its end mark."""

    def tokenizer(texts, context_length):
        ids = [[7 + ord(letter) for letter in text][:context_length] for text in texts]
        return torch.tensor([row + [pad] * (context_length - len(row)) for row in ids])

    assert num_tokens('a street', tokenizer) == 8


def test_tokens_of_clip():
    tokenizer = open_clip.get_tokenizer('ViT-B-16')
    assert num_tokens('a photo of a cat!', tokenizer) == 8  # six, and two marks; the number of "!" is 0, as the padding
