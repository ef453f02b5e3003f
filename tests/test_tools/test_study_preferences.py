"""Preferences between outputs: the loss by hand, the order of pairs, and a short training."""

import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmseg_alignzeg.models.clip_source import ASSETS

WEIGHTS = Path(ASSETS) / 'patterns/model.safetensors'


@pytest.fixture
def tool(load_tool):
    return load_tool('study_preferences')


def test_mean_iou_by_hand(tool):
    labels, found = torch.tensor([[0, 0, 1, 1, 255]]), torch.tensor([[0, 1, 1, 2, 1]])
    assert tool.mean_iou(found, labels) == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert tool.mean_iou(found, torch.full_like(labels, 255)) == 0


def test_preference_loss_by_hand(tool):
    before = torch.log(torch.tensor([0.5, 0.5]))[:, None, None].expand(2, 1, 3)
    now = torch.log(torch.tensor([[[0.6, 0.5, 0.9]], [[0.4, 0.5, 0.1]]]))
    preferred, other = torch.tensor([[0, 0, 0]]), torch.tensor([[1, 0, 1]])
    valid = torch.tensor([[True, True, False]])
    change = math.log(0.6 / 0.5) / 2 - math.log(0.4 / 0.5) / 2  # means of two labelled pixels; the middle one is equal
    expected = -math.log(1 / (1 + math.exp(-tool.BETA * change)))
    assert tool.preference_loss(now, before, preferred, other, valid).item() == pytest.approx(expected, rel=1e-5)
    same = tool.preference_loss(before, before, preferred, other, valid)
    assert same.item() == pytest.approx(math.log(2))


def test_noise_covers_a_part_of_each_image(tool):
    changed = (tool.add_noise(torch.zeros(8, 3, 64, 64)) != 0).any(dim=1).float().mean(dim=(1, 2))
    assert (changed > 0.01).all() and (changed <= 3 * 0.4**2).all()


def test_the_order_of_a_pair_turns_the_gradient(tool):
    """On a model whose only parameter is a class bias: it learns the class of the preferred segmentation."""
    gradients = []
    for swapped in (0, 1):
        bias = torch.zeros(2, requires_grad=True)
        outputs = iter([torch.tensor([5.0, 0.0]), torch.tensor([0.0, 5.0]), torch.zeros(2), bias])
        tool.log_probs = lambda model, images, outputs=outputs: (
            next(outputs)[None, :, None, None].expand(1, 2, 4, 4).log_softmax(dim=1)
        )
        images, labels = torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4).long()
        tool.preference_term(None, None, images, labels, 0.1, lambda turned=swapped: turned).backward()
        gradients.append(bias.grad)
    assert gradients[0][0] < 0 < gradients[0][1]
    torch.testing.assert_close(gradients[0], -gradients[1])


def test_training_on_moves_what_it_should(tool):
    cfg = Config.fromfile('configs/alignzeg_patterns.py')
    start = tool.build_trained(cfg, WEIGHTS).state_dict()
    ends = {way: tool.train_on(cfg, WEIGHTS, way, 2, seed=0)[0].state_dict() for way in tool.WAYS}
    for state in ends.values():
        moved = {name.split('.')[0] for name, value in state.items() if not torch.equal(value, start[name])}
        assert moved == set(tool.TRAINED)
    name = 'semantic_head.phi_cls.fc2.weight'
    assert not torch.equal(ends['usual losses'][name], ends['preferences'][name])
