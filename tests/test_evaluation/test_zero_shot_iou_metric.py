"""The metric against a pixel-by-pixel reference, a case counted by hand, and two real processes."""

import math
import socket

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.registry import METRICS
from mmseg.structures import SegDataSample
from PIL import Image

import mmseg_alignzeg  # noqa: F401
from mmseg_alignzeg.evaluation import ZeroShotIoUMetric, class_areas, zero_shot_iou, zero_shot_iou_metric

NAMES = [f'class {i}' for i in range(7)]
META = dict(classes=NAMES, unseen_classes=['class 1', 'class 4', 'class 6'])


def make_metric(meta=META, **kwargs):
    metric = METRICS.build(dict(type='mmseg.ZeroShotIoUMetric', **kwargs))
    metric.dataset_meta = meta
    return metric


def make_sample(pred, gt, path='image.png'):
    return dict(pred_sem_seg=dict(data=pred), gt_sem_seg=dict(data=gt), img_path=path)


def random_maps(number, seed=0, num_classes=7, present=(0, 1, 3, 4, 5), ignore_index=255):
    """Label maps of different sizes with ignored pixels; classes outside `present` never occur."""
    generator = torch.Generator().manual_seed(seed)
    choice = torch.tensor([*present, ignore_index])
    maps = []
    for i in range(number):
        shape = (1, 5 + i, 9 - i % 3)
        gt = choice[torch.randint(len(choice), shape, generator=generator)]
        wrong = choice[torch.randint(len(choice) - 1, shape, generator=generator)]
        keep = torch.rand(shape, generator=generator) < 0.4
        maps.append((torch.where(keep & (gt != ignore_index), gt, wrong), gt))
    return maps


def reference(maps, num_classes, unseen, ignore_index=255):
    """Plain Python: sets of pixels, one at a time, with no array operation."""
    hit, union = [0] * num_classes, [0] * num_classes
    correct = labelled = 0
    for pred, gt in maps:
        for p, g in zip(pred.flatten().tolist(), gt.flatten().tolist(), strict=True):
            if g == ignore_index:
                continue
            labelled += 1
            correct += p == g
            for c in range(num_classes):
                hit[c] += p == c and g == c
                union[c] += p == c or g == c

    def mean(labels):
        values = [hit[c] / union[c] for c in labels if union[c]]
        return 100 * sum(values) / len(values)

    seen = mean([c for c in range(num_classes) if c not in unseen])
    new = mean(unseen)
    return {
        'pAcc': 100 * correct / labelled,
        'mIoU': mean(range(num_classes)),
        'mIoU_seen': seen,
        'mIoU_unseen': new,
        'hIoU': 2 * seen * new / (seen + new),
    }


@pytest.mark.parametrize(
    ('dtype', 'ignore_index'), [(torch.int64, 255), (torch.uint8, 255), (torch.int64, 65535), (torch.int16, -1)]
)
def test_equals_pixel_by_pixel_reference(dtype, ignore_index):
    maps = random_maps(6, ignore_index=ignore_index)
    metric = make_metric(ignore_index=ignore_index)
    for pred, gt in maps:  # several calls of process, then one evaluation
        metric.process({}, [make_sample(pred.to(dtype), gt.to(dtype))])
    result = metric.evaluate(len(maps))
    expected = reference(maps, 7, unseen=[1, 4, 6], ignore_index=ignore_index)
    assert list(result) == ['pAcc', 'mIoU', 'mIoU_seen', 'mIoU_unseen', 'hIoU']
    assert result == pytest.approx(expected, abs=1e-9)


