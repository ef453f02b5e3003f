"""Every shipped config builds, trains a step and predicts; every split is what the paper says."""

import copy
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.structures import PixelData
from mmseg.datasets import COCOStuffDataset, PascalContextDataset59, PascalVOCDataset
from mmseg.registry import DATASETS, METRICS, MODELS, TRANSFORMS
from mmseg.structures import SegDataSample
from PIL import Image

from alignzeg.benchmark.speed.models import SAN
from alignzeg.benchmark.sweep import read_sweep
from mmseg_alignzeg.datasets.large_vocabulary import LargeVocabularyDataset
from mmseg_alignzeg.models import AlignZeg, CLIPSource
from mmseg_alignzeg.models.towers import with_statistics
from mmseg_alignzeg.vocabulary import Vocabulary

ROOT = Path(__file__).parents[1]
PATHS = sorted(path.relative_to(ROOT) for path in (ROOT / 'configs').rglob('*.py'))
CONFIGS = [str(path) for path in PATHS if path.match('configs/alignzeg_*.py')]
FULL_SIZE = [path for path in CONFIGS if 'patterns' not in path]
EVERY = [str(path) for path in PATHS if not {'_base_', 'peers'} & set(path.parts)]
SWEEP_FILE = ROOT / 'configs/ablations/sweeps.yml'
SWEEPS = list(yaml.safe_load(SWEEP_FILE.read_text(encoding='utf-8')))


def random_clip(path):
    cfg = Config.fromfile(path)
    cfg.model.clip.pretrained = None
    cfg.model.text = dict(templates='single')  # the text tower of ViT-B/16 takes a while on a CPU
    return cfg


@cache
def built_vocabulary(model):
    """The vocabulary of a model that is built from its config in text form; many configs share one."""
    return MODELS.build(Config.fromstring(model, '.py').model).vocabulary


@pytest.fixture
def _no_clip_weights(monkeypatch):
    """Vision towers without memory and numbers: hundreds of millions of random ones take seconds."""
    load = CLIPSource.load_vision

    def load_shapes(self):
        with torch.device('meta'):
            return load(self)

    monkeypatch.setattr(CLIPSource, 'load_vision', load_shapes)


@pytest.mark.parametrize('path', EVERY)
@pytest.mark.usefixtures('_no_clip_weights')
def test_every_config_builds(path):
    cfg = random_clip(path)
    assert Path(cfg.get('trained_by', path)).is_file()
    vocabulary = built_vocabulary(Config(dict(model=cfg.model.to_dict())).pretty_text)
    assert vocabulary == Vocabulary(cfg.model.classes, cfg.model.unseen_classes)
    loaders = [cfg[f'{split}_dataloader'].dataset for split in ('train', 'val', 'test')]
    for dataset in (part for loader in loaders for part in loader.get('datasets', [loader])):
        names = dataset.metainfo.get('classes') or DATASETS.get(dataset.type).METAINFO['classes']
        Vocabulary(names, dataset.metainfo.unseen_classes or ())
        assert len(Compose(dataset.pipeline).transforms) >= 2
        wide = issubclass(DATASETS.get(dataset.type), LargeVocabularyDataset)
        assert any(step.type == 'LoadWideAnnotations' for step in dataset.pipeline) == wide
    if wide or 'tta_model' in cfg:  # as `mim test --tta` puts them together
        assert cfg.tta_pipeline == cfg.test_dataloader.dataset.pipeline
    metric = METRICS.build(cfg.test_evaluator)
    assert metric.ignore_index == (65535 if wide else 255)


def test_the_model_of_tta_is_an_ensemble():
    cfg = random_clip('configs/alignzeg_patterns.py')
    model = MODELS.build({**cfg.tta_model, 'module': cfg.model}).eval()
    assert isinstance(model, AlignZeg) and len(model.decoder.views) == 3
    assert model.predict(torch.randn(1, 3, 128, 128))[0].pred_sem_seg.data.shape == (1, 128, 128)


