"""Statistics by hand, and the table."""

import pytest

from alignzeg.benchmark.speed.table import HEADINGS, Result, Spread, markdown, read, shown, write

PAIRS = {'alignzeg': [1.0, 2.0, 3.0], 'san': [2.0, 2.0, 12.0]}
FULL = Result('train', 'training step (s)', 'CPU', PAIRS, {'alignzeg': 500.0, 'san': 2000.0})
ALONE = Result('large', 'large, 5,000 classes (s)', 'CPU', {'alignzeg': [0.5]}, {'alignzeg': 1500.0})


def test_median_and_range_by_hand():
    assert Spread.of([4.0, 1.0, 3.0]) == Spread(3.0, 1.0, 4.0)
    assert Spread.of([1.0, 2.0, 10.0, 3.0]) == Spread(2.5, 1.0, 10.0)
    assert str(Spread.of([4.0, 1.0, 3.0])) == '3.00 (1.00–4.00)' and str(Spread.of([2.0])) == '2.00'


def test_a_ratio_is_of_pairs_and_not_of_medians():
    assert FULL.ratio() == Spread(0.5, 0.25, 1.0)  # 1/2, 2/2, 3/12; of the medians it would be 1


def test_without_pairs_a_ratio_is_of_medians():
    result = Result('first', '', '', {'alignzeg': [4.0, 6.0, 5.0], 'san': [50.0]})
    assert result.ratio() == Spread(0.1, 0.1, 0.1)
    assert ALONE.ratio() is None


@pytest.mark.parametrize(
    ('value', 'text'), [(0.046, '0.0460'), (1.084, '1.08'), (99.97, '100'), (99.94, '99.9'), (1379.4, '1,379')]
)
def test_three_digits(value, text):
    assert shown(value) == text


def test_cells():
    assert FULL.cells()[1:] == ['2.00 (1.00–3.00)', '2.00 (2.00–12.0)', '0.500 (0.250–1.00)', '500', '2,000', '0.250']
    assert ALONE.cells()[1:] == ['0.500', '-', '-', '1,500', '-', '-']


def test_the_table_has_a_line_per_row_and_says_where_it_was_measured():
    note, _, *lines = markdown([FULL, ALONE]).splitlines()
    assert note.startswith('CPU. ')
    assert len(lines) == 4 and all(line.count('|') == len(HEADINGS) + 1 for line in lines)
    assert '| large, 5,000 classes (s) | 0.500 | - |' in lines[3]


def test_what_is_written_is_read(tmp_path):
    write([FULL, ALONE], tmp_path / 'speed.csv')
    assert read(tmp_path / 'speed.csv') == [FULL, ALONE]
