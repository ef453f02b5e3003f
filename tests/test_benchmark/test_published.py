"""Published results: every one has a source, and only those of the same protocol stand beside one's own."""

from pathlib import Path

import pytest
from mmengine.config import Config

from alignzeg.benchmark.published import beside, differences, not_stated, own_protocol, read_published, scores_of
from alignzeg.benchmark.table import KEYS

ROOT = Path(__file__).parents[2]
FILE = ROOT / 'configs/published_results.yml'


@pytest.fixture(scope='module')
def published():
    return read_published(FILE)


def test_the_shipped_file_is_consistent(published):
    for row in published.rows:
        assert row['source'] and set(scores_of(row)) <= set(KEYS)
        assert 'config' not in row or (ROOT / row['config']).is_file()
        assert all(0 < score < 100 for score in scores_of(row).values())
        if {'hIoU', 'mIoU_seen', 'mIoU_unseen'} <= set(row):  # as printed, rounded thrice
            seen, unseen = row['mIoU_seen'], row['mIoU_unseen']
            assert row['hIoU'] == pytest.approx(2 * seen * unseen / (seen + unseen), abs=0.35), row
    for split in published.splits.values():
        assert published.split_of(Config.fromfile(split['config'])) in published.splits
    best = max((row for row in published.rows if row['split'] == 'context_49_10'), key=lambda row: row['hIoU'])
    assert best['method'] == 'OC-ZSS'  # the paper is not the best, and the file says so


def test_the_papers_rows_by_config(published):
    paper = published.paper()
    assert paper['configs/alignzeg_voc.py'] == {
        'where': 'AlignZeg paper, Table 1',
        **dict(pAcc=96.6, mIoU_seen=93.9, mIoU_unseen=88.2, hIoU=91.0),
    }
    assert len(paper) == 24 and paper['configs/cross_dataset/ade847.py']['mIoU'] == 10.4


@pytest.mark.parametrize(
    ('row', 'message'),
    [
        ('{method: A, split: s, hIoU: 1}', r'result 1 \(A, s\) has no `source`'),
        ('{method: A, split: s, hIoU: 1, source: ""}', 'has no `source`'),
        ('{method: B, split: s, hIoU: 1, source: x}', '`method` must be one of A'),
        ('{method: A, split: t, hIoU: 1, source: x}', '`split` must be one of s'),
        ('{method: A, split: s, source: x}', 'has no score'),
        ('{method: A, split: s, hiou: 1, source: x}', r"unknown fields \['hiou'\]"),
    ],
)
def test_rows_that_are_refused(tmp_path, row, message):
    path = tmp_path / 'published.yml'
    path.write_text(
        f'splits: {{s: {{name: S, task: GZS3, config: c.py}}}}\nmethods: {{A: {{year: 1}}}}\nresults: [{row}]'
    )
    with pytest.raises(ValueError, match=message) as error:
        read_published(path)
    assert '\n' not in str(error.value)
    with pytest.raises(FileNotFoundError, match='run this from the project folder'):
        read_published(tmp_path / 'none.yml')


def changed(path, **options):
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(options)
    return cfg


def test_own_protocols_by_hand():
    square = Config.fromfile('configs/alignzeg_context.py')
    for step in square.test_dataloader.dataset.pipeline:
        if 'scale' in step:
            step.scale = 512
    assert own_protocol(square)['input'] == 512
    own = own_protocol(Config.fromfile('configs/alignzeg_context.py'))
    assert own == dict(training='inductive', window='whole', input=640, calibration='PBC', background='dropped')
    own = own_protocol(Config.fromfile('configs/ablations/context/windows.py'))
    assert (own['window'], own['stride']) == (480, 80)
    cfg = changed('configs/alignzeg_voc.py', **{'model.decoder.type': 'EnsembleDecoder'})
    cfg.model.decoder.views = [dict(), dict(scale=0.5)]
    assert own_protocol(cfg)['window'] == 'ensemble of 2 views'
    stacking = {'model.bias_correction': None, 'model.calibration.type': 'CalibratedStacking'}
    cfg = changed('configs/alignzeg_voc.py', **stacking, **{'model.calibration.constant': 0.1})
    cfg.model.test_cfg = dict(background_at_test='ignore')
    assert (own_protocol(cfg)['calibration'], own_protocol(cfg)['background']) == (0.1, 'ignored')
    assert own_protocol(Config.fromfile('configs/ablations/voc/table4/baseline.py'))['calibration'] == 'none'


def test_differences_by_hand():
    own = dict(training='inductive', window='whole', calibration='PBC', background='dropped')
    assert differences(dict(training='inductive', calibration=0.1), own) == []  # both lower seen scores
    assert differences(dict(training='transductive', calibration='none'), own) == [
        'training transductive',
        'calibration none',
    ]
    assert differences(dict(window=480, stride=80), own) == ['window 480', 'stride 80']
    assert differences(dict(window=480, stride=80), {**own, 'window': 480, 'stride': 80}) == []
    assert not_stated(dict(training='inductive', window='whole', calibration=0.1)) == ['background']


def test_nothing_is_calibrated_where_all_classes_are_unseen(published):
    rows = [dict(row='voc', config='', seeds=1, mIoU_mean=80.0, mIoU_std=1.5)]
    text = beside(published, rows, {'voc': Config.fromfile('configs/zs3/voc.py')})
    assert '| SAN | 94.1 |' in text and 'calibration' not in text


def test_own_results_stand_beside_those_of_the_same_protocol(published):
    configs = {name: Config.fromfile(f'configs/ablations/voc/table4/{name}.py') for name in ('baseline', 'full')}
    rows = [dict(row=name, config='', seeds=1, hIoU_mean=80.0, hIoU_std=1.5) for name in configs]
    without, with_pbc = beside(published, rows, configs).split('PASCAL VOC 2012')[1:]
    methods = [line.split(' | ')[0].removeprefix('| ') for line in without.splitlines() if line.startswith('| ')][2:]
    # The baseline has no calibration: SAN has none either, ZegCLIP and AlignZeg have.
    assert methods[0] == '`baseline` (own)' and 'SAN' in methods and not {'ZegCLIP', 'AlignZeg'} & set(methods)
    assert 'AlignZeg (calibration PBC)' in without and 'OC-ZSS (training transductive)' in without
    assert '`full` (own) | 80.0 ± 1.5' in with_pbc and '| AlignZeg |' in with_pbc and '| SAN |' not in with_pbc
    assert 'OTSeg (window 512, stride 426)' in with_pbc and 'ZegCLIP (window 512, stride 426)' in with_pbc
    for path in ('configs/alignzeg_patterns.py', 'configs/ablations/voc/table6/full_oracle.py'):
        assert beside(published, rows[:1], {'baseline': Config.fromfile(path)}) == ''