@pytest.mark.parametrize('name', SWEEPS)
def test_every_value_of_a_sweep_trains_and_predicts(name):
    """In the embedded world; other configs have the same keys."""
    cfg = random_clip('configs/alignzeg_patterns.py')
    labels = torch.zeros(1, 128, 128, dtype=torch.long)
    labels[:, :, 64:] = 7
    for overrides in read_sweep(SWEEP_FILE, name).overrides(cfg).values():
        each = Config(copy.deepcopy(cfg.to_dict()))
        each.merge_from_dict(overrides)
        model = MODELS.build(each.model).train()
        sample = SegDataSample(gt_sem_seg=PixelData(data=labels))
        assert all(loss.isfinite() for loss in model.loss(torch.randn(1, 3, 128, 128), [sample]).values())
        assert model.eval().predict(torch.randn(1, 3, 128, 128))[0].pred_sem_seg.data.shape == (1, 128, 128)


@pytest.mark.parametrize('path', FULL_SIZE)
def test_every_sweep_fits_the_full_size_configs(path):
    for name in SWEEPS:
        for overrides in read_sweep(SWEEP_FILE, name).overrides(Config.fromfile(path)).values():
            Config.fromfile(path).merge_from_dict(overrides)


@pytest.mark.parametrize('path', [path for path in EVERY if 'ablations' in path or 'towers' in path])
def test_variants_are_small(path):
    assert len(Path(path).read_text().splitlines()) <= (20 if 'ablations' in path else 15)


@pytest.mark.parametrize('path', [path for path in EVERY if 'towers' in path])
def test_towers_differ_from_the_method_in_clip_and_its_heads_alone(path):
    cfg = Config.fromfile(path)
    method = Config.fromfile(
        'configs/cross_dataset/alignzeg_coco171.py' if '171' in path else 'configs/alignzeg_coco.py'
    )
    assert {key for key in cfg.keys() | method.keys() if cfg.get(key) != method.get(key)} == {'model'}
    different = {key for key in cfg.model if cfg.model[key] != method.model[key]}
    assert different <= {'clip', 'decode_head'}
    assert cfg.model.decode_head == {**method.model.decode_head, 'bias_heads': cfg.model.decode_head.bias_heads}


@pytest.mark.parametrize('path', [path for path in EVERY if 'ablations' in path])
def test_ablations_differ_from_the_method_in_the_model_alone(path):
    cfg = Config.fromfile(path)
    method = Config.fromfile(f'configs/alignzeg_{Path(path).parts[2]}.py')
    different = {key for key in cfg.keys() | method.keys() if cfg.get(key) != method.get(key)}
    assert different <= {'model', 'trained_by'}


def test_table_4_adds_one_part_at_a_time():
    for name in ('voc', 'coco', 'msrc', 'ccp', 'patterns'):
        rows = ('baseline', 'baseline_pbc', 'baseline_pbc_mrpe', 'baseline_pbc_mrpe_fes', 'full')
        models = [Config.fromfile(f'configs/ablations/{name}/table4/{row}.py').model for row in rows]
        parts = [{**model, **model.criterion, 'type': model.type} for model in models]
        for part in parts:
            del part['criterion']
        added = [{key for key in a if a[key] != b.get(key)} for a, b in pairwise(parts)]
        expected = [{'class_indicator', 'bias_correction'}, {'decode_head'}, {'feature_expansion'}]
        assert added == [*expected, {'semantic_head', 'background_diversity'}]
        assert models[-1] == Config.fromfile(f'configs/alignzeg_{name}.py').model


@pytest.mark.parametrize('name', ['voc', 'coco', 'context', 'patterns'])
def test_strict_setting_has_unseen_classes_only(name):
    cfg, trained = Config.fromfile(f'configs/zs3/{name}.py'), Config.fromfile(f'configs/alignzeg_{name}.py')
    metainfo = cfg.test_dataloader.dataset.metainfo
    assert metainfo.classes == metainfo.unseen_classes == trained.unseen_classes
    assert cfg.model == trained.model and cfg.train_dataloader == trained.train_dataloader
    dataset_type = DATASETS.get(cfg.test_dataloader.dataset.type)
    kept = {new for new in dataset_type.get_label_map(metainfo.classes).values() if new != 255}
    assert kept == set(range(len(trained.unseen_classes)))


