"""What the pass keeps of an image, and what it refuses."""

from types import SimpleNamespace

import pytest
import torch
from mmseg.structures import SegDataSample
from torch.nn.functional import interpolate

from alignzeg.analysis import AnalysisTask, collect
from mmseg_alignzeg.models import AlignZegCriterion, SemanticDecoder
from mmseg_alignzeg.models.proposals import Window
from mmseg_alignzeg.vocabulary import Vocabulary


class Dataset(list):
    def __init__(self, length=2, **metainfo):
        super().__init__(range(length))
        self.metainfo = metainfo


class Model:
    vocabulary = Vocabulary(('cat', 'dog', 'sky'), ('dog',))
    question = SimpleNamespace(background_at_test='share')
    decoder, tiling = SemanticDecoder(), None


def test_classes_and_split_come_from_the_data():
    task = AnalysisTask.of(Model(), Dataset(classes=['sky', 'dog', 'zebra'], unseen_classes=['zebra']), 255)
    assert task.vocabulary.classes == ('sky', 'dog', 'zebra') and task.images == 2
    assert task.unseen.tolist() == [False, False, True]
    assert task.trained.tolist() == [True, False, False] and task.has_both


def test_data_without_a_split_is_split_by_name():
    task = AnalysisTask.of(Model(), Dataset(classes=['sky', 'dog', 'zebra']), 255)
    assert task.vocabulary.unseen_classes == ('dog', 'zebra')
    assert not AnalysisTask.of(Model(), Dataset(classes=['sky', 'cat']), 255).has_both


def test_an_empty_test_set_is_refused():
    with pytest.raises(ValueError, match=r'test set is empty.*\(Dataset\) has no image'):
        AnalysisTask.of(Model(), Dataset(0, classes=['sky']), 255)


def test_labels_lie_where_the_image_is():
    labels = torch.tensor([[1, 2], [3, 4]])
    window = Window(top=0.25, left=0.0, height=0.5, width=0.75, size=(2, 2))
    expected = torch.full((8, 8), 9)
    expected[2:6, :6] = interpolate(labels[None, None].float(), size=(4, 6))[0, 0].long()
    assert torch.equal(window.place(labels, (8, 8), 9), expected)


def test_the_fitting_proposal_is_matched_whatever_its_number():
    labels = torch.full((8, 8), 65535)
    labels[:4], labels[6:, :4] = 1, 255  # 255 may be a class
    masks = torch.full((3, 8, 8), -9.0)
    masks[2, :4], masks[1, 6:, :4] = 9, 9
    pairs = AlignZegCriterion(num_points=500).match(masks, torch.zeros(3, 301), labels, 65535)
    assert sorted(pairs.tolist()) == [[1, 255], [2, 1]]


def test_an_image_without_labels_is_named():
    class Forward(Model):
        stride = 16

        def ask(self, classes):
            return SimpleNamespace(text_embeds=lambda device: None)

        def data_preprocessor(self, batch):
            return batch

        def look(self, inputs):
            return [SimpleNamespace(mask_logits=torch.zeros(1, 3, 1, 1))]

        def classify(self, proposals, text_embeds):
            return torch.zeros(1, 3, 4)

        def indicate(self, proposals):
            return None

    model = Forward()
    task = AnalysisTask.of(model, Dataset(classes=['sky']), 255)
    sample = SegDataSample(metainfo=dict(img_path='a.png'))
    with pytest.raises(ValueError, match=r'a\.png has no labels: put `LoadAnnotations`'):
        next(collect(model, [{'inputs': torch.zeros(1, 3, 16, 16), 'data_samples': [sample]}], task))