def test_counted_by_hand(monkeypatch):
    gt = torch.tensor([[0, 0, 1, 1], [2, 2, 255, 255]])
    pred = torch.tensor([[0, 1, 1, 1], [0, 2, 2, 1]])
    # Accuracy: 1/2, 2/2 and 1/2.
    # IoU: class 0 = 1/3, class 1 (unseen) = 2/3, class 2 = 1/2; class 3 occurs nowhere and is skipped.
    metric = make_metric(dict(classes=['a', 'b', 'c', 'd'], unseen_classes=['b']))
    metric.process({}, [make_sample(pred, gt)])
    logged = []
    monkeypatch.setattr(zero_shot_iou_metric, 'print_log', lambda text, logger: logged.append(text))
    seen, unseen = 100 * (1 / 3 + 1 / 2) / 2, 100 * 2 / 3
    assert metric.evaluate(1) == pytest.approx(
        {
            'pAcc': 100 * 4 / 6,
            'mIoU': 50.0,
            'mIoU_seen': seen,
            'mIoU_unseen': unseen,
            'hIoU': 2 * seen * unseen / (seen + unseen),
        }
    )
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in logged[0].splitlines() if line.startswith('|')]
    assert rows == [
        ['Class', 'Split', 'IoU', 'Acc'],
        ['a', 'seen', '33.33', '50.00'],
        ['b', 'unseen', '66.67', '100.00'],
        ['c', 'seen', '50.00', '50.00'],
        ['d', 'seen', '-', '-'],
    ]


def test_areas_leave_ignored_pixels_out_and_keep_the_sum():
    (pred, gt), *_ = random_maps(1, seed=3)
    tp, pred_area, gt_area = class_areas(pred[0], gt[0], num_classes=7)
    labelled = int((gt != 255).sum())
    assert pred_area.sum() == gt_area.sum() == labelled
    assert tp.dtype == torch.int64 and tp.shape == (7,)
    assert gt_area[2] == pred_area[2] == 0


def test_predicted_but_absent_class_counts_as_zero_and_absent_class_does_not():
    areas = [torch.tensor(v) for v in ([4, 0, 0], [4, 2, 0], [6, 0, 0])]
    result = zero_shot_iou(*areas, unseen_mask=torch.tensor([False, True, True]))
    assert result['mIoU_unseen'] == 0.0  # one unseen class with IoU 0; the other has none
    assert result['mIoU'] == pytest.approx(100 * (4 / 6) / 2)
    assert result['hIoU'] == 0.0


def test_harmonic_mean_of_two_zeros_is_zero():
    areas = [torch.tensor(v) for v in ([0, 0], [3, 3], [3, 3])]
    assert zero_shot_iou(*areas, unseen_mask=torch.tensor([False, True]))['hIoU'] == 0.0


@pytest.mark.parametrize('meta', [dict(classes=NAMES), dict(classes=NAMES, unseen_classes=['class 6'])])
def test_no_number_where_none_exists(meta):
    maps = random_maps(2)  # class 6 has no pixel
    metric = make_metric(meta)
    metric.process({}, [make_sample(*pair) for pair in maps])
    result = metric.evaluate(2)
    assert set(result) == {'pAcc', 'mIoU', 'mIoU_seen'}
    assert result['mIoU_seen'] == result['mIoU']
    assert all(math.isfinite(value) for value in result.values())


def test_image_without_labels_gives_no_number():
    metric = make_metric()
    metric.process({}, [make_sample(torch.zeros(2, 2).long(), torch.full((2, 2), 255))])
    assert metric.evaluate(1) == {}


@pytest.mark.parametrize('label', [7, 255, -1])
def test_prediction_outside_the_classes_is_a_miss(label):
    gt = torch.zeros(1, 2, 2, dtype=torch.int64)
    pred = torch.tensor([[[0, label], [label, 0]]])
    metric = make_metric(dict(classes=NAMES[:2], unseen_classes=[]))
    metric.process({}, [make_sample(pred, gt)])
    assert metric.evaluate(1) == pytest.approx({'pAcc': 50.0, 'mIoU': 50.0, 'mIoU_seen': 50.0})


def test_seg_data_samples_evaluator_and_prefix():
    maps = random_maps(3)
    expected = reference(maps, 7, unseen=[1, 4, 6])
    samples = [SegDataSample(pred_sem_seg=PixelData(data=p), gt_sem_seg=PixelData(data=g)) for p, g in maps]
    metric = make_metric()
    metric.process({}, samples)
    assert metric.evaluate(3) == pytest.approx(expected)
    evaluator = Evaluator([dict(type='mmseg.ZeroShotIoUMetric', prefix='test')])
    evaluator.dataset_meta = META
    evaluator.process(samples, {})
    assert evaluator.evaluate(3) == pytest.approx({f'test/{key}': value for key, value in expected.items()})


