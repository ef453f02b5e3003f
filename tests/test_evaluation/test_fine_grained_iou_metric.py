"""The fine-grained measures against sets of pixels in plain Python, cases counted by hand, and two real processes."""

import csv
import math
import socket
import warnings

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
from mmseg_alignzeg.evaluation import FineGrainedIoUMetric, fine_grained_iou, image_scores
from mmseg_alignzeg.evaluation.fine_grained_iou import worst_cases

NAMES = [f'class {i}' for i in range(8)]
UNSEEN = (1, 4, 6)
THINGS = (0, 3, 4)
META = dict(classes=NAMES, unseen_classes=[NAMES[c] for c in UNSEEN])
THING_META = dict(META, thing_classes=[NAMES[c] for c in THINGS])


def make_metric(meta=META, **kwargs):
    metric = METRICS.build(dict(type='mmseg.FineGrainedIoUMetric', **kwargs))
    metric.dataset_meta = meta
    return metric


def make_sample(pred, gt, instances=None, path='image.png'):
    sample = dict(pred_sem_seg=dict(data=pred), gt_sem_seg=dict(data=gt), img_path=path)
    return sample if instances is None else dict(sample, gt_instance_map=dict(data=instances))


def evaluate(images, meta=META, **kwargs):
    metric = make_metric(meta, **kwargs)
    metric.process({}, [make_sample(*image) for image in images])
    return metric.evaluate(len(images))


def random_images(number=9, seed=0, ignore_index=255, with_instances=False):
    """Labels of different sizes; image 2 shows one class, image 5 nothing; class 2 is only predicted, 7 never occurs.

    Instance numbers are 0, 3 and one that is too large to count up to.
    """
    generator = torch.Generator().manual_seed(seed)

    def choose(values, shape):
        return torch.tensor(values)[torch.randint(len(values), shape, generator=generator)]

    images = []
    for i in range(number):
        shape = (1, 4 + i % 4, 9 - i % 3)
        here = choose([0, 1, 3, 4, 5, 6], (3,)).tolist()  # not every class in every image
        gt = choose({2: [4], 5: [ignore_index]}.get(i, [*here, ignore_index]), shape)
        keep = torch.rand(shape, generator=generator) < 0.5
        pred = torch.where(keep & (gt != ignore_index), gt, choose([0, 1, 2, 3, 4, 5, 6], shape))
        instances = choose([0, 3, 2**24], shape)
        images.append((pred, gt, instances) if with_instances else (pred, gt))
    return images


