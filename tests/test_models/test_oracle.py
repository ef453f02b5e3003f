import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch.nn.functional import interpolate

from mmseg_alignzeg.models.oracle import oracle_probs
from mmseg_alignzeg.models.proposals import Window


def window(size, **share):
    return Window(**{'top': 0.0, 'left': 0.0, 'height': 1.0, 'width': 1.0, **share}, size=size)


def test_each_proposal_gets_the_class_of_most_of_its_pixels():
    labels = torch.tensor([[0, 0, 2, 255], [0, 2, 2, 255]])
    masks = torch.full((4, 2, 4), -5.0)
    masks[0, :, :3] = 5  # 3 pixels of class 0, 3 of class 2: the first wins
    masks[1, :, 1:] = 5  # 1 of class 0, 3 of class 2, 2 of none
    masks[2, :, 3] = 5  # no labelled pixel; the last mask has no pixel at all
    expected = torch.tensor([[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]).float()
    assert torch.equal(oracle_probs(masks, labels, 3, window((2, 4))), expected)


def test_masks_are_compared_at_the_size_of_the_image():
    masks, labels = 3 * torch.randn(6, 5, 5), torch.randint(0, 4, (31, 17))
    full = interpolate(masks[None], size=(31, 17), mode='bilinear')[0].sigmoid() > 0.5
    for n, row in enumerate(oracle_probs(masks, labels, 4, window((31, 17)))):
        counts = [int((full[n] & (labels == c)).sum()) for c in range(4)]
        assert row[counts.index(max(counts))] == 1 and row.sum() == 1


def test_labels_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r'labels have shape \(3, 3\), the image \(2, 4\)'):
        oracle_probs(torch.zeros(1, 2, 2), torch.zeros(3, 3).long(), 2, window((2, 4)))


def test_the_segmentor_is_told_the_classes():
    cfg = Config.fromfile('configs/alignzeg_patterns.py').model
    cfg.update(decoder=dict(type='OracleDecoder'), text=dict(templates='single'))
    cfg.clip.pretrained = None
    model = MODELS.build(cfg).eval()
    labels = torch.full((1, 128, 128), 7)
    sample = SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=dict(ori_shape=(128, 128)))
    result = model.predict(torch.randn(1, 3, 128, 128), [sample])[0].pred_sem_seg.data
    assert torch.equal(result, labels)  # whatever the masks are, every proposal with a pixel is of class 7
    with pytest.raises(ValueError, match=r'gt_sem_seg.*LoadAnnotations'):
        model.predict(torch.randn(1, 3, 128, 128), [SegDataSample()])
