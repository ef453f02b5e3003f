"""The model index is what mim reads: every config stands in it once."""

from pathlib import Path

import yaml
from mim.commands.search import convert2df
from modelindex.load_model_index import load

ROOT = Path(__file__).parents[1]


def test_index_names_every_config_once():
    listed = [model.config for model in load(str(ROOT / 'model-index.yml')).models]
    configs = (path.relative_to(ROOT) for path in (ROOT / 'configs').rglob('*.py'))
    expected = [str(path) for path in configs if '_base_' not in path.parts]
    assert sorted(listed) == sorted(expected) and len(listed) == 63


def test_mim_can_search_it():
    table = convert2df(load(str(ROOT / 'model-index.yml')))
    assert table.loc['ablations_voc_table4_baseline', 'config'] == 'configs/ablations/voc/table4/baseline.py'
    assert table.loc['zs3_coco', 'training_data'] == 'coco-stuff 164k (156 seen classes)'


def test_the_package_carries_it():
    assert (ROOT / 'mmseg_alignzeg/.mim/model-index.yml').samefile(ROOT / 'model-index.yml')
    assert (ROOT / 'mmseg_alignzeg/.mim/configs').samefile(ROOT / 'configs')


def test_results_are_of_the_embedded_world_alone():
    """Nothing else can be measured here; published figures are in published_results.yml, apart."""
    for path in (ROOT / 'configs').rglob('metafile.yml'):
        for model in yaml.safe_load(path.read_text())['Models']:
            for result in model.get('Results', []):
                assert result['Dataset'] == 'Patterns', model['Name']
