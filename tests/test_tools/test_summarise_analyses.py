import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def analysis(plain, corrected, extra=()):
    def row(gamma, value):
        keys = ('pAcc', 'mIoU_seen', 'mIoU_unseen', 'hIoU', 'unseen_as_seen')
        return dict(gamma=gamma, constant=0.0, oracle=False, **dict.fromkeys(keys, value))

    return {'rows': [row(0.3, corrected), row(None, plain), *(row(gamma, plain) for gamma in extra)]}


def run(*arguments):
    command = [sys.executable, 'tools/summarise_analyses.py', *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_gains_are_paired(tmp_path):
    files = [tmp_path / f'{i}.json' for i in range(3)]
    for path, scores in zip(files, ((10, 12), (20, 21), (30, 33)), strict=True):
        path.write_text(json.dumps(analysis(*scores, extra=[0.5] if path == files[0] else [])))
    lines = run(*files).stdout.splitlines()
    assert lines[0].startswith('| setting | pAcc | mIoU_seen') and len(lines) == 4  # γ = 0.5 is not in all files
    assert lines[2].startswith('| without PBC | 20.0 ± 10.0 |') and lines[2].endswith('| +0.00 (0 of 3 up) | - |')
    # Gains 2, 1, 3: t = 2√3 with two degrees of freedom, p = 1 − t / √(t² + 2) = 0.0742.
    assert lines[3].startswith('| PBC γ=0.3 | 22.0 ± 10.5 |') and lines[3].endswith('| +2.00 (3 of 3 up) | 0.07 |')


def test_a_missing_file_is_one_line(tmp_path):
    done = run(tmp_path / 'none.json')
    assert done.returncode == 2 and "none.json'" in done.stderr
