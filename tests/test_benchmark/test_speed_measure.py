"""Rows, the order of steps, failures, and real steps of tiny models."""

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch import nn

from alignzeg.benchmark.published import read_published
from alignzeg.benchmark.shipped import shipped
from alignzeg.benchmark.speed import first, measure, memory, models, steps
from alignzeg.benchmark.speed.models import build, load
from alignzeg.benchmark.speed.rows import CPU_ROWS, CUDA_ROWS, MODELS, PREDICT, TRAIN, Row, choose
from alignzeg.benchmark.speed.vocabulary import VocabularyPrediction
from mmseg_alignzeg.datasets import draw_scene

DEMO = replace(choose('cpu', ['train_demo'])[0], batch=2, rounds=2)
FAKE = Row('fake', 'fake', 'predict', rounds=3)


@pytest.fixture(autouse=True)
def _unchanged_process(monkeypatch):
    for module in (measure, memory):
        monkeypatch.setattr(module, 'prepare', lambda device: None)


@pytest.fixture
def fake_steps(monkeypatch):
    """Steps that only record who was called."""
    calls = []
    monkeypatch.setattr(steps, 'make_step', lambda row, name, device: lambda: calls.append(name))
    return calls


@pytest.mark.parametrize('rows', [CPU_ROWS, CUDA_ROWS])
def test_rows_have_a_name_of_their_own_and_a_step(rows):
    assert all(count == 1 for count in Counter(row.name for row in rows).values())
    assert all(count == 1 for count in Counter(row.title for row in rows).values())
    assert {row.kind for row in rows} <= {*steps.STEPS, 'first'}
    assert all((row.per_step > 0) == row.unit.endswith('/s') for row in rows)


def test_rows_are_chosen_by_name_in_the_table_s_order():
    assert [row.name for row in choose('cpu', ['data', 'predict'])] == ['predict', 'data']
    assert choose('cuda') == list(CUDA_ROWS)
    with pytest.raises(ValueError, match="'predict_amp' is not a row of --device cpu"):
        choose('cpu', ['predict_amp'])


def test_rounds_within_a_budget_by_hand():
    assert measure.rounds_within(PREDICT, 3.0, 10) == 3
    assert measure.rounds_within(PREDICT, 0.01, 10) == PREDICT.rounds == 7
    assert measure.rounds_within(PREDICT, 60.0, 10) == measure.rounds_within(PREDICT, 1.0, 0) == 1


def test_models_take_turns_after_a_warm_up(fake_steps):
    values = measure.interleave(FAKE, MODELS, 'cpu', 10)
    assert fake_steps == ['alignzeg', 'san'] * (1 + 3)
    assert all(len(values[name]) == 3 for name in MODELS)


def test_a_long_step_is_timed_where_its_memory_is_measured(monkeypatch, fake_steps, tmp_path):
    probes = {'alignzeg': memory.Probe(11.0, 900.0), 'san': memory.Probe(23.0, 2000.0)}
    monkeypatch.setattr(measure, 'probe_all', lambda *_: probes)
    (result,), _ = measure.run(replace(FAKE, rounds=1), measure.Settings('cpu', 9, 1, 'here'))
    assert result.values == {'alignzeg': [11.0], 'san': [23.0]} and result.memory_mb['san'] == 2000.0
    assert not fake_steps


def test_both_are_prepared_at_once_but_step_one_after_the_other(monkeypatch):
    prepared, stepping, most = Barrier(2, timeout=60), set(), []  # broken, and an error, if they do not meet

    class Pool(ThreadPoolExecutor):
        def __init__(self, *_, **__):
            super().__init__(1)

    def make_step(row, name, device):
        def step():
            stepping.add(name)
            time.sleep(0.2)  # enough for another to start, if it may
            most.append(len(stepping))
            stepping.remove(name)

        prepared.wait()
        return step

    monkeypatch.setattr(memory, 'ProcessPoolExecutor', Pool)
    monkeypatch.setattr(memory.resource, 'setrlimit', lambda kind, limits: None)
    monkeypatch.setattr(steps, 'make_step', make_step)
    probes = memory.probe_all(FAKE, 'cpu', 1)
    assert list(probes) == list(MODELS) and not any(probe.failure for probe in probes.values())
    assert most == [1, 1]