def reference(images, worst_q=(1, 5), things=(), ignore_index=255, num_classes=8, unseen=UNSEEN):
    """Sets of pixels, with no array operation."""
    per_class_and_image = {}  # (class, image) -> IoU
    segments = {c: [] for c in range(num_classes)}
    hits, unions = [0] * num_classes, [0] * num_classes
    for i, (pred, gt, *instances) in enumerate(images):
        pixels = [n for n, g in enumerate(gt.flatten().tolist()) if g != ignore_index]
        pred, gt = pred.flatten().tolist(), gt.flatten().tolist()
        for c in range(num_classes):
            true = {n for n in pixels if gt[n] == c}
            found = {n for n in pixels if pred[n] == c}
            hits[c] += len(true & found)
            unions[c] += len(true | found)
            if not true:
                continue
            per_class_and_image[c, i] = len(true & found) / len(true | found)
            parts = [true]
            if instances and c in things:
                numbers = instances[0].flatten().tolist()
                parts = [{n for n in true if numbers[n] == k} for k in {numbers[n] for n in true} - {0}]
            for part in parts:
                false_positives = len(found - true) * len(part) / len(true)
                segments[c].append(len(part & found) / (len(part) + false_positives))

    def mean(values):
        return sum(values) / len(values) if values else None

    def worst(values, q):
        return mean(sorted(values)[: max(1, int(q / 100 * len(values)))]) if values else None

    def qbar(values):
        return mean([worst(values, q) for q in range(10, 101, 10)]) if values else None

    forms = {'': mean, '_qbar': qbar, **{f'_q{q:g}': lambda values, q=q: worst(values, q) for q in worst_q}}
    groups = {'': range(num_classes), '_seen': set(range(num_classes)) - set(unseen), '_unseen': unseen}
    result = {}
    for group, members in groups.items():
        of_images = []
        for i in range(len(images)):
            of_image = [per_class_and_image[c, i] for c in members if (c, i) in per_class_and_image]
            of_images += [mean(of_image)] if of_image else []
        of_classes = [[iou for (c, _), iou in per_class_and_image.items() if c == member] for member in members]
        result['mIoU_D', group] = mean([hits[c] / unions[c] for c in members if unions[c]])
        for form, statistic in forms.items():
            result[f'mIoU_I{form}', group] = statistic(of_images)
            result[f'mIoU_C{form}', group] = mean([statistic(values) for values in of_classes if values])
            result[f'mIoU_K{form}', group] = mean([statistic(segments[c]) for c in members if segments[c]])
    for key, _ in list(result):
        seen, new = result[key, '_seen'], result[key, '_unseen']
        if seen is not None and new is not None:
            result[key, '_harmonic'] = 2 * seen * new / (seen + new) if seen + new else 0.0
    return {key + group: 100 * value for (key, group), value in result.items() if value is not None}


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('with_instances', [False, True])
@pytest.mark.parametrize(('dtype', 'ignore_index'), [(torch.int64, 255), (torch.uint8, 255), (torch.int16, -1)])
def test_equals_sets_of_pixels(seed, with_instances, dtype, ignore_index):
    images = random_images(seed=seed, ignore_index=ignore_index, with_instances=with_instances)
    worst_q = (1, 12.5, 40)
    expected = reference(images, worst_q, THINGS, ignore_index)
    assert len(expected) == 4 * (1 + 3 * 5) and all(math.isfinite(value) for value in expected.values())
    typed = [(pred.to(dtype), gt.to(dtype), *rest) for pred, gt, *rest in images]
    assert evaluate(typed, THING_META, worst_q=worst_q, ignore_index=ignore_index) == pytest.approx(expected, abs=1e-9)


def test_one_image_at_a_time_in_another_order_gives_the_same():
    images = random_images(with_instances=True)
    metric = make_metric(THING_META)
    for image in reversed(images):
        metric.process({}, [make_sample(*image)])
    assert metric.evaluate(len(images)) == pytest.approx(evaluate(images, THING_META), abs=1e-9)


def test_data_set_form_is_the_zero_shot_metric():
    images = random_images(seed=5)
    other = METRICS.build(dict(type='mmseg.ZeroShotIoUMetric'))
    other.dataset_meta = META
    other.process({}, [make_sample(*image) for image in images])
    expected, result = other.evaluate(len(images)), evaluate(images)
    pairs = {'': 'mIoU', '_seen': 'mIoU_seen', '_unseen': 'mIoU_unseen', '_harmonic': 'hIoU'}
    assert all(result[f'mIoU_D{group}'] == pytest.approx(expected[key], abs=1e-9) for group, key in pairs.items())


BY_HAND = [
    (torch.tensor([[0, 0, 1, 2]]), torch.tensor([[0, 0, 1, 1]])),
    (torch.tensor([[0, 2, 2, 2, 1]]), torch.tensor([[0, 0, 0, 0, 2]])),
]


