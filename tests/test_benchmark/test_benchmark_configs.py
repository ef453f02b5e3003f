"""The runner of config folders: what it plans, what its tables say, and a real run with a sweep."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.progress import Progress

from alignzeg.benchmark.bench import Bench, device_groups
from alignzeg.benchmark.plan import plan
from alignzeg.benchmark.published import read_published
from alignzeg.benchmark.sweep import Sweep, read_sweep
from alignzeg.benchmark.table import finished_runs, markdown, read_runs, table_rows, write_tables
from alignzeg.cli import main

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, '-m', 'alignzeg', 'bench']
PUBLISHED = ROOT / 'configs/published_results.yml'
TABLE4 = ROOT / 'configs/ablations/patterns/table4'
SWEEPS = ROOT / 'configs/ablations/sweeps.yml'
PATTERNS = ROOT / 'configs/alignzeg_patterns.py'
SWEEP = [PATTERNS, '--sweep', 'background_at_test']
SMALL = [
    'train_cfg.max_iters=2',
    'train_cfg.val_interval=9',
    'test_dataloader.dataset.length=2',
    'default_hooks.checkpoint.interval=1',
]


def test_rows_that_share_a_training_train_once(tmp_path):
    trials = plan(TABLE4, [0, 1], tmp_path, {})
    assert [trial.row for trial in trials[::2]] == [
        'baseline',
        'baseline_pbc',
        'baseline_pbc_mrpe',
        'baseline_pbc_mrpe_fes',
        'full',
    ]
    full = trials[-1]
    assert full.train.config == Path('configs/alignzeg_patterns.py') and full.test.config.stem == 'full'
    assert full.train.work_dir == tmp_path / 'alignzeg_patterns/seed1'
    assert dict(full.train.options) == dict(full.test.options) == {'randomness.seed': 1}
    gamma = plan(PATTERNS, [1], tmp_path, {}, read_sweep(SWEEPS, 'gamma'))
    assert {trial.train for trial in gamma} == {full.train}
    assert [dict(trial.test.options)['model.bias_correction.gamma'] for trial in gamma][::9] == [0.1, 1.0]
    assert gamma[0].row == 'alignzeg_patterns gamma=0.1'
    assert gamma[0].test.work_dir == tmp_path / 'alignzeg_patterns/gamma/gamma=0.1/seed1/test'


def test_a_sweep_of_training_trains_every_value(tmp_path):
    lambda3 = read_sweep(SWEEPS, 'lambda3')
    trials = plan(PATTERNS, [0], tmp_path, {}, lambda3)
    losses = [trial.train.load().model.criterion for trial in trials]
    assert [loss.feature_expansion.loss_weight for loss in losses] == [0.1, 0.01, 0.001, 0.0001]
    assert trials[1].train.work_dir == tmp_path / 'alignzeg_patterns/lambda3/lambda3=0.01/seed0'
    assert len({trial.train.work_dir for trial in trials}) == 4
    strict = plan(
        ROOT / 'configs/zs3/patterns.py', [0], tmp_path, {}, lambda3
    )  # tests checkpoints of alignzeg_patterns
    assert [trial.train for trial in strict] == [trial.train for trial in trials]
    assert strict[1].test.work_dir == tmp_path / 'zs3/patterns/lambda3/lambda3=0.01/seed0/test'


def test_a_sweep_sets_what_all_its_values_need(tmp_path):
    trials = plan(PATTERNS, [0], tmp_path, {}, read_sweep(SWEEPS, 'stacking'))
    models = [trial.test.load().model for trial in trials]
    assert all(model.bias_correction is None for model in models)
    assert [model.calibration for model in models] == [
        dict(type='CalibratedStacking', constant=constant) for constant in (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
    ]
    assert {trial.train for trial in trials} == {plan(PATTERNS, [0], tmp_path, {})[0].train}


def test_values_of_a_sweep_can_depend_on_the_clip(tmp_path):
    sweep = read_sweep(SWEEPS, 'mask_scale')
    for name, values in dict(patterns=[1.0, 0.3, 0.1], voc=[1.0, 0.25, 0.065], coco=[1.0, 0.25, 0.065]).items():
        trials = plan(ROOT / f'configs/alignzeg_{name}.py', [0], tmp_path, {}, sweep)
        assert [trial.train.load().model.decode_head.mask_scale for trial in trials] == values
    with pytest.raises(ValueError, match=r"'mask_scale' .*ViT-B-16-quickgelu, tiny_clip"):
        plan(ROOT / 'configs/peers/training/san_patterns.py', [0], tmp_path, {}, sweep)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{b: {}, c: {}}', "no sweep 'a' in .*: b, c"),
        ('a: {varies: x, key: y, values: [1]}', "a: .*missing .*'trains'"),
        ('a: {varies: x, key: y, values: [1], trains: no, more: 1}', "a: .*unexpected .*'more'"),
        ('a: {varies: x, key: y, values: [], trains: no}', 'a: there are no values'),
    ],
)
def test_sweeps_that_cannot_be_read(tmp_path, text, message):
    (tmp_path / 'sweeps.yml').write_text(text)
    with pytest.raises(ValueError, match=message):
        read_sweep(tmp_path / 'sweeps.yml', 'a')
    with pytest.raises(FileNotFoundError, match='run this from the project folder'):
        read_sweep(tmp_path / 'no.yml', 'a')


def write_result(trial, **scores):
    trial.test.work_dir.mkdir(parents=True)
    (trial.test.work_dir / 'result.json').write_text(json.dumps({'scores': scores}))


def test_tables_by_hand(tmp_path):
    trials = plan(TABLE4, [0, 1, 2], tmp_path, {})
    for trial, score in zip(trials[:3], (10.0, 11.0, 15.0), strict=True):
        write_result(trial, pAcc=score, hIoU=2 * score)
    write_result(trials[3], pAcc=50.0)
    paper = {str(trials[0].config): {'where': 'Table 4', 'pAcc': 94.1, 'hIoU': 81.4}}
    runs = finished_runs(trials)
    rows = table_rows(runs, paper)
    assert [row['seeds'] for row in rows] == [3, 1]
    assert rows[0]['pAcc_mean'] == 12 and rows[0]['pAcc_std'] == pytest.approx(7**0.5)  # (4 + 1 + 9) / 2
    assert rows[0]['hIoU_std'] == pytest.approx(2 * 7**0.5) and 'pAcc_std' not in rows[1]
    assert markdown(rows).splitlines() == [
        '| config | seeds | pAcc | hIoU | paper: pAcc | paper: hIoU | paper: where |',
        '| --- | --- | --- | --- | --- | --- | --- |',
        '| `baseline` | 3 | 12.0 ± 2.6 | 24.0 ± 5.3 | 94.1 | 81.4 | Table 4 |',
        '| `baseline_pbc` | 1 | 50.0 | - | - | - | - |',
    ]
    write_tables(rows, runs, tmp_path)
    assert table_rows(read_runs(tmp_path / 'runs.csv'), paper) == rows
    assert (tmp_path / 'runs.csv').read_text().splitlines()[1:3] == [
        'baseline,configs/ablations/patterns/table4/baseline.py,0,10.00,,,,20.00',
        'baseline,configs/ablations/patterns/table4/baseline.py,1,11.00,,,,22.00',
    ]
    swept = plan(ROOT / 'configs/alignzeg_voc.py', [0], tmp_path, {}, read_sweep(SWEEPS, 'gamma'))
    write_result(swept[2], hIoU=90.0)  # the paper's row of this config is not beside its sweep
    assert 'paper' not in table_rows(finished_runs(swept), read_published(PUBLISHED).paper())[0]
    assert "are the paper's own figures" in (tmp_path / 'table.md').read_text()


def test_paired_comparison_by_hand(tmp_path):
    trials = plan(TABLE4, [0, 1, 2], tmp_path, {})
    for trial, score in zip(trials[:6], (10.0, 20.0, 30.0, 12.0, 21.0, 33.0), strict=True):
        write_result(trial, hIoU=score)
    runs = finished_runs(trials)
    base, better = table_rows(runs, {}, 'baseline')
    assert 'gain' not in base and better['gain'] == 2  # differences 2, 1, 3: mean 2, standard error 1 / √3
    t = 2 * 3**0.5
    # The t distribution with two degrees of freedom has a closed form.
    assert better['p'] == pytest.approx(1 - t / (t**2 + 2) ** 0.5)
    half = 4.302653 / 3**0.5  # the 97.5 % quantile of that distribution, from a table
    assert (better['low'], better['high']) == (pytest.approx(2 - half, abs=1e-5), pytest.approx(2 + half, abs=1e-5))
    assert '| Δ hIoU | 95 % | p |' in markdown([base, better])
    assert '| +2.0 | [-0.5, +4.5] | 0.074 |' in markdown([base, better])
    assert 'gain' not in table_rows(runs, {}, 'full')[0]  # a row that failed


def test_gpus_are_shared_out(monkeypatch):
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 5)
    assert device_groups(None, 2) == [['0', '1'], ['2', '3']]
    assert device_groups(1, 1) == [['0']]
    with pytest.raises(ValueError, match=r'3 job\(s\) with 2 GPU\(s\) each .* torch sees 5'):
        device_groups(3, 2)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,7')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    assert device_groups(None, 1) == [['4'], ['7']]
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    assert device_groups(2, 1) == [[], []]


def test_a_config_that_names_no_config_cannot_be_planned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs/a.py').write_text("model = dict(depth=1)\ntrained_by = 'configs/no.py'")
    with pytest.raises(FileNotFoundError, match=r'`trained_by` names configs/no\.py'):
        plan(tmp_path / 'configs', [0], tmp_path, {})


def test_any_config_below_configs_can_be_swept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs/mine.py').write_text('model = dict(depth=1)')
    sweep = Sweep('depth', 'layers', 'model.depth', [1, 2], True)
    trials = plan(Path('configs/mine.py'), [0], tmp_path, {}, sweep)
    assert [trial.train.load().model.depth for trial in trials] == [1, 2]


def run(work_dir, *options):
    return main(['bench', *map(str, SWEEP), '--work-dir', str(work_dir), '--cfg-options', *SMALL, *options])


def test_a_real_run_is_not_repeated_goes_on_and_is_not_mixed(tmp_path, capsys):
    assert run(tmp_path) == 0
    assert (tmp_path / 'alignzeg_patterns/seed0/iter_2.pth').is_file()
    table = (tmp_path / 'alignzeg_patterns/background_at_test/table.md').read_text()
    assert table.count('| `alignzeg_patterns background_at_test=') == 2 and 'hIoU' in table
    results = list(tmp_path.rglob('result.json'))
    times = {path: path.stat().st_mtime_ns for path in results}
    assert len(results) == 2 and run(tmp_path) == 0
    assert times == {path: path.stat().st_mtime_ns for path in results}

    # As if the last checkpoint and one result had been lost.
    trained = tmp_path / 'alignzeg_patterns/seed0'
    (trained / 'iter_2.pth').unlink()
    (trained / 'last_checkpoint').write_text(str(trained / 'iter_1.pth'))
    results[-1].unlink()
    assert run(tmp_path) == 0
    assert 'resumed epoch: 0, iter: 1' in (trained / 'train.log').read_text()
    assert (trained / 'iter_2.pth').is_file() and all(path.is_file() for path in results)

    assert run(tmp_path, 'model.criterion.num_points=7') == 2
    assert 'created with another version of' in capsys.readouterr().err
    assert run(tmp_path / 'broken', 'model.text.templates=nonsense') == 1
    assert "Unknown template set 'nonsense'" in capsys.readouterr().out.replace('\n', ' ')


def test_ctrl_c_ends_everything_at_once(tmp_path):
    command = [*COMMAND, *SWEEP, '--work-dir', tmp_path, '--cfg-options', *SMALL]
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        # Tests that run in the background of a shell inherit that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    log = tmp_path / 'alignzeg_patterns/seed0/train.log'
    deadline = time.monotonic() + 120
    while not (log.is_file() and 'mmengine' in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and 'Stopped' in printed and 'failed' not in printed
    assert not list(tmp_path.rglob('test.log'))
    left = subprocess.run(['pgrep', '-f', f'mim.*{tmp_path}'], capture_output=True, text=True).stdout
    assert not left, left


def test_kill_ends_everything_too(tmp_path, monkeypatch):
    started = tmp_path / 'started'
    code = f'import pathlib, time; pathlib.Path({str(started)!r}).touch(); time.sleep(60)'
    monkeypatch.setattr('alignzeg.benchmark.bench.MIM', [sys.executable, '-c', code])

    def kill():
        while not started.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        threading.Thread(target=kill, daemon=True).start()
        begin = time.monotonic()
        assert run(tmp_path) == 130 and time.monotonic() - begin < 50
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_process_that_starts_after_ctrl_c_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr('alignzeg.benchmark.bench.MIM', [sys.executable, '-c', 'import time; time.sleep(60)'])
    bench = Bench([[]], Progress())
    job = SimpleNamespace(work_dir=tmp_path, config='config.py', options=())
    job.fingerprint = lambda: bench.stopping.set() or ''  # Ctrl-C comes while a run is prepared
    assert not bench._mim('train', job, [], [])  # left alone, the process succeeds


def test_options_and_rows_are_checked_before_anything_runs(tmp_path, capsys):
    command = ['bench', str(TABLE4), '--work-dir', str(tmp_path)]
    for arguments, message in (
        (['--compare-with', 'baselin'], "--compare-with 'baselin'"),
        (['--sweep', 'gama'], "There is no sweep 'gama' in configs/ablations/sweeps.yml"),
        (['--sweep', 'gamma'], 'baseline.py cannot take the options'),  # it has no PBC
        (['--cfg-options', 'model.class_indicator.balanced=False'], 'baseline.py cannot take the options'),
    ):
        assert main([*command, *arguments]) == 2
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
