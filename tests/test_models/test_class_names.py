import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmseg.datasets import COCOStuffDataset, PascalContextDataset59, PascalVOCDataset
from mmseg.registry import MODELS

from mmseg_alignzeg.models import CLIPSource, TextBank
from mmseg_alignzeg.models.class_names import ClassNames, read_names
from mmseg_alignzeg.models.semantic_head import CLIPSemanticHead


@pytest.fixture
def names_file(tmp_path):
    path = tmp_path / 'names.txt'
    path.write_text('# a comment\n\nsofa: couch, settee\ntvmonitor:television\n')
    return str(path)


@pytest.mark.parametrize(
    ('source', 'combine', 'expected'),
    [
        ('raw', 'mean', [('sofa',), ('car, auto',)]),
        ('comma', 'first', [('sofa',), ('car',)]),
        ('comma', 'max', [('sofa',), ('car', 'auto')]),
        ('FILE', 'first', [('couch',), ('car, auto',)]),
        ('FILE', 'mean', [('couch', 'settee'), ('car, auto',)]),
    ],
)
def test_phrases(names_file, source, combine, expected):
    names = ClassNames(names_file if source == 'FILE' else source, combine)
    assert names.of(['sofa', 'car, auto']) == expected


def test_the_shipped_file_names_classes_of_the_three_datasets():
    datasets = (PascalVOCDataset, PascalContextDataset59, COCOStuffDataset)
    known = {name for dataset in datasets for name in dataset.METAINFO['classes']}
    table = read_names('cleaned')
    assert set(table) <= known
    # Cleaned names have neither hyphens nor words run together, and no two classes of a dataset share one.
    assert not any('-' in phrases[0] for phrases in table.values())
    for dataset in datasets:
        cleaned = [names for (names,) in ClassNames('cleaned').of(dataset.METAINFO['classes'])]
        assert len(set(cleaned)) == len(cleaned)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('sofa\n', "line 1: expected `name: phrase, phrase`, got 'sofa'"),
        ('sofa: ,\n', 'line 1: expected'),
        ('sofa: couch\nsofa: settee\n', "line 2: 'sofa'"),
    ],
)
def test_malformed_files(tmp_path, content, message):
    (tmp_path / 'names.txt').write_text(content)
    with pytest.raises(ValueError, match=message):
        ClassNames(str(tmp_path / 'names.txt'))


def test_other_mistakes(names_file):
    with pytest.raises(ValueError, match="combine='median' must be one of"):
        ClassNames(combine='median')
    with pytest.raises(FileNotFoundError, match=r"No file 'nowhere\.txt'.*'cleaned'"):
        ClassNames('nowhere.txt')
    with pytest.raises(ValueError, match=r"names none of the 2 classes \('cat', …\).*'sofa'"):
        ClassNames(names_file).of(['cat', 'dog'])


def test_prototypes_of_synonyms(names_file, tmp_path):
    source = CLIPSource('tiny_clip', None)
    plain = TextBank(source, 'single', str(tmp_path))
    couch, settee, cat = plain(['couch', 'settee', 'cat'])[:, 0]
    mean = TextBank(source, 'single', str(tmp_path), ClassNames(names_file, 'mean'))(['sofa', 'cat'])
    torch.testing.assert_close(mean, torch.stack([F.normalize(couch + settee, dim=0), cat])[:, None])
    every = TextBank(source, 'single', str(tmp_path), ClassNames(names_file, 'max'))(['sofa', 'cat'])
    torch.testing.assert_close(every, torch.stack([torch.stack([couch, settee]), torch.stack([cat, cat])]))

    head = CLIPSemanticHead(embed_dim=couch.numel(), num_backgrounds=1)
    feats = F.normalize(torch.randn(2, 5, couch.numel()), dim=-1)
    scores = head.scores(feats, every, 10.0)
    torch.testing.assert_close(scores[..., 0], 10 * torch.maximum(feats @ couch, feats @ settee))
    torch.testing.assert_close(scores[..., 1], 10 * feats @ cat)


def test_names_are_a_config_option(names_file):
    cfg = Config.fromfile('configs/alignzeg_patterns.py').model
    cfg.update(classes=['sofa', 'cat', 'dog'], unseen_classes=['dog'])
    cfg.text = dict(templates='single', names=dict(source=names_file, combine='max'))
    cfg.clip.pretrained = None
    model = MODELS.build(cfg).eval()
    assert model.text_bank(model.vocabulary.classes).shape[:2] == (3, 2)
    assert model.class_probs(model.extract_feat(torch.randn(1, 3, 64, 64))).shape == (1, 100, 3)
