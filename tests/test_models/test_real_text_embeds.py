"""Published CLIP embeddings against the text bank. Both files are given by the environment; neither is shipped.

MMSEG_ALIGNZEG_TEXT_EMBEDS: ZegCLIP's (171, 512) .npy file of COCO-Stuff's names in 15 templates, ViT-B/16.
MMSEG_ALIGNZEG_CLIP: OpenAI's ViT-B/16 weights.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmseg_alignzeg.models import CLIPSource, TextBank

EMBEDS, WEIGHTS = (os.environ.get(f'MMSEG_ALIGNZEG_{name}') for name in ('TEXT_EMBEDS', 'CLIP'))
ROOT = Path(__file__).parents[2]
CLASSES = Config.fromfile(ROOT / 'configs/_base_/datasets/coco_stuff_156_15.py').classes


@pytest.fixture(scope='module')
def published():
    if not EMBEDS:
        pytest.skip('MMSEG_ALIGNZEG_TEXT_EMBEDS names no file of published CLIP text embeddings')
    return torch.from_numpy(np.load(EMBEDS)).float()


def test_published_embeddings_are_unit_rows_in_our_order(published):
    assert published.shape == (len(CLASSES), 512)
    assert (published.norm(dim=1) - 1).abs().max() < 1e-3  # float16 in the file
    # What CLIP holds for alike: in another order these would not be nearest neighbours.
    nearest = (published @ published.t()).fill_diagonal_(-1).argmax(dim=1).tolist()
    alike = {
        'cow': 'horse',
        'knife': 'fork',
        'clouds': 'sky-other',
        'sky-other': 'clouds',
        'window-blind': 'window-other',
    }
    alike |= {'floor-tile': 'floor-stone', 'wall-concrete': 'wall-stone', 'plant-other': 'potted plant'}
    assert {name: CLASSES[nearest[CLASSES.index(name)]] for name in alike} == alike


def test_bank_of_the_true_weights_equals_the_published_embeddings(published, tmp_path):
    if not WEIGHTS:
        pytest.skip('MMSEG_ALIGNZEG_CLIP names no file of CLIP weights')
    bank = TextBank(CLIPSource('ViT-B-16-quickgelu', WEIGHTS), 'zegclip_coco', str(tmp_path))
    torch.testing.assert_close(bank(CLASSES)[:, 0], published, atol=2e-3, rtol=0)
