"""Which names of other datasets mean a class that training had labels for."""

import pytest
from mmengine.config import Config
from mmseg.datasets import ADE20KDataset, COCOStuffDataset, PascalContextDataset59, PascalVOCDataset

from mmseg_alignzeg.aliases import canonical
from mmseg_alignzeg.datasets import ADE20KFullDataset
from mmseg_alignzeg.vocabulary import Vocabulary

DATASETS = {'voc': PascalVOCDataset, 'context': PascalContextDataset59, 'ade': ADE20KDataset}


@pytest.fixture
def coco():
    return Vocabulary(COCOStuffDataset.METAINFO['classes'])


@pytest.mark.parametrize(
    'name', ['sofa', 'Sofa', 'couch', ' couch', 'bed ', 'aeroplane', 'tvmonitor', 'sky', 'windowpane']
)
def test_an_alias_of_a_trained_class_is_seen(coco, name):
    assert coco.has_labels_for(name)


@pytest.mark.parametrize('name', ['sign', 'bag', 'palm', 'ship', 'computer', 'sofa bed'])
def test_a_kind_or_a_part_is_not(coco, name):
    assert not coco.has_labels_for(name)


# By exact spelling 6, 23 and 104 names were unseen.
@pytest.mark.parametrize(('dataset', 'unseen'), [('voc', 0), ('context', 6), ('ade', 81)])
def test_how_many_classes_of_other_data_are_unseen_after_coco(coco, dataset, unseen):
    names = [name for name in DATASETS[dataset].METAINFO['classes'] if name != 'background']
    assert sum(not coco.has_labels_for(name) for name in names) == unseen


def test_the_first_synonym_of_a_list_counts(coco):
    names = ADE20KFullDataset.METAINFO['classes']
    seen = list(filter(coco.has_labels_for, names))
    assert len(seen) == 105  # by whole lists 61, without "person, individual, …" and "car, auto, …"
    assert {'car, auto, automobile, machine, motorcar', 'building, edifice'} <= set(seen)
    assert not coco.has_labels_for('andiron, firedog, dog, dog-iron')


def test_an_unseen_class_stays_unseen_beside_its_alias():
    vocabulary = Vocabulary(['couch', 'sofa', 'car'], ['sofa'])
    assert vocabulary.has_labels_for('couch') and not vocabulary.has_labels_for('sofa')
    assert Vocabulary.of_test_data(dict(classes=['sofa', 'car ']), vocabulary).unseen_classes == ('sofa',)


@pytest.mark.parametrize('config', ['voc', 'coco', 'context'])
def test_no_two_classes_of_a_training_vocabulary_are_aliases(config):
    classes = Config.fromfile(f'configs/alignzeg_{config}.py').model.classes
    assert len(set(map(canonical, classes))) == len(classes)
