"""Text that steers a terminal, or a reader's eye, is escaped wherever it is printed."""

import logging

import pytest
from mmengine.logging import MMLogger
from PIL import Image

from alignzeg.cli import main
from mmseg_alignzeg.datasets.file_checks import Problem
from mmseg_alignzeg.printable import printable
from mmseg_alignzeg.vocabulary import abridged

HOSTILE = {
    '\x1b]0;title\x07': '\\x1b]0;title\\x07',
    'a\nalignzeg: 9 done': 'a\\nalignzeg: 9 done',
    'a\r\tb': 'a\\r\\tb',
    '\x9b2J': '\\x9b2J',  # one character that some terminals take for ESC [
    '\u202egnp.exe': '\\u202egnp.exe',
    '\u2066\u2069\u200f\u061c': '\\u2066\\u2069\\u200f\\u061c',
    'a\u2028b\u2029c\x85d': 'a\\u2028b\\u2029c\\x85d',
    'byte \udcff': 'byte \\udcff',
    '\U000e0041\ufeff\u200b': '\\U000e0041\\ufeff\\u200b',
}
STEERING = [chr(code) for code in (*range(32), *range(127, 160), 0x2028, 0x202E, 0x2066)]


@pytest.mark.attack('names: control characters')
@pytest.mark.parametrize('text', HOSTILE)
def test_what_steers_a_terminal_is_escaped(text, capsys):
    assert printable(text) == HOSTILE[text] and abridged([text]) == HOSTILE[text]
    assert str(Problem('size', text, text, text)) == ': '.join([HOSTILE[text]] * 3)
    assert main(['predict', f'{text}.png', '--out', 'out', '--classes', text]) == 2
    assert main(['predict', '.', '--out', 'out', '--model', f'{text}.py', '--checkpoint', f'{text}.pth']) == 2
    assert main(['predict', '.', '--out', 'out', '--model', text]) == 2
    with pytest.raises(SystemExit):
        main(['predict', 'a.png', '--out', 'out', f'--{text}'])
    told = capsys.readouterr()
    assert not [letter for letter in told.out + told.err.replace('\n', '') if letter in STEERING]


def test_words_of_any_script_stay_as_they_are():
    for word in ('café', 'кот', '猫', '👩\u200d🚀', 'می\u200cخواهم', 'a\\n', 'שלום', 'cafe\u0301', '\xa0'):
        assert printable(word) == word
    assert printable(3) == '3'


@pytest.mark.attack('names: control characters')
def test_names_of_pictures_and_words_reach_no_terminal(tmp_path, capsys, record_property):
    """A good and a bad picture under each name, as lines for people, as JSON, and in the log."""
    folder = tmp_path / 'photos'
    folder.mkdir()
    names = [name.replace('/', '') for name in HOSTILE]
    for name in names:
        Image.new('RGB', (32, 32), (200, 50, 45)).save(folder / f'{name}.png')
        (folder / f'{name}.jpg').write_text('no picture')
    records = logging.Handler()
    written = []
    records.emit = lambda record: written.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(records)
    words = 'red\x1b[2J stripes, blue\u202e dots'
    try:
        for options in ([], ['--json', '--overwrite']):
            arguments = ['predict', str(folder), '--out', str(tmp_path / 'out'), '--classes', words, *options]
            assert main(arguments) == 1
            told = capsys.readouterr()
            done = [line for line in told.out.splitlines() if line.startswith((str(folder), '{"image": '))]
            assert sum('"error"' not in line for line in done) == len(names)
            assert sum(line.startswith('alignzeg: failed') for line in told.err.splitlines()) == len(names)
            text = told.out + told.err + ''.join(written)
            assert not [letter for letter in text.replace('\n', '') if letter in STEERING]
    finally:
        logger.removeHandler(records)
    assert len(list((tmp_path / 'out').glob('*_overlay.png'))) == len(names)
    record_property('tries', 4 * len(names))
