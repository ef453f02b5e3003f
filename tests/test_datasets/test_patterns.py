import hashlib
import io

import numpy as np
import pytest
from mmengine import fileio
from mmseg.registry import DATASETS
from PIL import Image

import mmseg_alignzeg  # noqa: F401
from mmseg_alignzeg.datasets import PatternsDataset, draw_scene
from mmseg_alignzeg.datasets.patterns import (
    BLOBS_PER_SCENE,
    CLASSES,
    COLOURS,
    IGNORE_LABEL,
    MIN_VISIBLE_AREA,
    PATTERNS,
    UNSEEN_CLASSES,
)

SEEN = [name for name in CLASSES if name not in UNSEEN_CLASSES]
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]


def test_every_colour_and_pattern_of_an_unseen_class_is_seen_in_another_pair():
    assert len(CLASSES) == len(set(CLASSES)) == 20 and len(UNSEEN_CLASSES) == 8 and len(SEEN) == 12
    assert {name.split()[0] for name in SEEN} == set(COLOURS)
    assert {name.split()[1] for name in SEEN} == set(PATTERNS)


def test_a_scene_is_what_it_was_when_the_weights_were_made():
    image, labels = draw_scene(0, 0)
    assert image.shape == (128, 128, 3) and image.dtype == labels.dtype == np.uint8
    digest = hashlib.sha256(image.tobytes() + labels.tobytes()).hexdigest()
    assert digest == '5af34a31afbe23b40fc5365a9d2dc1850a4987817c5f37d17eb2dd685b623f26'


def test_seed_and_index_both_choose_the_scene():
    images = [draw_scene(seed, index, 32)[0].tobytes() for seed in (0, 1) for index in (0, 1)]
    assert len(set(images)) == 4
    assert draw_scene(1, 1, 32)[0].tobytes() == images[3]


def test_scenes_hold_two_to_five_blobs_of_visible_size_and_all_classes_occur():
    met = set()
    for index in range(150):
        _, labels = draw_scene(3, index, 64)
        values, counts = np.unique(labels[labels != IGNORE_LABEL], return_counts=True)
        assert BLOBS_PER_SCENE[0] <= len(values) <= BLOBS_PER_SCENE[1]
        assert counts.min() >= MIN_VISIBLE_AREA * labels.size
        assert (labels == IGNORE_LABEL).any()
        met.update(values.tolist())
    assert met == set(range(20))


def test_the_resolution_does_not_change_the_layout():
    small, large = draw_scene(0, 4, 64)[1], draw_scene(0, 4, 128)[1]
    assert (large[::2, ::2] == small).mean() > 0.95


def test_blobs_show_the_colour_of_their_name():
    # Average over many scenes: one blob's mean also holds its neutral tone, which is grey.
    means = {colour: [] for colour in COLOURS}
    for index in range(60):
        image, labels = draw_scene(9, index, 64)
        for label in np.unique(labels[labels != IGNORE_LABEL]):
            means[CLASSES[label].split()[0]].append(image[labels == label].mean(axis=0))
    red, green, blue, yellow = (np.mean(means[colour], axis=0) for colour in COLOURS)
    assert red.argmax() == 0 and green.argmax() == 1 and blue.argmax() == 2
    assert yellow.argmin() == 2 and yellow[1] > red[1]


def test_a_sample_is_packed_as_the_models_expect_it():
    dataset = DATASETS.build(dict(type='PatternsDataset', length=3, seed=2, pipeline=PIPELINE, test_mode=True))
    assert isinstance(dataset, PatternsDataset) and len(dataset) == 3
    assert dataset.metainfo['unseen_classes'] == list(UNSEEN_CLASSES)
    assert len({tuple(colour) for colour in dataset.metainfo['palette']}) == 20
    assert np.array(dataset.metainfo['palette']).min() >= 0 and np.array(dataset.metainfo['palette']).max() <= 255

    image, labels = draw_scene(2, 1)
    for _ in range(2):  # nothing of the first reading is left in the second
        sample = dataset[1]
        assert np.array_equal(sample['inputs'].permute(1, 2, 0).numpy()[..., ::-1], image)
        assert np.array_equal(sample['data_samples'].gt_sem_seg.data[0].numpy(), labels)
    path = sample['data_samples'].img_path
    assert path == 'patterns://2/128/1'
    with Image.open(io.BytesIO(fileio.get(path))) as image:
        np.testing.assert_array_equal(np.asarray(image), draw_scene(2, 1)[0])
    assert sample['data_samples'].ori_shape == (128, 128)


def test_unseen_labels_never_reach_training():
    dataset = PatternsDataset(40, pipeline=PIPELINE, metainfo=dict(classes=SEEN, unseen_classes=[]))
    assert len(dataset.metainfo['palette']) == 12 and dataset.metainfo['unseen_classes'] == []
    for index in range(40):
        _, labels = draw_scene(0, index)
        target = dataset[index]['data_samples'].gt_sem_seg.data[0].numpy()
        for old_label in np.unique(labels):
            seen = old_label != IGNORE_LABEL and CLASSES[old_label] in SEEN
            expected = SEEN.index(CLASSES[old_label]) if seen else IGNORE_LABEL
            assert (target[labels == old_label] == expected).all()


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(length=0), '`length`.*at least 1, got 0'),
        (dict(length=1, seed=-1), '`seed`.*at least 0, got -1'),
        (dict(length=1, image_size=16), '`image_size`.*at least 32, got 16'),
        (dict(length=1, image_size=64.0), '`image_size`.*integer.*got 64.0'),
        (dict(length=1, metainfo=dict(classes=SEEN)), '`unseen_classes` names'),
        (dict(length=1, metainfo=dict(classes=['red tartan'], unseen_classes=[])), 'red tartan'),
    ],
)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PatternsDataset(**kwargs)


def test_draw_scene_names_wrong_arguments():
    with pytest.raises(ValueError, match=r'`index`.*at least 0, got -1'):
        draw_scene(0, -1)
