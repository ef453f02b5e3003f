import pytest
import torch
import torch.nn.functional as F

from mmseg_alignzeg.models.inference import binary_masks, interpolation, semantic_stripes
from mmseg_alignzeg.models.proposals import Window


@pytest.mark.parametrize(('out', 'grid'), [(37, 5), (4, 9), (6, 6), (10, 1), (1, 7)])
def test_interpolation_is_torchs(out, grid):
    values = torch.randn(grid)
    lower, upper, share = interpolation(out, grid, 0.0, 1.0, values)
    expected = F.interpolate(values[None, None], size=out, mode='linear', align_corners=False)[0, 0]
    torch.testing.assert_close(values[lower] * (1 - share) + values[upper] * share, expected)


def test_window_crops_before_it_resizes():
    mask_logits, class_probs = torch.randn(3, 4, 4), torch.rand(3, 2)
    window = Window(top=0.0, left=0.25, height=0.5, width=0.75, size=(8, 12))
    scores = torch.cat([part.clone() for _, part in semantic_stripes(mask_logits, class_probs, window)])
    full = F.interpolate(mask_logits[None], size=(16, 16), mode='bilinear')[0, :, :8, 4:]
    expected = torch.einsum('nc,nhw->chw', class_probs, full.sigmoid())
    torch.testing.assert_close(scores.permute(2, 0, 1), expected)
    assert torch.equal(binary_masks(mask_logits, window), full.sigmoid() > 0.5)
    assert binary_masks(mask_logits[:0], window).shape == (0, 8, 12)


def test_no_stripe_is_larger_than_asked():
    stripes = list(
        semantic_stripes(torch.randn(5, 6, 6), torch.rand(5, 7), Window(0, 0, 1, 1, (33, 45)), max_elements=45 * 7 * 4)
    )
    assert [stripe.stop - stripe.start for stripe, _ in stripes] == [4] * 8 + [1]
