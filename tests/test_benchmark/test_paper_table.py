"""The table for a paper, against numbers by hand."""

import re

import pytest

from alignzeg.benchmark.paper_table import dataset_of, paper_table, read_folder
from alignzeg.benchmark.table import Run, write_runs
from alignzeg.cli import main

CONFIG = 'configs/ablations/msrc/table4/{}.py'


def runs(row, scores, config=CONFIG):
    return [Run(row, config.format(row), seed, dict(mIoU_seen=s, hIoU=h)) for seed, (s, h) in enumerate(scores)]


BASELINE = runs('baseline', [(70.0, 10.0), (72.0, 20.0), (74.0, 30.0)])
BETTER = runs('a_b', [(72.04, 14.0), (72.0, 24.1), (72.0, 34.0)])  # h differs by 4.0, 4.1 and 4.0


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'msrc').mkdir()
    write_runs([*BASELINE, *BETTER], tmp_path / 'msrc/runs.csv')
    write_runs(runs('baseline', [(50.0, 40.0)], 'configs/alignzeg_ccp.py'), tmp_path / 'runs.csv')
    return tmp_path


def test_datasets_by_path():
    assert dataset_of(CONFIG.format('full')) == 'msrc'
    assert dataset_of('configs/alignzeg_voc.py') == 'voc' and dataset_of('configs/zs3/coco.py') == 'coco'


def test_mean_deviation_best_and_significance(folder):
    table = paper_table(read_folder(folder))
    assert table.columns == [('msrc', 'mIoU_seen'), ('msrc', 'hIoU'), ('ccp', 'mIoU_seen'), ('ccp', 'hIoU')]
    seen, h, *_ = table.rows['baseline']
    assert (seen.text, seen.best) == ('72.0 ± 2.0', True) and (h.text, h.best, h.significant) == (
        '20.0 ± 10.0',
        False,
        False,
    )
    seen, h, ccp_seen, _ = table.rows['a_b']
    assert seen.best  # 72.01 and 72.00 are printed alike
    assert h.best and h.significant and ccp_seen is None
    assert '1 to 3 seeds' in table.note and 'differs from baseline with p < 0.05' in table.note
    assert 'corrected for 1 comparison' in table.note


def test_markdown(folder):
    assert paper_table(read_folder(folder)).markdown().splitlines()[:4] == [
        '|  | msrc S | msrc h | ccp S | ccp h |',
        '| --- | --- | --- | --- | --- |',
        '| `baseline` | **72.0 ± 2.0** | 20.0 ± 10.0 | **50.0** | **40.0** |',
        '| `a_b` | **72.0 ± 0.0** | **24.0 ± 10.0** † | - | - |',
    ]


def test_latex_has_as_many_cells_as_columns(folder):
    lines = paper_table(read_folder(folder)).latex().splitlines()
    assert r'\begin{tabular}{lcccc}' in lines and lines[-1] == r'\end{tabular}'
    rows = [line for line in lines if line.endswith(r'\\')]
    widths = [sum(int(n or 1) for n in re.findall(r'&(?: \\multicolumn\{(\d+)\})?', row)) for row in rows]
    assert widths == [4, 4, 4, 4]
    assert r'a\_b & \textbf{72.0 $\pm$ 0.0} & \textbf{24.0 $\pm$ 10.0}$^\dagger$ & -- & -- \\' in rows


def test_without_two_seeds_nothing_is_tested(tmp_path):
    write_runs([BASELINE[0], BETTER[0]], tmp_path / 'runs.csv')
    assert 'No test of significance: fewer than two common seeds' in paper_table(read_folder(tmp_path)).note
    write_runs(BETTER, tmp_path / 'runs.csv')
    assert 'no row to compare with' in paper_table(read_folder(tmp_path)).note


def test_the_command(folder, capsys):
    assert main(['table', str(folder)]) == 0
    assert capsys.readouterr().out.startswith('|  | msrc S |')
    for arguments, message in (
        ([str(folder), '--compare-with', 'none'], "'none' is not a row; the rows are baseline, a_b."),
        ([str(folder / 'msrc/nothing')], 'nothing does not exist: give a folder with results'),
    ):
        assert main(['table', *arguments]) == 2
        assert message in capsys.readouterr().err
    (folder / 'curves.csv').write_text('a,b\n1,2\n')  # as `alignzeg analyze` writes it
    read_folder(folder)
    with pytest.raises(ValueError, match=r'curves\.csv is not a file of results'):
        read_folder(folder / 'curves.csv')
    (folder / 'again').mkdir()
    write_runs(BASELINE[:1], folder / 'again/runs.csv')
    with pytest.raises(ValueError, match=r"both have 'baseline' on msrc, seed 0: keep one"):
        read_folder(folder)
