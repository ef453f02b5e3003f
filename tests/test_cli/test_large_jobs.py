"""Jobs that are killed, continued and divided."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from alignzeg.cli import main
from alignzeg.cli.large_job import RECORDS, SETTINGS, Job, model_settings
from alignzeg.cli.progress import JobProgress, rate
from alignzeg.cli.team import Team
from mmseg_alignzeg.datasets.patterns import draw_scene

ALONE = Team({})
COUNT = 9

# One import for all processes: first a job that is killed in the middle, then two that continue it.
SCRIPT = """
import os, signal, socket, sys, time
from pathlib import Path
import alignzeg.apis
import torch.distributed
from alignzeg.cli import main

arguments, out = sys.argv[1:], Path(sys.argv[-1])

def start(**environment):
    if child := os.fork():
        return child
    os.environ.update(environment)
    os._exit(main(arguments + ['--skip-done'] * bool(environment)))

first = start()
while not list(out.glob('*_labels.png'))[2:]:
    time.sleep(0.01)
os.kill(first, signal.SIGKILL)
os.waitpid(first, 0)
print('\\nleft:', *(path.name for path in out.iterdir()), flush=True)
with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    meeting = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free.getsockname()[1]), WORLD_SIZE='2')
ranks = [start(RANK=str(rank), **meeting) for rank in range(2)]
sys.exit(sum(os.waitpid(rank, 0)[1] for rank in ranks))
"""


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / 'photos'
    folder.mkdir()
    for index in range(COUNT):
        Image.fromarray(draw_scene(2, index)[0]).save(folder / f's{index}.png')
    return folder


def test_a_killed_job_is_continued_by_two_processes(photos, tmp_path, capsys):
    out = tmp_path / 'out'
    arguments = ['predict', str(photos), '--classes', 'red stripes, dots', '--format', 'png']
    command = [sys.executable, '-c', SCRIPT, *arguments, '--json', '--out', str(out)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'}
    both = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert both.returncode == 0, both.stderr
    (after_kill,) = (line for line in both.stdout.splitlines() if line.startswith('left:'))
    assert 3 <= after_kill.count('_labels.png') < COUNT
    lines = [line for line in both.stdout.splitlines() if line.startswith('{')]
    assert len({json.loads(line)['image'] for line in lines}) == COUNT
    assert f'{COUNT} done' not in both.stderr and 'done before' in both.stderr
    assert both.stderr.count('results are in') == 1  # one summary

    pictures = sorted(photos.iterdir())
    records = [json.loads(line) for line in (out / RECORDS).read_text().splitlines()]
    assert [record['image'] for record in records] == [str(picture) for picture in pictures]
    expected = {'classes.json', SETTINGS, RECORDS, *(f'{picture.stem}_labels.png' for picture in pictures)}
    assert {file.name for file in out.iterdir() if not file.name.endswith('.part')} == expected

    # The same job in one go gives the same files.
    assert main([*arguments, '--out', str(tmp_path / 'alone')]) == 0
    for picture in pictures:
        labels = [np.asarray(Image.open(folder / f'{picture.stem}_labels.png')) for folder in (out, tmp_path / 'alone')]
        assert np.array_equal(*labels)

    # What is done is done for these words only.
    capsys.readouterr()
    newest = (out / 's0_labels.png').stat().st_mtime_ns
    assert main([*arguments, '--out', str(out), '--skip-done']) == 0
    assert f'0 done, 0 failed, {COUNT} done before' in capsys.readouterr().err
    other = [*arguments[:3], 'sky, dots', *arguments[4:], '--out', str(out)]
    for option in ([], ['--skip-done']):
        assert main([*other, *option]) == 2
        assert 'results of other settings: classes was ["red stripes", "dots"]' in capsys.readouterr().err
    assert main([*other, '--gamma', '0.5', '--overwrite']) == 0
    assert (out / 's0_labels.png').stat().st_mtime_ns > newest
    assert json.loads((out / SETTINGS).read_text())['gamma'] == 0.5


def begun(out, settings, team=ALONE):
    job = Job(out, settings, team)
    job.begin(1)
    return job


def killed(job):
    """What the end of a process does."""
    job._lock.release()


def test_results_older_than_their_settings_are_not_done(tmp_path):
    file = tmp_path / 'a_overlay.png'
    job = begun(tmp_path, {'classes': ['a']})
    job.note({'image': 'a.png', 'shares': {}})
    assert not Job(tmp_path, {'classes': ['a']}, ALONE).is_done('a.png', [file])
    file.touch()
    again = Job(tmp_path, {'classes': ['a']}, ALONE)
    assert again.is_done('a.png', [file]) and not again.is_done('a.png', [file, tmp_path / 'missing'])
    assert not again.is_done('b.png', [file])  # killed before its record was written
    assert not Job(tmp_path, {'classes': ['b']}, ALONE).is_done('a.png', [file])
    # A job that replaces these results, and is killed before it does.
    time.sleep(0.01)
    killed(job)
    killed(begun(tmp_path, {'classes': ['b']}))
    assert not Job(tmp_path, {'classes': ['b']}, ALONE).is_done('a.png', [file])
    (tmp_path / SETTINGS).unlink()
    with pytest.raises(ValueError, match=f'no {SETTINGS} says how'):
        Job(tmp_path, {}, ALONE).check([file], overwrite=False, skip_done=True)


def test_records_survive_a_kill(tmp_path):
    job = begun(tmp_path, {})
    for name in 'abc':
        job.note({'image': name, 'shares': {}})
    with (tmp_path / 'results.1.jsonl').open('w') as other:
        other.write('{"image": "d", "share')  # killed here
    (tmp_path / 'results.old.jsonl').write_text('mine')
    killed(job)
    job = begun(tmp_path, {})
    job.note({'image': 'b', 'error': 'gone'})
    job.finish({}, ['e', 'b', 'a'], lambda: None)
    records = [json.loads(line) for line in (tmp_path / RECORDS).read_text().splitlines()]
    assert [record['image'] for record in records] == ['c', 'b', 'a']  # those of earlier jobs first
    assert records[1] == {'image': 'b', 'error': 'gone'}
    assert sorted(file.name for file in tmp_path.iterdir()) == [RECORDS, 'results.old.jsonl', SETTINGS]


def test_two_jobs_do_not_write_into_one_folder(tmp_path):
    first = begun(tmp_path, {})
    with pytest.raises(ValueError, match='another job is writing into'):
        begun(tmp_path, {})
    first.note({'image': 'a'})
    first.finish({}, ['a'], lambda: None)
    begun(tmp_path, {}).stop([])
    assert [json.loads(line)['image'] for line in (tmp_path / RECORDS).read_text().splitlines()] == ['a']


def test_settings_change_with_config_and_weights(tmp_path):
    def found(model, **changes):
        names = dict(model=str(model), checkpoint=None, clip_weights=None, dtype='fp32', side_by_side=False)
        return model_settings(SimpleNamespace(**{**names, **changes}))

    (tmp_path / 'base.py').write_text('model = dict(depth=1)')
    (tmp_path / 'own.py').write_text("_base_ = './base.py'")
    clip = tmp_path / 'clip.safetensors'
    clip.write_bytes(b'1')
    first = found(tmp_path / 'own.py', clip_weights=str(clip))
    assert first == found(tmp_path / 'own.py', clip_weights=str(clip)) and json.dumps(first)
    clip.write_bytes(b'2')
    (tmp_path / 'base.py').write_text('model = dict(depth=2)')
    second = found(tmp_path / 'own.py', clip_weights=str(clip))
    assert {key for key in first if first[key] != second[key]} == {'config', 'clip_weights'}

    folder = tmp_path / 'folder'
    folder.mkdir()
    settings = []
    for name in ('config.json', 'model.safetensors', 'other'):
        (folder / name).write_text('x')
        settings.append(found(folder))
    assert settings[0] != settings[1] == settings[2]


def test_a_team_divides_a_list():
    meeting = dict(MASTER_ADDR='here', MASTER_PORT='1', WORLD_SIZE='3')
    shares = [Team({**meeting, 'RANK': str(rank)}).share(range(8)) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == list(range(8)) and list(shares[1]) == [1, 4, 7]
    assert list(ALONE.share('ab')) == ['a', 'b'] and ALONE.add('x', 2) == 2 and ALONE.add('x') == 3


@pytest.mark.parametrize(
    ('environment', 'message'),
    [
        (dict(RANK='2', WORLD_SIZE='2'), 'RANK=2 and WORLD_SIZE=2 do not fit'),
        (dict(RANK='x'), 'RANK=x'),
        (dict(RANK='0', WORLD_SIZE='2'), 'MASTER_ADDR is not set: start the processes with torchrun'),
    ],
)
def test_an_incomplete_environment_is_one_line(environment, message):
    with pytest.raises(ValueError, match=message):
        Team(environment)


def test_a_log_gets_a_line_now_and_then(capsys, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    with JobProgress(1000, windows=True) as progress:
        progress.begin(1000)
        for done, elapsed in ((1, 10), (100, 50), (101, 51), (160, 80)):
            now[0] = 1000 + 2 * elapsed
            progress.update(done)
        progress.window('wide.png', 3, 90)
        now[0] += 70
        progress.window('wide.png', 30, 90)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        'alignzeg: 100 of 1,000 pictures, 1.0/s, 0:15:00 left',
        'alignzeg: 160 of 1,000 pictures, 1.0/s, 0:14:00 left',
        'alignzeg: wide.png: 30 of 90 windows',
    ]
    assert rate(0.25) == '4.0 s each'


def test_windows_are_watched(tmp_path):
    from alignzeg.apis import AlignZegInferencer

    inferencer, seen = AlignZegInferencer(), []
    inferencer.watch = lambda *told: seen.append(told)
    path = tmp_path / 'wide.png'
    Image.fromarray(np.tile(draw_scene(2, 0)[0], (1, 3, 1))).save(path)
    plain = AlignZegInferencer()(str(path), ['dots', 'grid'], windows=(128, 64))[0]
    assert np.array_equal(inferencer(str(path), ['dots', 'grid'], windows=(128, 64))[0].labels, plain.labels)
    assert seen == [(str(path), i + 1, 5) for i in range(5)]  # (384 - 128) / 64 + 1
    seen.clear()
    inferencer(str(path), ['dots'])
    assert not seen and Path(path).exists()