def test_cross_dataset_names():
    coco = Config.fromfile('configs/cross_dataset/alignzeg_coco171.py')
    assert len(coco.train_dataloader.dataset.metainfo.classes) == 171 and coco.model.unseen_classes == []
    voc = Config.fromfile('configs/cross_dataset/voc20.py').test_dataloader.dataset.metainfo.classes
    assert voc == Config.fromfile('configs/_base_/datasets/voc_15_5.py').classes
    for name, count in dict(ade150=150, ade847=847, context59=59, context459=459).items():
        cfg = Config.fromfile(f'configs/cross_dataset/{name}.py')
        assert len(DATASETS.get(cfg.test_dataloader.dataset.type).METAINFO['classes']) == count
        assert cfg.test_dataloader.dataset.metainfo == {'unseen_classes': None}


def test_the_contract_names_the_configs():
    assert [Path(path).stem for path in CONFIGS] == [
        'alignzeg_ccp',
        'alignzeg_coco',
        'alignzeg_context',
        'alignzeg_msrc',
        'alignzeg_patterns',
        'alignzeg_voc',
    ]


@pytest.mark.parametrize('path', FULL_SIZE)
def test_full_size_configs_train_a_step_and_predict(path):
    cfg = random_clip(path)
    cfg.model.decode_head.image_drop = 0.0
    model = MODELS.build(cfg.model).train()
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    names = [name for name, _ in model.named_parameters()]
    for key in cfg.optim_wrapper.paramwise_cfg.custom_keys:
        assert any(key in name for name in names), f'custom key {key!r} matches no parameter'

    num_seen = len(model.vocabulary.seen_classes)
    size = cfg.model.data_preprocessor.size[0]
    labels = torch.randint(0, num_seen, (1, 4, 4)).repeat_interleave(size // 4, 1).repeat_interleave(size // 4, 2)
    labels[:, : size // 4, : size // 4] = 255
    inputs = torch.randint(0, 256, (3, size, size), dtype=torch.uint8)
    before = {name: param.clone() for name, param in model.named_parameters() if param.requires_grad}
    sample = SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=dict(img_shape=(size, size)))
    losses = model.train_step({'inputs': [inputs], 'data_samples': [sample]}, optim_wrapper)
    assert all(loss.isfinite() for loss in losses.values())
    # φ_cls's first layer has no gradient yet, because its last layer starts at zero.
    still = {name for name, param in model.named_parameters() if name in before and torch.equal(param, before[name])}
    assert still <= {'semantic_head.phi_cls.fc1.weight', 'semantic_head.phi_cls.fc1.bias'}

    sample = SegDataSample(metainfo=dict(ori_shape=(427, 640), img_shape=(size, size)))
    result = model.eval().test_step({'inputs': [inputs], 'data_samples': [sample]})[0].pred_sem_seg.data
    assert result.shape == (1, 427, 640) and 0 <= result.min() and result.max() < len(cfg.classes)


def test_baseline_is_a_plain_decoder_with_two_losses():
    model = MODELS.build(Config.fromfile('configs/ablations/patterns/table4/baseline.py').model).train()
    assert type(model.decode_head).__name__ == 'PlainDecoderHead'
    assert model.question.bias_correction is None
    assert model.semantic_head.background_prototypes.shape[0] == 1
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, 128, 128, dtype=torch.long)))
    assert set(model.loss(torch.randn(1, 3, 128, 128), [sample])) == {'loss_ce', 'loss_bce', 'loss_dice'}