def test_rates_and_figures_of_a_step(monkeypatch):
    monkeypatch.setattr(measure, 'clocked', lambda step, device: (0.5, step()))
    monkeypatch.setattr(steps, 'make_step', lambda row, name, device: lambda: 42.0 if name == 'san' else None)
    values = measure.interleave(replace(FAKE, per_step=8, rounds=1), MODELS, 'cpu', 10)
    assert values == {'alignzeg': [16.0], 'san': [42.0]}


@pytest.mark.parametrize(
    ('error', 'reason'),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 'it needs more than 7 GB'),
        (MemoryError(), 'it needs more than 7 GB'),
        (ValueError('bad\nmore'), 'ValueError: bad'),
    ],
)
def test_a_step_that_fails_gives_a_reason(monkeypatch, error, reason):
    def fails(row, name, device):
        raise error

    monkeypatch.setattr(steps, 'make_step', fails)
    monkeypatch.setattr(memory.resource, 'setrlimit', lambda kind, limits: None)
    assert memory.probe(FAKE, 'san', 'cpu', 7, __file__).failure == reason


def test_the_other_model_is_measured_without_the_one_that_failed(monkeypatch, fake_steps, tmp_path):
    probes = {'alignzeg': memory.Probe(1.0, 900.0), 'san': memory.Probe(failure='it needs more than 1 GB')}
    monkeypatch.setattr(measure, 'probe_all', lambda *_: probes)
    (result,), failures = measure.run(FAKE, measure.Settings('cpu', 9, 1, 'here'))
    assert set(result.values) == set(result.memory_mb) == {'alignzeg'} and result.memory_mb['alignzeg'] == 900.0
    assert failures == ['fake: san: it needs more than 1 GB.']


def test_first_predictions_without_and_with_a_text_bank(monkeypatch):
    calls = {'alignzeg': [], 'san': []}

    def fake(name, device, weights, cache):
        calls[name].append(cache.is_dir())
        if name == 'alignzeg':
            cache.mkdir(exist_ok=True)
        return float(len(calls[name]))

    monkeypatch.setattr(first, 'first_prediction', fake)
    monkeypatch.setattr(models, 'write_random_clip', lambda path: path.touch())
    found = first.first_predictions('cpu')
    assert calls['alignzeg'] == [False, True, True, True] and len(calls['san']) == 1
    assert found['no text bank yet'] == {'alignzeg': [1.0], 'san': [1.0]}
    assert found['warm text bank'] == {'alignzeg': [2.0, 3.0, 4.0], 'san': [1.0]}


def test_a_first_prediction_that_fails_ends_no_benchmark(monkeypatch, tmp_path):
    def fails(device):
        raise RuntimeError('no disk')

    monkeypatch.setattr(measure, 'first_predictions', fails)
    settings = measure.Settings('cpu', 9, 1, 'here')
    assert measure.run(replace(FAKE, kind='first'), settings) == ([], ['fake: RuntimeError: no disk'])


@pytest.mark.skipif(not Path('/proc/self/statm').is_file(), reason='an independent figure needs /proc')
def test_the_peak_outlives_what_caused_it():
    big = np.ones(2**25)  # 256 MB
    resident = int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20
    del big
    assert resident - 1 <= memory.peak_memory_mb('cpu') < resident + 20_000