def test_counted_by_hand():
    # Image 1: IoU a = 2/2, b = 1/2. Image 2: a = 1/4, c = 0/4, b only predicted.
    result = evaluate(BY_HAND, dict(classes=['a', 'b', 'c'], unseen_classes=['c']), worst_q=(50,))
    assert result['mIoU_D'] == pytest.approx(100 * (3 / 6 + 1 / 3 + 0) / 3)
    assert result['mIoU_I'] == pytest.approx(100 * (3 / 4 + 1 / 8) / 2)
    assert result['mIoU_I_seen'] == pytest.approx(100 * (3 / 4 + 1 / 4) / 2)  # image 2 counts with a alone
    assert result['mIoU_I_unseen'] == 0.0  # of image 2 alone; image 1 has no unseen class
    assert result['mIoU_C'] == result['mIoU_K'] == pytest.approx(100 * (5 / 8 + 1 / 2 + 0) / 3)
    assert result['mIoU_C_q50'] == pytest.approx(100 * (1 / 4 + 1 / 2 + 0) / 3)
    assert result['mIoU_I_q50'] == pytest.approx(100 / 8)
    assert result['mIoU_C_harmonic'] == 0.0
    # Of two images, q = 10 … 90 leave one and 100 both.
    assert result['mIoU_I_qbar'] == pytest.approx(100 * (9 * 1 / 8 + 7 / 16) / 10)


def test_instances_share_the_false_positives_by_area():
    gt = torch.tensor([[0, 0, 0, 0, 0, 0, 1, 1]])
    pred = torch.tensor([[0, 0, 0, 1, 0, 1, 0, 0]])
    instances = torch.tensor([[7, 7, 7, 7, 2, 0, 9, 9]])  # one pixel of class 0 belongs to no instance
    meta = dict(classes=NAMES[:2], unseen_classes=[NAMES[1]], thing_classes=NAMES[:1])
    result = evaluate([(pred, gt, instances)], meta, worst_q=(1,))
    # FP_0 = 2 and area_0 = 6: 3 of 4 pixels with 2·4/6 false positives, 1 of 1 pixel with 2·1/6.
    large, small = 3 / (4 + 8 / 6), 1 / (1 + 2 / 6)
    assert result['mIoU_K_seen'] == pytest.approx(100 * (large + small) / 2)
    assert result['mIoU_K_q1_seen'] == pytest.approx(100 * large)
    assert result['mIoU_K_unseen'] == 0.0
    assert result['mIoU_C_seen'] == pytest.approx(100 * 4 / 8)


def test_instances_of_ignored_pixels_are_none_and_things_without_a_number_have_no_segment():
    gt = torch.tensor([[0, 0, 255, 255], [1, 1, 1, 1]])
    instances = torch.tensor([[0, 0, 5, 5], [1, 1, 2, 2]])
    meta = dict(classes=NAMES[:2], unseen_classes=[])
    result = evaluate([(gt, gt, instances)], meta, thing_classes=NAMES[:2])  # the argument, not the data set
    assert result['mIoU_K'] == 100.0
    scores = image_scores(gt, gt, 2, instances=instances, thing_mask=torch.tensor([True, True]))
    assert scores.segment_classes.tolist() == [1, 1] and scores.areas[:, 3].tolist() == [2, 4]
    only_ignored = evaluate([(gt[:1], gt[:1], instances[:1])], meta, thing_classes=NAMES[:2])
    assert only_ignored['mIoU_C'] == 100.0 and not any(key.startswith('mIoU_K') for key in only_ignored)


def test_without_instances_a_class_is_one_segment_per_image():
    result = evaluate(random_images(), THING_META)
    for key in [key for key in result if key.startswith('mIoU_K')]:
        assert result[key] == pytest.approx(result[key.replace('K', 'C', 1)], abs=1e-9)


def test_instance_maps_without_a_thing_class_are_said_to_be_unused():
    images = random_images(with_instances=True)
    with pytest.warns(UserWarning, match='thing_classes'):
        result = evaluate(images)
    assert result == pytest.approx(reference(images), abs=1e-9)


def test_worst_cases_by_hand():
    values = torch.tensor([0.5, 0.1, 0.9, 0.3], dtype=torch.float64)
    # 1% of 4 is less than one value; 50% are two; 74% are still two.
    mean, q1, q50, q74, q100, qbar = worst_cases(values, (1, 50, 74, 100)).tolist()
    assert (q1, q50, q74) == pytest.approx((0.1, 0.2, 0.2)) and mean == q100 == pytest.approx(0.45)
    # q = 10, 20, 30, 40 leave one value, 50, 60, 70 two, 80, 90 three, 100 four.
    assert qbar == pytest.approx((4 * 0.1 + 3 * 0.2 + 2 * 0.3 + 0.45) / 10)


