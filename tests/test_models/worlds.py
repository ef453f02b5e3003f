"""A process of ``test_distributed.py``: W ranks with an image each must equal one process with all W images."""

import sys
from types import SimpleNamespace

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_alignzeg.engine import FiniteGuardHook

SIDE = 64
# How many masks the image of each rank has.
WORLDS = {2: [(4, 0), (0, 1), (3, 1), (0, 0)], 4: [(4, 0, 1, 2), (0, 0, 1, 0)]}
VARIANTS = {
    'dice, balanced': dict(decode_head=dict(image_drop=0.8)),  # drops, see `rand`
    'jaccard, Eq. (6)': dict(
        criterion=dict(mask_overlap='jaccard'),
        class_indicator=dict(balanced=False),
    ),
}


def build(variant):
    cfg = Config.fromfile('configs/alignzeg_patterns.py')
    cfg.model.criterion.num_points = 128
    cfg.merge_from_dict(dict(model=variant))
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).train()
    model.criterion.feature_expansion.beta = SimpleNamespace(sample=lambda: torch.tensor(0.3))
    return model


def image(number, masks):
    """An image of noise whose right half, at most, has labels: equal stripes."""
    pixels = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(number))
    labels = torch.full((SIDE, SIDE), 255)
    for i in range(masks):
        labels[i * 16 : (i + 1) * 16, SIDE // 2 :] = 3 * i + number % 3
    return pixels, SegDataSample(gt_sem_seg=PixelData(data=labels[None]))


def fix_chance(masks):
    """Draw the same for an image whichever batch it is in."""
    draw = torch.Generator.manual_seed

    def rand(*shape, device=None):
        values = original_rand(1, *shape[1:], generator=draw(torch.Generator(), shape[1]))
        return values.expand(*shape).clone()

    def randperm(length):
        assert length == sum(masks)  # the virtual proposals are those of all ranks
        return torch.arange(length).flip(0)

    torch.rand, torch.randperm = rand, randperm


def train(model, network, numbers, masks):
    """Losses, and the gradient of each parameter."""
    fix_chance(masks)
    pixels, samples = zip(*(image(i, masks[i]) for i in numbers), strict=True)
    losses = network(torch.stack(pixels), list(samples), mode='loss')
    sum(losses.values()).backward()
    gradients = {name: param.grad.clone() for name, param in model.named_parameters() if param.requires_grad}
    return {name: loss.detach() for name, loss in losses.items()}, gradients


def difference(found, expected):
    """Relative to the norm; 0 for two zeros."""
    return ((found - expected).norm() / expected.norm().clamp(min=1e-9)).item()


def compare(losses, gradients, one_losses, one_gradients, case):
    assert losses.keys() == one_losses.keys() and gradients.keys() == one_gradients.keys()
    for name, loss in one_losses.items():
        assert difference(losses[name], loss) < 1e-5, (case, name, losses[name], loss)
    for name, gradient in one_gradients.items():  # some are sums that nearly cancel
        assert difference(gradients[name], gradient) < 5e-5, (case, name, difference(gradients[name], gradient))
    both = (torch.cat([part[name].flatten() for name in one_gradients]) for part in (gradients, one_gradients))
    assert difference(*both) < 1e-5, case


original_rand = torch.rand
rank, size, meeting = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
init_default_scope('mmseg')
dist.init_process_group('gloo', init_method=f'file://{meeting}', rank=rank, world_size=size)
found = []
for name, variant in VARIANTS.items():
    for masks in WORLDS[size]:
        model = build(variant)
        network = MMDistributedDataParallel(model, find_unused_parameters=False)
        losses, gradients = train(model, network, [rank], masks)
        for loss in losses.values():
            dist.all_reduce(loss)
        found.append((name, variant, masks, {key: loss / size for key, loss in losses.items()}, gradients))

# What a rank cannot train on stops all of them, with the same error, whichever ranks it is.
for faulty in ([size - 1], [0, size - 1]):
    pixels, sample = image(rank, 1)
    if rank in faulty:
        sample.gt_sem_seg.data[0, 0, 0] = 99
        sample.set_metainfo(dict(seg_map_path=f'fault{rank}.png'))
    try:
        network(pixels[None], [sample], mode='loss')
        raise AssertionError('not refused')
    except ValueError as error:
        messages = [None] * size
        dist.all_gather_object(messages, str(error))
    parts = messages[0].split('; ')
    assert set(messages) == {messages[0]} and '\n' not in messages[0] and len(parts) == len(faulty), messages
    for number, part in zip(faulty, parts, strict=True):
        assert part.startswith(f'fault{number}.png: a training label is 99'), part

# A loss of one rank that is not finite, with a gradient that is, makes all of them skip the step.
optim_wrapper = build_optim_wrapper(network, Config.fromfile('configs/alignzeg_patterns.py').optim_wrapper)
warned = []
guard = FiniteGuardHook()
logger = SimpleNamespace(warning=warned.append)
guard.before_train(SimpleNamespace(model=network, optim_wrapper=optim_wrapper, iter=0, logger=logger))
regular = model.criterion.background_diversity.forward
model.criterion.background_diversity.forward = lambda backgrounds: (
    regular(backgrounds) + (float('inf') if rank else 0.0)
)
pixels, sample = image(rank, 1)
sample.set_metainfo(dict(img_path=f'{rank}.png'))
fix_chance([1] * size)
before = torch.cat([param.detach().flatten() for param in model.parameters()])
network.train_step(dict(inputs=[pixels], data_samples=[sample]), optim_wrapper)
assert torch.equal(before, torch.cat([param.detach().flatten() for param in model.parameters()]))
assert guard.skipped == 1 and 'loss_reg is inf (images: 1.png)' in warned[0] and ' 0.png' not in warned[0], warned
dist.barrier()
dist.destroy_process_group()

if rank == 0:
    for name, variant, masks, losses, gradients in found:
        model = build(variant)
        compare(losses, gradients, *train(model, model, range(size), masks), (name, masks))
print('equal')