@pytest.mark.parametrize(
    ('name', 'prompts', 'backgrounds', 'iters'),
    [('coco', 20, 20, 80000), ('voc', None, 10, 20000), ('context', None, 10, 40000)],
)
def test_numbers_of_section_4_2(name, prompts, backgrounds, iters):
    cfg = Config.fromfile(f'configs/alignzeg_{name}.py')
    model = cfg.model
    assert model.clip.get('num_prompts') == prompts and model.semantic_head.num_backgrounds == backgrounds
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[0].end == iters
    assert (model.image_encoder.depth, model.image_encoder.embed_dim, model.image_encoder.patch_size) == (8, 240, 16)
    assert (model.clip.tap_layer, model.clip.tail_layers, model.clip.scale_factor) == (6, 3, 0.5)
    assert (model.decode_head.num_queries, model.class_indicator.top_k) == (100, 50)
    assert (model.criterion.class_weight, model.criterion.mask_weight) == (2, 5)
    assert (model.criterion.feature_expansion.loss_weight, model.criterion.feature_expansion.alpha) == (1e-2, 3)
    assert (model.criterion.background_diversity.loss_weight, model.bias_correction.gamma) == (1e-4, 0.3)
    assert set(model.class_indicator) == {'type', 'top_k'}  # Eq. (6) as written


def test_training_settings_are_those_of_san_but_for_eps():
    san = Config.fromfile(SAN / 'san-vit-b16_coco-stuff164k-640x640.py').optim_wrapper
    ours = Config.fromfile('configs/alignzeg_coco.py').optim_wrapper
    assert {'betas': (0.9, 0.999), **ours.optimizer} == {**san.optimizer, 'eps': 1e-10}
    assert ours.clip_grad == san.clip_grad


def test_matrices_alone_decay_and_the_prototypes_of_the_embedded_world_are_faster():
    cfg = Config.fromfile('configs/alignzeg_patterns.py')
    model = MODELS.build(cfg.model)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    of = {id(param): group for group in groups for param in group['params']}
    for name, param in model.named_parameters():
        if param.requires_grad:
            decays = param.dim() > 1 and not name.endswith(('pos_embed', 'queries', 'background_prototypes'))
            found = [of[id(param)][key] for key in ('weight_decay', 'lr', 'eps')]
            assert found == [1e-4 * decays, 1e-2 if 'background' in name else 5e-4, 1e-10], name


def test_clip_reads_pictures_as_open_clip_prepares_them():
    """A file in blue, green and red order, as MMCV reads it."""
    rgb = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    cfg = Config.fromfile('configs/alignzeg_coco.py').model
    preprocessor = MODELS.build(with_statistics(cfg.data_preprocessor, CLIPSource(cfg.clip.model_name, 'openai')))
    inputs = torch.from_numpy(rgb[:, :, ::-1].transpose(2, 0, 1).copy())
    found = preprocessor(dict(inputs=[inputs], data_samples=[SegDataSample()]))['inputs'][0]
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    prepared = open_clip.image_transform((32, 48), is_train=False, mean=mean, std=std)(Image.fromarray(rgb))
    torch.testing.assert_close(found[:, :32, :48], prepared, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ('split', 'dataset', 'counts', 'indices'),
    [
        ('voc_15_5', PascalVOCDataset, (15, 5), None),
        (
            'coco_stuff_156_15',
            COCOStuffDataset,
            (156, 15),
            [19, 23, 28, 29, 36, 51, 76, 88, 94, 112, 133, 136, 137, 157, 160],
        ),
        ('context_49_10', PascalContextDataset59, (49, 10), [0, 6, 7, 14, 19, 24, 31, 33, 48, 54]),
        ('patterns', None, (12, 8), None),
    ],
)
def test_splits_are_complete_and_in_the_order_of_mmseg(split, dataset, counts, indices):
    cfg = Config.fromfile(f'configs/_base_/datasets/{split}.py')
    dataset = dataset or DATASETS.get('PatternsDataset')
    assert (len(cfg.seen_classes), len(cfg.unseen_classes)) == counts
    assert set(cfg.seen_classes).isdisjoint(cfg.unseen_classes)
    assert list(cfg.classes) == [name for name in dataset.METAINFO['classes'] if name != 'background']
    if indices:
        assert sorted(cfg.classes.index(name) for name in cfg.unseen_classes) == indices


@pytest.mark.parametrize('path', [path for path in CONFIGS if not path.endswith(('_msrc.py', '_ccp.py'))])
def test_no_unseen_label_survives_the_training_label_map(path):
    """mmseg's own class subset maps every dropped class to 255; what is left counts the seen classes."""
    cfg = Config.fromfile(path)
    dataset = cfg.train_dataloader.dataset
    for part in dataset.get('datasets', [dataset]):
        dataset_type = DATASETS.get(part.type)
        label_map = dataset_type.get_label_map(part.metainfo.classes)
        names = dataset_type.METAINFO['classes']
        kept = {names[old]: new for old, new in label_map.items() if new != 255}
        assert kept == {name: i for i, name in enumerate(cfg.seen_classes)}
        assert list(part.metainfo.classes) == list(model_labels(cfg))