def test_a_second_evaluation_starts_from_nothing():
    metric = make_metric()
    results = []
    for _ in range(2):
        metric.process({}, [make_sample(*pair) for pair in random_maps(2)])
        results.append(metric.evaluate(2))
    assert results[0] == results[1]


def test_many_classes_need_another_ignore_label():
    names = [f'class {i}' for i in range(300)]
    gt = torch.tensor([[255, 255], [299, 65535]])
    metric = make_metric(dict(classes=names, unseen_classes=['class 255']), ignore_index=65535)
    metric.process({}, [make_sample(gt, gt)])
    assert metric.evaluate(1)['mIoU_unseen'] == 100.0
    with pytest.raises(ValueError, match=r'ignore_index=255.*300 classes'):
        class_areas(gt, gt, num_classes=300, ignore_index=255)


def test_one_result_stays_small():
    names = [f'class {i}' for i in range(847)]
    metric = make_metric(dict(classes=names, unseen_classes=[]), ignore_index=65535)
    generator = torch.Generator().manual_seed(0)
    metric.process({}, [make_sample(*torch.randint(4, (2, 64, 64), generator=generator))])
    assert sum(part.numel() for part in metric.results[0]) <= 2 * 4 * 4  # not 847 x 847


def test_label_outside_the_classes_names_image_label_and_range():
    gt = torch.tensor([[0, 9], [12, 255]])
    with pytest.raises(ValueError, match=r'street\.png: .*\[9, 12\].*0…6.*ignore_index=255'):
        make_metric().process({}, [make_sample(torch.zeros_like(gt), gt, path='street.png')])


def test_wrong_inputs_are_named():
    label = torch.zeros(1, 4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r'\(4, 4\).*\(4, 5\)'):
        make_metric().process({}, [make_sample(label, torch.zeros(1, 4, 5).long())])
    with pytest.raises(ValueError, match=r'shape \(2, 4, 4\)'):
        make_metric().process({}, [make_sample(torch.zeros(2, 4, 4).long(), label)])
    with pytest.raises(ValueError, match=r'no `gt_sem_seg\.data`.*LoadAnnotations'):
        make_metric().process({}, [dict(pred_sem_seg=dict(data=label))])
    with pytest.raises(ValueError, match='dataset_meta'):
        ZeroShotIoUMetric().process({}, [])
    with pytest.raises(ValueError, match='nowhere'):
        make_metric(dict(classes=NAMES, unseen_classes=['nowhere'])).process({}, [])


def evaluate_in_process(rank, world_size, port, folder):
    """What a runner does in one of several processes; saves the result it is given.

    The process group is left as it is: destroying it waits, with Python's lock, for a thread of gloo that may need it.
    """
    import os

    os.chdir(folder)  # MMEngine exchanges results in a folder of the working directory
    torch.distributed.init_process_group(
        'gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=world_size
    )
    maps = random_maps(5)
    metric = make_metric()
    # 5 images on 2 processes: the sampler repeats one image, which must not be counted twice.
    indices = list(DefaultSampler(maps, shuffle=False))
    assert len(indices) == 3
    for index in indices:
        metric.process({}, [make_sample(*maps[index])])
    torch.save(metric.evaluate(len(maps)), f'rank{rank}.pth')


def test_two_processes_give_the_numbers_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    mp.spawn(evaluate_in_process, args=(2, port, str(tmp_path)), nprocs=2)
    expected = reference(random_maps(5), 7, unseen=[1, 4, 6])
    for rank in range(2):
        assert torch.load(tmp_path / f'rank{rank}.pth', weights_only=True) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize('num_classes', [3, 300])
def test_predicted_labels_are_written_on_request(tmp_path, num_classes):
    metric = ZeroShotIoUMetric(output_dir=str(tmp_path / 'out'), ignore_index=65535)
    metric.dataset_meta = dict(classes=[f'class {i}' for i in range(num_classes)])
    pred = torch.tensor([[0, num_classes - 1], [1, 2]])
    sample = dict(img_path='some/where/a.jpg', pred_sem_seg=dict(data=pred[None]), gt_sem_seg=dict(data=pred[None]))
    metric.process({}, [sample])
    assert np.array(Image.open(tmp_path / 'out' / 'a.png')).tolist() == pred.tolist()
