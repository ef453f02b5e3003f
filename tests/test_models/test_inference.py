import pytest
import torch
import torch.nn.functional as F

from mmseg_alignzeg.models.inference import binary_masks, linear_weights, mask_stripes
from mmseg_alignzeg.models.proposals import Window


@pytest.mark.parametrize(('out', 'grid'), [(37, 5), (4, 9), (6, 6), (10, 1), (1, 7)])
def test_interpolation_is_torchs(out, grid):
    values = torch.randn(grid)
    expected = F.interpolate(values[None, None], size=out, mode='linear', align_corners=False)[0, 0]
    torch.testing.assert_close(linear_weights(out, grid, 0.0, 1.0, values) @ values, expected)


def test_window_crops_before_it_resizes():
    mask_logits = torch.randn(3, 4, 4)
    window = Window(top=0.0, left=0.25, height=0.5, width=0.75, size=(8, 12))
    full = F.interpolate(mask_logits[None], size=(16, 16), mode='bilinear')[0, :, :8, 4:]
    for max_elements in (1, 100, None):
        masks = torch.cat([part.clone() for _, part in mask_stripes(mask_logits, window, max_elements=max_elements)])
        torch.testing.assert_close(masks.permute(2, 0, 1), full.sigmoid())
    assert torch.equal(binary_masks(mask_logits, window), full.sigmoid() > 0.5)
    assert binary_masks(mask_logits[:0], window).shape == (0, 8, 12)


def test_the_window_of_an_image_that_is_padded_at_every_side():
    metainfo = dict(img_padding_size=(3, 5, 2, 10), ori_shape=(20, 40))  # left, right, top, bottom
    window = Window.of_image(metainfo, (52, 88), stride=16)  # padded further, to 64 × 96
    assert window == Window(2 / 64, 3 / 96, 40 / 64, 80 / 96, (20, 40))
    turned = Window.of_image({**metainfo, 'flip': True, 'flip_direction': 'horizontal'}, (52, 88), stride=16)
    assert turned == Window(2 / 64, 13 / 96, 40 / 64, 80 / 96, (20, 40))
    turned = Window.of_image({**metainfo, 'flip': True, 'flip_direction': 'vertical'}, (52, 88), stride=16)
    assert turned == Window(22 / 64, 3 / 96, 40 / 64, 80 / 96, (20, 40))
    labels = torch.randint(9, (20, 40))
    placed = window.place(labels, (64, 96), fill=9)
    assert torch.equal(placed[2:42, 3:83], labels.repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert (placed == 9).sum() == 64 * 96 - 40 * 80


def test_no_stripe_is_larger_than_asked():
    window = Window(0, 0, 1, 1, (33, 45))
    stripes = list(mask_stripes(torch.randn(5, 6, 6), window, num_columns=7, max_elements=45 * 7 * 4))
    assert [stripe.stop - stripe.start for stripe, _ in stripes] == [4] * 8 + [1]


def test_masks_are_float32_under_autocast():
    window = Window(0, 0, 1, 1, (33, 45))
    grid = torch.randn(5, 6, 6)
    ((_, expected),) = mask_stripes(grid, window)
    with torch.autocast('cpu', torch.bfloat16):
        ((_, masks),) = mask_stripes(grid, window)
    assert torch.equal(masks, expected)