def test_class_that_never_occurs_leaves_no_trace():
    images = random_images(seed=2)
    fewer = evaluate(images, dict(classes=NAMES[:7], unseen_classes=META['unseen_classes']))
    assert evaluate(images) == pytest.approx(fewer, abs=1e-9)


def test_perfect_prediction_is_100_everywhere():
    images = [(torch.where(gt == 255, 0, gt), gt, instances) for _, gt, instances in random_images(with_instances=True)]
    result = evaluate(images, THING_META)
    assert result == pytest.approx(dict.fromkeys(result, 100.0)) and len(result) == 4 * (1 + 3 * 4)


@pytest.mark.parametrize('unseen', [[], ['class 7']])
def test_no_number_where_none_exists(unseen):
    result = evaluate(random_images(), dict(classes=NAMES, unseen_classes=unseen))
    assert not [key for key in result if key.endswith(('_unseen', '_harmonic'))]
    assert all(value == pytest.approx(result[key.removesuffix('_seen')]) for key, value in result.items())
    assert all(math.isfinite(value) for value in result.values()) and 'mIoU_K_qbar_seen' in result


@pytest.mark.parametrize('number', [0, 2])
def test_images_without_labels_give_no_number(number, tmp_path):
    gt = torch.full((2, 3), 255)
    assert evaluate([(torch.zeros_like(gt), gt)] * number, output_dir=str(tmp_path)) == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('label', [2, 255, -1])
def test_prediction_outside_the_classes_is_a_miss(label):
    gt = torch.zeros(1, 2, 2, dtype=torch.int64)
    pred = torch.tensor([[[0, label], [label, 0]]])
    instances = torch.tensor([[[1, 1], [2, 2]]])
    result = evaluate([(pred, gt, instances)], dict(classes=NAMES[:2], thing_classes=NAMES[:1]))
    assert result == pytest.approx(dict.fromkeys(result, 50.0)) and 'mIoU_K' in result


def test_seg_data_samples_evaluator_and_prefix():
    images = random_images(with_instances=True)
    samples = []
    for pred, gt, instances in images:
        sample = SegDataSample(pred_sem_seg=PixelData(data=pred), gt_sem_seg=PixelData(data=gt))
        sample.gt_instance_map = PixelData(data=instances)
        samples.append(sample)
    evaluator = Evaluator([dict(type='mmseg.FineGrainedIoUMetric', prefix='test')])
    evaluator.dataset_meta = THING_META
    evaluator.process(samples, {})
    expected = {f'test/{key}': value for key, value in reference(images, things=THINGS).items()}
    assert evaluator.evaluate(len(images)) == pytest.approx(expected, abs=1e-9)


def test_one_result_is_one_small_image_and_a_second_evaluation_starts_from_nothing():
    metric = make_metric(dict(classes=[f'class {i}' for i in range(847)]), ignore_index=65535)
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(4, (2, 64, 64), generator=generator)
    results = []
    for _ in range(2):
        metric.process({}, [make_sample(*image)] * 3)
        assert len(metric.results) == 3
        kept = metric.results[0]
        assert kept.areas.shape == (4, 4) and kept.segment_iou.shape == kept.segment_classes.shape == (4,)
        results.append(metric.evaluate(3))
    assert results[0] == results[1]


@pytest.mark.parametrize('q', [0, -5, 101, math.nan])
def test_q_outside_its_range_is_named(q):
    with pytest.raises(ValueError, match=rf'`worst_q` holds \[{q}\].*\(0, 100\]'):
        FineGrainedIoUMetric(worst_q=(5, q))
    with pytest.raises(ValueError, match='`worst_q`'):
        fine_grained_iou([], torch.zeros(3, dtype=torch.bool), worst_q=[q])
    with pytest.raises(ValueError, match='`worst_q`'):
        worst_cases(torch.ones(3), [q])


