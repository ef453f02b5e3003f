"""Every part of the method acts in training, and the hook says how much."""

import logging
import math

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.structures import PixelData
from mmseg.registry import HOOKS, MODELS
from mmseg.structures import SegDataSample

from mmseg_alignzeg.datasets.patterns import draw_scene
from mmseg_alignzeg.engine.health_hook import norm, part_of


def tiny():
    """The embedded world's config with few proposals and points."""
    cfg = Config.fromfile('configs/alignzeg_patterns.py')
    cfg.model.criterion.num_points = 256
    cfg.model.decode_head.num_queries = 16
    cfg.model.class_indicator.top_k = 8
    return cfg


def batches(cfg, count):
    """Two scenes of 64² per batch, with labels of seen classes alone."""
    names = {name: i for i, name in enumerate(n for n in cfg.model.classes if n not in cfg.model.unseen_classes)}
    table = torch.tensor([names.get(name, 255) for name in cfg.model.classes] + [255] * 236)
    for step in range(count):
        scenes = [draw_scene(0, 2 * step + i, 64) for i in range(2)]
        yield dict(
            inputs=[torch.from_numpy(image.transpose(2, 0, 1).copy()) for image, _ in scenes],
            data_samples=[
                SegDataSample(gt_sem_seg=PixelData(data=table[torch.from_numpy(labels).long()][None]))
                for _, labels in scenes
            ],
        )


def train(cfg, steps):
    """Weights before and after some steps, by parameter."""
    torch.manual_seed(0)
    cfg.optim_wrapper.clip_grad = None  # it would carry a change of one gradient into every part
    model = MODELS.build(cfg.model).train()
    before = {name: param.detach().clone() for name, param in model.named_parameters() if param.requires_grad}
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    for data in batches(cfg, steps):
        model.train_step(data, optim_wrapper)
    return before, {name: param.detach() for name, param in model.named_parameters() if param.requires_grad}


def by_part(before, after):
    """The change of each part relative to its size."""
    parts = {}
    for name in before:
        parts.setdefault(part_of(name), []).append((after[name] - before[name], before[name]))
    return {
        part: norm(change for change, _ in pairs) / max(norm(size for _, size in pairs), 1e-3)
        for part, pairs in parts.items()
    }


def test_every_trained_part_moves_in_60_iterations():
    moved = by_part(*train(tiny(), 60))
    assert set(moved) >= {'image_encoder.vit', 'fusion', 'decode_head.queries', 'semantic_head.background_prototypes'}
    still = {part: change for part, change in moved.items() if change < 1e-3}
    assert not still


WEIGHTS = {
    'criterion.feature_expansion.loss_weight': 'semantic_head.phi_cls',
    'criterion.background_diversity.loss_weight': 'semantic_head.background_prototypes',
    'class_indicator.loss_weight': 'class_indicator.layers',
    'criterion.class_weight': 'semantic_head.phi_cls',
    'criterion.mask_weight': 'decode_head.queries',
}


@pytest.fixture(scope='module')
def whole():
    """Weights after 10 steps with every loss."""
    return train(tiny(), 10)[1]


@pytest.mark.parametrize('key', WEIGHTS)
def test_a_loss_that_is_switched_off_changes_the_weights(whole, key):
    cfg = tiny()
    cfg.merge_from_dict({f'model.{key}': 0.0})
    _, without = train(cfg, 10)
    # From 9e-5 (background diversity) to 4e-2. Prototypes of norm √D at the usual learning rate would change by 6e-7.
    assert by_part(whole, without)[WEIGHTS[key]] > 2e-5


class Recorder:
    """What the hook needs of a runner."""

    def __init__(self, cfg):
        torch.manual_seed(0)
        self.model = MODELS.build(cfg.model).train()
        self.optim_wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)
        self.logger = logging.getLogger('health')
        self.visualizer = self
        self.iter = 0
        self.scalars = {}

    def add_scalars(self, scalars, step):
        self.scalars[step] = scalars


@pytest.fixture
def recorder():
    return Recorder(tiny())


def run(recorder, hook, steps):
    hook.before_train(recorder)
    for data in batches(tiny(), steps):
        hook.before_train_iter(recorder)
        recorder.model.train_step(data, recorder.optim_wrapper)
        hook.after_train_iter(recorder)
        recorder.iter += 1