def model_labels(cfg):
    """What the model takes label i for."""
    return [name for name in cfg.model.classes if name not in cfg.model.unseen_classes]


@pytest.mark.parametrize(
    ('name', 'raw_names'),
    [
        ('voc', PascalVOCDataset.METAINFO['classes']),
        ('coco', COCOStuffDataset.METAINFO['classes']),
        ('context', ('background', *PascalContextDataset59.METAINFO['classes'])),
    ],
)
def test_no_unseen_label_survives_the_real_pipeline(name, raw_names, tmp_path):
    """A label map with every value of the files passes mmseg's own LoadAnnotations."""
    cfg = Config.fromfile(f'configs/alignzeg_{name}.py')
    part = cfg.train_dataloader.dataset
    part = part.datasets[0] if 'datasets' in part else part
    dataset_type = DATASETS.get(part.type)
    Image.fromarray(np.tile(np.arange(len(raw_names), dtype=np.uint8), (2, 1))).save(tmp_path / 'labels.png')
    loaded = TRANSFORMS.build(dict(type='LoadAnnotations'))(
        dict(
            seg_map_path=str(tmp_path / 'labels.png'),
            label_map=dataset_type.get_label_map(part.metainfo.classes),
            reduce_zero_label=name == 'context',  # the default of PascalContextDataset59
            seg_fields=[],
        )
    )
    for raw_name, label in zip(raw_names, loaded['gt_seg_map'][0].tolist(), strict=True):
        assert label == (cfg.seen_classes.index(raw_name) if raw_name in cfg.seen_classes else 255), raw_name


RAW_VALUES = {
    'CheckedPascalVOCDataset': 21,  # with the background
    'CheckedCOCOStuffDataset': 171,
    'CheckedPascalContextDataset59': 60,  # with the background
}


def write_pair(part, root):
    """One image of a dataset's layout, whose label map holds every value of the files, in a square of blocks."""
    dataset_type, prefix = DATASETS.get(part.type), part.data_prefix
    suffix = '_labelTrainIds.png' if issubclass(dataset_type, COCOStuffDataset) else '.png'
    count = RAW_VALUES.get(part.type) or len(part.label_classes)
    side = int(np.ceil(count**0.5))
    values = np.resize(np.append(np.arange(count), 255), (side, side)).astype(np.uint8)
    for folder in (prefix.img_path, prefix.seg_map_path):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.repeat(16, 0).repeat(16, 1)).save(root / prefix.seg_map_path / f'a{suffix}')
    Image.new('RGB', (16 * side, 16 * side)).save(root / prefix.img_path / f'a{part.get("img_suffix", ".jpg")}')
    if part.get('ann_file'):
        (root / part.ann_file).parent.mkdir(parents=True, exist_ok=True)
        (root / part.ann_file).write_text('a\n')


@pytest.mark.parametrize('path', [*CONFIGS, 'configs/cross_dataset/alignzeg_coco171.py'])
def test_training_data_hold_seen_labels_alone(path, tmp_path):
    """The whole dataset as training builds it: files, label map, resizing, cropping, flipping, packing."""
    dataset = Config.fromfile(path).train_dataloader.dataset
    found = set()
    for i, part in enumerate(dataset.get('datasets', [dataset])):
        if part.type == 'PatternsDataset':
            part.length, draws = 60, 1
        else:
            write_pair(part, tmp_path / str(i))
            part.data_root, draws = str(tmp_path / str(i)), 12
        built = DATASETS.build(part)
        for index in list(range(len(built))) * draws:
            found |= set(built[index]['data_samples'].gt_sem_seg.data.unique().tolist())
    seen = range(len(part.metainfo.classes))
    assert found == {*seen, 255} and part.metainfo.unseen_classes == []