def test_wrong_inputs_are_named():
    label = torch.zeros(1, 4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r'a\.png: The prediction.*\(4, 5\).*\(4, 4\)'):
        make_metric().process({}, [make_sample(torch.zeros(1, 4, 5).long(), label, path='a.png')])
    with pytest.raises(ValueError, match=r'a\.png: The instance map has shape \(5, 4\) and the labels \(4, 4\)'):
        make_metric().process({}, [make_sample(label, label, torch.zeros(1, 5, 4).long(), path='a.png')])
    with pytest.raises(ValueError, match=r'a\.png: .*\[9\].*0…7.*ignore_index=255'):
        make_metric().process({}, [make_sample(label, label + 9, path='a.png')])
    with pytest.raises(ValueError, match=r'no `gt_sem_seg\.data`'):
        make_metric().process({}, [dict(pred_sem_seg=dict(data=label))])
    with pytest.raises(ValueError, match='dataset_meta'):
        FineGrainedIoUMetric().process({}, [])
    with pytest.raises(ValueError, match="`thing_classes` names \\['nothing'\\]"):
        make_metric(thing_classes=['nothing']).process({}, [])


def test_histogram_and_worst_images_on_request(tmp_path):
    metric = make_metric(output_dir=str(tmp_path / 'out'), num_worst=3)
    images = random_images()
    metric.process({}, [make_sample(*image, path=f'some/image {i}.png') for i, image in enumerate(images)])
    unnamed = make_sample(torch.ones(2, 2).long(), torch.zeros(2, 2).long(), path=None)
    metric.process({}, [unnamed])
    metric.evaluate(len(images) + 1)
    scores = [(0.0, 'image 9')]
    for i, image in enumerate(images):
        score = reference([image], unseen=()).get('mIoU_I')
        scores += [(score, f'some/image {i}.png')] if score is not None else []
    with open(tmp_path / 'out' / 'worst_images.csv', encoding='utf-8', newline='') as file:
        head, *rows = csv.reader(file)
    assert head == ['mIoU_I', 'image']
    expected = sorted(scores)[:3]
    assert [name for _, name in rows] == [name for _, name in expected]
    assert [float(score) for score, _ in rows] == pytest.approx([score for score, _ in expected])
    picture = np.array(Image.open(tmp_path / 'out' / 'image_scores.png').convert('RGB'))
    assert picture.std() > 0


def test_nothing_is_written_unless_wanted(tmp_path):
    evaluate(random_images(), output_dir=str(tmp_path / 'out'), keep_results=False)
    assert not (tmp_path / 'out').exists()


def evaluate_in_process(rank, world_size, port, folder):
    """What a runner does in one of several processes; saves the result it is given.

    The process group is left as it is: destroying it waits, with Python's lock, for a thread of gloo that may need it.
    """
    import os

    os.chdir(folder)  # MMEngine exchanges results in a folder of the working directory
    torch.distributed.init_process_group(
        'gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=world_size
    )
    images = random_images(with_instances=True)
    metric = make_metric(THING_META, output_dir='out')
    # 9 images on 2 processes: the sampler repeats one image, which must not be counted twice.
    indices = list(DefaultSampler(images, shuffle=False))
    assert len(indices) == 5
    for index in indices:
        metric.process({}, [make_sample(*images[index], path=f'{index}.png')])
    torch.save(metric.evaluate(len(images)), f'rank{rank}.pth')


def test_two_processes_give_the_numbers_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    mp.spawn(evaluate_in_process, args=(2, port, str(tmp_path)), nprocs=2)
    expected = reference(random_images(with_instances=True), things=THINGS)
    for rank in range(2):
        assert torch.load(tmp_path / f'rank{rank}.pth', weights_only=True) == pytest.approx(expected, abs=1e-9)
    with open(tmp_path / 'out' / 'worst_images.csv', encoding='utf-8', newline='') as file:
        names = [row[1] for row in csv.reader(file)][1:]
    assert sorted(names) == [f'{i}.png' for i in range(9) if i != 5]  # image 5 has no label


def test_no_warning_without_a_reason():
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        evaluate(random_images())
