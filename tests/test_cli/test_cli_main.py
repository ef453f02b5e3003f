import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from alignzeg import cli
from alignzeg.cli import main
from alignzeg.cli.output import write
from mmseg_alignzeg import __version__

COMMANDS = tuple(command.__name__.rpartition('.')[2] for command in cli.COMMANDS)


def test_help_explains_each_command_with_two_examples(capsys):
    for arguments in ([], *([command] for command in COMMANDS)):
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, '--help'])
        assert stopped.value.code == 0
        text = capsys.readouterr().out
        if arguments:
            examples = text.split('examples:\n')[1]
            assert len(re.findall(rf'^  alignzeg {arguments[0]}\b', examples, re.MULTILINE)) == 2
        else:
            assert all(re.search(rf'^    {command}  ', text, re.MULTILINE) for command in COMMANDS)
            assert 'exit codes:' in text


@pytest.mark.parametrize('arguments', [[], ['no such command'], ['predict', 'a.jpg']])
def test_wrong_usage_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2 and 'usage: alignzeg' in capsys.readouterr().err


def test_help_does_not_wait_for_torch():
    run = [sys.executable, '-X', 'importtime', '-m', 'alignzeg', '--version']
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == f'mmseg_alignzeg {__version__}'
    imported = {line.split('|')[-1].strip() for line in done.stderr.splitlines()}
    assert 'alignzeg.cli.doctor' in imported and not imported & {'torch', 'mmseg', 'mmengine', 'numpy'}


@pytest.mark.parametrize(
    ('error', 'code', 'line'),
    [
        (ValueError('two\nlines'), 2, 'alignzeg: error: two lines\n'),
        (FileNotFoundError('no x.jpg'), 2, 'alignzeg: error: no x.jpg\n'),
        (ImportError('no gradio'), 2, 'alignzeg: error: no gradio\n'),
        (KeyboardInterrupt(), 130, 'alignzeg: stopped.\n'),
    ],
)
def test_errors_are_one_line(monkeypatch, capsys, error, code, line):
    def fail(check):
        raise error

    monkeypatch.setattr('alignzeg.cli.checks.all_checks', lambda: map(fail, [1]))
    assert main(['doctor']) == code
    assert capsys.readouterr().err == line


def test_an_unexpected_error_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr('alignzeg.cli.checks.all_checks', lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(['doctor'])


def test_what_libraries_print_stays_out_of_stdout(monkeypatch, capsys):
    monkeypatch.setattr('alignzeg.cli.checks.all_checks', lambda: print('chatter') or [])
    assert main(['doctor', '--json']) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith('{') and captured.err == 'chatter\n'


def test_characters_that_a_terminal_cannot_show_are_escaped(tmp_path):
    with (tmp_path / 'log').open('w', encoding='ascii') as stream:
        write('ü 😀 a', stream)
    assert (tmp_path / 'log').read_text() == '\\xfc \\U0001f600 a\n'


def test_web_hands_its_arguments_on(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ('c.py', 'w.pth'):
        (tmp_path / name).touch()
    served = []
    monkeypatch.setitem(
        sys.modules, 'alignzeg.web', SimpleNamespace(serve=lambda *args, tell, **more: served.append((*args, more)))
    )
    monkeypatch.setattr('importlib.util.find_spec', lambda name: name)
    assert main(['web']) == 0
    options = ['--model', 'c.py', '--checkpoint', 'w.pth', '--device', 'cpu', '--host', '0.0.0.0', '--port', '80']
    options += [
        '--password-file',
        'p.txt',
        '--allow-host',
        'a',
        '--allow-host',
        'b',
        '--dtype',
        'bf16',
        '--clip-weights',
        't',
    ]
    assert main(['web', *options, '--max-upload-mb', '5']) == 0
    assert served == [
        (None, None, None, '127.0.0.1', 7860, 20, [], None, False, dict(dtype='fp32', clip_weights=None)),
        ('c.py', 'w.pth', 'cpu', '0.0.0.0', 80, 5, ['a', 'b'], 'p.txt', False, dict(dtype='bf16', clip_weights='t')),
    ]


def test_web_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    assert main(['web']) == 2
    assert 'the web page needs gradio: pip install "mmseg_alignzeg[web]"' in capsys.readouterr().err
    assert main(['web', '--checkpoint', 'a.pth']) == 2
    assert 'the checkpoint a.pth needs the config' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(['web', '--port', '70000'])
    assert "expected a port up to 65535, got '70000'" in capsys.readouterr().err
