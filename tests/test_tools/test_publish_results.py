"""Every figure has one home, and stands elsewhere as it does there."""

from pathlib import Path

import yaml

from alignzeg.benchmark.speed.table import Result, write
from alignzeg.benchmark.table import Run

SCORES = ('pAcc', 'mIoU_seen', 'mIoU_unseen', 'hIoU')
ROW = dict(row='full', config='configs/ablations/patterns/table4/full.py', seeds=3, gain=1.25, low=-0.5, high=3.0)
ROW |= dict(p=0.0213, **{f'{key}_mean': 71.26 for key in SCORES}, **{f'{key}_std': 0.5 for key in SCORES})


def test_readme_study_and_metafiles_hold_the_measured_results(load_tool):
    for path, text in load_tool('publish_results').published().items():
        assert path.read_text(encoding='utf-8') == text, f'{path}: run tools/publish_results.py'


def test_a_table_between_its_marks_is_replaced_and_nothing_else(load_tool):
    text = 'before\n<!-- docs/results/a.csv -->\nold\n<!-- end -->\n<!-- docs/results/b.csv -->\nkept\n<!-- end -->\n'
    replaced = load_tool('publish_results').with_tables(text, {'docs/results/a.csv': r'new \1' + '\n'})
    assert replaced == text.replace('old', r'new \1')


def test_a_row_as_markdown(load_tool):
    line = load_tool('publish_results').markdown([ROW]).splitlines()[2]
    scores = ' | '.join(['71.3 ± 0.5'] * 4)
    assert line == f'| `full` | + background diversity, the whole method | 3 | {scores} | +1.2 | [-0.5, +3.0] | 0.021 |'
    one_seed = {
        key: value for key, value in ROW.items() if not key.endswith('_std') and key not in ('low', 'high', 'p')
    }
    line = load_tool('publish_results').markdown([one_seed]).splitlines()[2]
    assert line.endswith('| 71.3 | 71.3 | 71.3 | 71.3 | +1.2 | - | - |')


def test_a_sweep_is_no_result_of_its_config(load_tool, tmp_path, monkeypatch):
    tool = load_tool('publish_results')
    line = 'alignzeg_patterns gamma=0.1,configs/alignzeg_patterns.py,0,80.00,70.00,70.00,60.00,65.00'
    (tmp_path / 'gamma.csv').write_text(f'row,config,seed,pAcc,mIoU,mIoU_seen,mIoU_unseen,hIoU\n{line}\n')
    monkeypatch.setattr(tool, 'RESULTS', tmp_path)
    assert set(tool.published()) == {*tool.TEXTS, tool.PAGE}


def test_times_have_their_own_table(load_tool, tmp_path, monkeypatch):
    tool = load_tool('publish_results')
    path = tmp_path / 'speed_card.csv'
    write([Result('train', 'training step (s)', 'a card', {'alignzeg': [1.0], 'san': [4.0]})], path)
    text = tmp_path / 'text.md'
    text.write_text(f'<!-- {path} -->\n<!-- end -->\n')
    monkeypatch.setattr(tool, 'RESULTS', tmp_path)
    monkeypatch.setattr(tool, 'TEXTS', (text,))
    assert '| training step (s) | 1.00 | 4.00 | 0.250 |' in tool.published()[text]


def test_metafiles_name_measured_configs_alone(load_tool):
    metafile = Path('configs/ablations/patterns/metafile.yml').read_text(encoding='utf-8')
    models = yaml.safe_load(load_tool('publish_results').with_results(metafile, {ROW['config']: ROW}))['Models']
    (measured,) = [model for model in models if 'Results' in model]
    assert measured['Config'] == ROW['config'] and measured['Results'][0]['Metrics']['hIoU'] == 71.3


def test_the_gain_of_a_component_by_hand(load_tool, monkeypatch):
    tool = load_tool('publish_results')
    monkeypatch.setattr(tool, 'COMPONENTS', {'b': (('with', 'too'), ('without',))})
    runs = [
        Run(row, 'c.py', seed, dict(zip(tool.GAINS, scores, strict=True)))
        for row, seed, scores in [
            ('without', 0, (70, 60, 64)), ('without', 1, (72, 60, 65)),
            ('with', 0, (70, 60, 65)), ('with', 1, (75, 65, 70)), ('with', 2, (1, 1, 1)),
            ('too', 0, (72, 62, 67)), ('too', 1, (75, 65, 70)), ('too', 2, (1, 1, 1)),
        ]
    ]  # fmt: skip
    line = tool.component_table(runs).splitlines()[2]  # t = 7/3 with one degree of freedom, whose 97.5 % is 12.706
    assert line == '| b | +2.0 ± 1.4 | +3.0 ± 2.8 | +3.5 ± 2.1 | [-15.6, +22.6] | 0.26 | 2 of 2 |'