def test_time_in_a_part(monkeypatch):
    clock = iter(range(0, 100, 5))
    monkeypatch.setattr(steps, 'now', lambda device: next(clock))
    for owner in (nn.ModuleDict({'part': nn.Identity()}), type('Plain', (), {'part': staticmethod(abs)})()):
        original = owner.part if not isinstance(owner, nn.ModuleDict) else owner['part']
        with steps.timed(owner, 'part', 'cpu') as spent:
            assert owner.part(torch.tensor(3)) == 3 and owner.part(torch.tensor(4)) == 4
        assert spent == [5, 5]
        assert (owner.part if not isinstance(owner, nn.ModuleDict) else owner['part']) is original


def test_the_demo_s_step_trains_both_models():
    values = measure.interleave(DEMO, MODELS, 'cpu', 60)
    assert all(len(values[name]) == 2 and min(values[name]) > 0 for name in MODELS)


def test_the_matcher_s_share_is_a_part_of_the_step():
    row = replace(DEMO, kind='matcher', shape=(128, 128))
    for name in MODELS:
        assert 0 < steps.make_step(row, name, 'cpu')() < 100


def test_a_training_step_changes_the_weights():
    model, optim_wrapper, _ = steps.trainer(replace(DEMO, precision='fp32'), 'alignzeg', 'cpu')
    before = model.decode_head.queries.clone()
    model.train_step(steps.random_batch(DEMO), optim_wrapper)
    assert not torch.equal(before, model.decode_head.queries)


def test_configs_of_rows():
    wide = replace(PREDICT, classes=847, windows=True)
    ours, theirs = (load(name, wide).model for name in MODELS)
    assert len(ours.classes) == theirs.decode_head.num_classes == 847
    assert ours.test_cfg == theirs.test_cfg and ours.test_cfg.stride == (480, 480)
    assert load('alignzeg', replace(TRAIN, prompts=20)).model.clip.num_prompts == 20
    assert load('alignzeg', TRAIN).model.clip.num_prompts == 0
    large = load('alignzeg', replace(PREDICT, backbone='l14')).model
    assert large.clip.tap_layer + large.clip.tail_layers <= 24 and large.decode_head.bias_heads == 16


def test_embeddings_are_ready():
    model, _ = build('alignzeg', DEMO)
    embeds = model.question.text_embeds('cpu')
    assert embeds.shape == (20, 1, model.clip.embed_dim)
    torch.testing.assert_close(embeds.norm(dim=-1), torch.ones(20, 1))
    assert model.text_bank(model.vocabulary.seen_classes) is model.text_bank(model.vocabulary.seen_classes)


def test_pictures_go_through_both_pipelines(tmp_path):
    steps.write_pictures(tmp_path, 2)
    with Image.open(tmp_path / 'images/train2017/000000000001.jpg') as image:
        assert image.size == (640, 480)
    row = replace(choose('cpu', ['data'])[0], per_step=2)
    for name in MODELS:
        assert steps.make_step(row, name, 'cpu')() is None


def test_the_included_model_finds_its_own_names_among_many():
    predict = VocabularyPrediction((128, 256), 300, 'cpu')
    labels = predict()
    truth = np.concatenate([draw_scene(2, i)[1] for i in range(2)], axis=1)
    assert labels.shape == truth.shape
    assert (labels.numpy() == truth)[truth != 255].mean() > 0.6  # chance: 1 of 300


def test_a_row_of_one_model(monkeypatch, fake_steps, tmp_path):
    row = replace(FAKE, memory=False, models=('alignzeg',))
    (result,), failures = measure.run(row, measure.Settings('cpu', 9, 1, 'here'))
    assert set(result.values) == {'alignzeg'} and not failures


def test_the_installed_configs_serve_every_folder(monkeypatch, tmp_path):
    here = load('alignzeg', PREDICT)
    monkeypatch.chdir(tmp_path)
    assert load('alignzeg', PREDICT).model == here.model
    published = read_published(shipped('configs/published_results.yml'))
    assert published.split_of(Config.fromfile(shipped('configs/alignzeg_voc.py'))) == 'voc_15_5'
