"""The command: its first line, its table, and what it refuses."""

import pytest
import torch

from alignzeg.benchmark.speed import measure
from alignzeg.benchmark.speed.table import Result
from alignzeg.cli import main


@pytest.fixture
def run_tool(monkeypatch, capsys, tmp_path):
    """Run the command with fake measurements; return its status and its output."""

    def fake(row, settings):
        values = {} if row.name == 'data' else {'alignzeg': [1.0 + settings.budget], 'san': [4.0]}
        return [Result(row.name, row.title, settings.setup, values)], []

    def run(*arguments):
        monkeypatch.setattr(measure, 'run', fake)
        for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):  # which the command sets
            monkeypatch.setenv(name, '1')
        code = main(['speed', '--out', str(tmp_path / 'speed.csv'), *arguments])
        return code, capsys.readouterr().out

    return run


def test_the_first_line_says_that_weights_are_random(run_tool, tmp_path):
    code, output = run_tool('--rows', 'predict', '--quick')
    lines = output.splitlines()
    assert 'andom' in lines[0] and 'score' in lines[0]
    assert code == 0 and any(line.startswith('| prediction, 640²') and '0.250' in line for line in lines)
    assert (tmp_path / 'speed.csv').read_text().count('\n') == 3


def test_a_row_without_figures_of_alignzeg_is_a_failure(run_tool):
    assert run_tool('--rows', 'predict', 'data')[0] == 1


@pytest.mark.parametrize('arguments', [['--rows', 'nothing'], ['--device', 'cuda']])
def test_refused(monkeypatch, capsys, arguments):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert main(['speed', *arguments]) == 2
    assert arguments[0] in capsys.readouterr().err
