from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / 'mmseg_alignzeg/assets/tiny_clip'
SCRIPT = ROOT / 'tools/pretrain_tiny_clip.py'


@pytest.fixture(scope='module')
def script(load_tool):
    return load_tool('pretrain_tiny_clip')


@pytest.fixture(scope='module')
def shipped():
    open_clip.add_model_config(ASSETS / 'tiny_clip.json')
    return open_clip.create_model('tiny_clip', pretrained=str(ASSETS / 'tiny_clip.safetensors')).eval()


@pytest.fixture
def own_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_two_steps_export_a_file_that_open_clip_loads(script, tmp_path, capsys, own_threads):
    out = tmp_path / 'new' / 'weights.safetensors'
    script.main(['--steps', '2', '--batch-size', '8', '--eval-scenes', '8', '--out', str(out)])
    report = capsys.readouterr().out
    assert 'masked top-1' in report and 'scene top-1' in report
    assert out.stat().st_size < 10e6
    model = open_clip.create_model('tiny_clip', pretrained=str(out)).eval()
    with torch.no_grad():
        assert model.encode_image(torch.zeros(2, 3, 64, 64)).shape == (2, 64)


def test_batches_repeat(script):
    first, second = (script.PairBatches(1000, 2, 8)[1] for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


@torch.no_grad()
def test_images_are_encoded_as_open_clip_encodes_them(script, shipped):
    pixels = torch.randn(3, 3, 64, 64)
    embeds, regions = script.encode_images(shipped.visual, pixels)
    assert regions is None
    torch.testing.assert_close(embeds, shipped.encode_image(pixels), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_masked_copies_read_their_patches_and_leave_the_image_alone(script, shipped):
    pixels = torch.randn(2, 3, 64, 64)
    masks = torch.zeros(2, 3, 64, dtype=torch.bool)
    masks[:, 1, :9] = True
    masks[:, 2] = True
    embeds, regions = script.encode_images(shipped.visual, pixels, masks)
    torch.testing.assert_close(embeds, shipped.encode_image(pixels), atol=1e-5, rtol=1e-4)
    # A copy that sees every patch is [CLS] itself: open_clip's own read-out is the reference.
    torch.testing.assert_close(regions[:, 2], embeds, atol=1e-5, rtol=1e-4)
    assert (regions[:, 0] - regions[:, 1]).abs().max() > 1e-2


def test_the_loss_is_clips_own_where_no_caption_is_shared(script):
    torch.manual_seed(0)
    images, texts = torch.randn(20, 8), F.normalize(torch.randn(20, 8), dim=-1)
    logits = 7 * F.normalize(images, dim=-1) @ texts.T
    expected = (F.cross_entropy(logits, torch.arange(20)) + F.cross_entropy(logits.T, torch.arange(20))) / 2
    torch.testing.assert_close(script.contrastive_loss(images, texts, torch.arange(20), torch.tensor(7.0)), expected)


def test_patch_masks_hold_the_patches_whose_centre_is_in_the_blob(script):
    labels = np.full((128, 128), 255, dtype=np.uint8)
    labels[:64, :32] = 4
    labels[100:, 100:] = 0
    masks, names = script.patch_masks(labels, 8)
    assert names.tolist() == [0, 4, -1, -1, -1]
    assert masks[1].reshape(8, 8)[:4, :2].all() and masks[1].sum() == 8
    assert masks[0].sum() == 4 and not masks[2:].any()


def test_the_shipped_weights_know_seen_and_unseen_names(script, shipped):
    assert (ASSETS / 'tiny_clip.safetensors').stat().st_size < 7.5e6
    scores = script.evaluate(shipped, scenes=256)
    for split in ('seen', 'unseen'):
        assert scores[f'scene top-1 64² {split}'] >= 70
        assert scores[f'masked top-1 64² {split}'] >= 90