def test_numbers_of_a_step_are_those_of_the_optimizer(recorder):
    # Twice the same hook: one listens to the only step, the reference looks at the weights itself.
    before = {name: param.detach().clone() for name, param in recorder.model.named_parameters()}
    run(recorder, HOOKS.build(dict(type='HealthHook', interval=1)), 1)
    numbers = recorder.scalars[1]
    after = dict(recorder.model.named_parameters())
    changed = by_part(
        {name: value for name, value in before.items() if after[name].requires_grad},
        {name: value.detach() for name, value in after.items() if value.requires_grad},
    )
    for part in ('fusion', 'image_encoder.vit', 'semantic_head.background_prototypes'):
        assert numbers[f'health/{part}.update'] == pytest.approx(changed[part], rel=1e-4)
    gradients = [value for name, value in numbers.items() if name.endswith('.gradient')]
    assert math.hypot(*gradients) == pytest.approx(0.01, rel=1e-3)  # the clip of the config
    g = torch.nn.functional.normalize(before['semantic_head.background_prototypes'], dim=1)
    angle = (g * recorder.model.semantic_head.backgrounds.detach()).sum(dim=1).clamp(max=1).arccos().mean()
    assert numbers['health/prototypes_turned_rad'] == pytest.approx(float(angle), abs=1e-6)
    assert all(0 <= numbers[f'health/{key}'] <= 1 for key in ('saturated_masks', 'phi_bc_dead', 'phi_bc_unseen'))


def test_it_listens_to_one_iteration_in_an_interval_and_leaves_nothing_behind(recorder):
    run(recorder, HOOKS.build(dict(type='HealthHook', interval=2)), 5)
    assert list(recorder.scalars) == [2, 4]
    assert not recorder.model.decode_head._forward_hooks and not recorder.model.class_indicator._forward_hooks


def record_pairs(loss):
    """In place of L_vir: one of four pairs is of one class."""
    loss.pairs = torch.tensor([[3, 0, 1, 5], [2, 1, 1, 3]])
    return torch.zeros(())


def test_dead_units_saturation_and_pairs_of_one_class_are_seen(recorder):
    recorder.model.class_indicator.layers[0].bias.data[:224] = -100.0
    recorder.model.decode_head.queries.data.mul_(100)
    run(recorder, HOOKS.build(dict(type='HealthHook', interval=1)), 1)
    numbers = recorder.scalars[1]
    assert numbers['health/phi_bc_dead'] >= 224 / 256 and numbers['health/saturated_masks'] > 0.9
    recorder.model.criterion.feature_expansion.forward = lambda *args: record_pairs(
        recorder.model.criterion.feature_expansion
    )
    run(recorder, HOOKS.build(dict(type='HealthHook', interval=1)), 1)
    assert recorder.scalars[2]['health/same_class_mixed'] == 0.25


@pytest.mark.parametrize(('bias', 'level'), [(-50.0, logging.WARNING), (50.0, logging.WARNING), (None, logging.INFO)])
def test_a_test_says_what_share_of_proposals_pbc_corrects(recorder, caplog, bias, level):
    model, images = recorder.model.eval(), torch.randn(2, 3, 64, 64)
    feats = model.extract_feat(images).feats
    if bias is None:  # half of the proposals on either side of γ
        bias = math.log(0.3 / 0.7) - model.class_indicator(feats).median().item()
    model.class_indicator.layers[2].bias.data.add_(bias)
    hook = HOOKS.build(dict(type='HealthHook'))
    with caplog.at_level(logging.INFO, logger='health'):
        hook.before_test(recorder)
        hook.before_test_iter(recorder)
        model.predict(images)
        hook.after_test_iter(recorder)
        model.predict(torch.zeros_like(images))  # as for a picture, which is not counted
        assert hook._proposals == 2 * feats.shape[1]
        hook.after_test(recorder)
    (record,) = caplog.records
    share = float((model.class_indicator(feats).sigmoid() > 0.3).float().mean())
    assert f'{share:.1%}' in record.getMessage() and record.levelno == level
    assert not model.class_indicator._forward_hooks
