"""Wrong arguments are refused before the library is imported, by the command as a shell starts it."""

import subprocess
import sys

import pytest
from PIL import Image

from alignzeg.cli.inputs import expand
from alignzeg.cli.options import split_words


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'pics').mkdir()
    (tmp_path / 'done').mkdir()
    for name in ('a', 'b', 'c', 'd'):
        Image.new('RGB', (8, 8)).save(tmp_path / f'pics/{name}.png')
        (tmp_path / f'done/{name}_overlay.png').touch()
    for name in ('c.py', 'v.mp4', 'done/v_overlay.webm', 'done/c_labels.png'):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ('predict none.png --out new', "'none.png' does not exist"),
        ('predict none/*.png --out new', "'none/*.png' does not exist"),
        ('predict pics --out c.py', 'c.py is a file'),
        ('predict pics --out done', 'done/a_overlay.png, done/b_overlay.png, done/c_overlay.png (and 1 more)'),
        ('predict pics/[ab].png --out done', 'done/a_overlay.png, done/b_overlay.png exist already'),
        ('predict pics v.mp4 --out done --format png', 'v.mp4 is a video'),
        ('predict v.mp4 --out done', 'done/v_overlay.webm exists'),
        ('predict pics --out done --format png', 'done/c_labels.png exists'),
        ('predict pics --out new --classes a,,b', '--classes: word 2 of 3 is empty'),
        ('predict pics --out new --classes cat,dog,Cat', "'cat' occurs 2 times"),
        ('predict pics --out new --classes cat,dog --unseen cow', "--unseen names 'cow'"),
        ('predict pics --out new --classes-file none.txt', "no file 'none.txt'"),
        ('predict pics --out new --config c.py', 'the config c.py needs its weights'),
        ('predict pics --out new --config none.py --checkpoint w.pth', "'none.py' does not exist"),
        ('predict pics --out new --model c.py --checkpoint none.pth', "no checkpoint 'none.pth'"),
        ('export c.py --checkpoint none.pth --format safetensors --out new', "no checkpoint 'none.pth'"),
        ('export --format onnx --out new.onnx --classes a,,b', 'word 2 of 3 is empty'),
        ('web --model none', "'none' does not exist"),
        ('clip none.pt', 'none.pt does not exist'),
        ('table none', 'none does not exist'),
    ],
)
def test_refused_without_the_library(folder, arguments, message):
    command = [sys.executable, '-X', 'importtime', '-m', 'alignzeg', *arguments.split()]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    imports = {line.split('|')[-1].strip() for line in done.stderr.splitlines() if line.startswith('import time:')}
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith('import time:')]
    assert done.returncode == 2 and done.stdout == '' and line.startswith('alignzeg: error: ') and message in line
    assert 'alignzeg.cli.predict' in imports and not imports & {'torch', 'mmengine', 'mmseg_alignzeg', 'numpy'}
    assert not (folder / 'new').exists()


def test_a_trailing_comma_and_quoted_patterns_are_what_they_mean(folder):
    assert split_words('cat, dog,') == ['cat', 'dog'] and split_words(',') == [''] and split_words('') == ['']
    pics = folder / 'pics'
    (pics / 'e[1].png').touch()
    assert expand([f'{pics}/[ab].*', f'{pics}/e[1].png', f'{pics}/x*']) == [
        f'{pics}/a.png', f'{pics}/b.png', f'{pics}/e[1].png', f'{pics}/x*'
    ]  # fmt: skip
