"""What the label maps hold, against small cases counted by hand and against the loaders themselves."""

import numpy as np
import pytest
from mmseg.datasets import PascalVOCDataset
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image

from mmseg_alignzeg.datasets.file_checks import Header, read_image
from mmseg_alignzeg.datasets.patterns import draw_scene
from mmseg_alignzeg.datasets.validation.findings import shift_notes, spans, training_problems, value_problems
from mmseg_alignzeg.datasets.validation.pairs import PairChecker, Tally, count_values, palette_problems, smooth_problems
from mmseg_alignzeg.datasets.validation.rules import LabelRules, annotation_loader, label_table

COLOURS = PascalVOCDataset.METAINFO['palette']
PALETTE = [channel for colour in COLOURS for channel in colour]
THREE = LabelRules(('sky', 'road', 'car'), 3)


def save(path, values, palette=None):
    picture = Image.fromarray(np.asarray(values))
    if palette:
        picture.putpalette(palette)
    picture.save(path)
    return str(path)


@pytest.fixture
def pair(tmp_path):
    """Write an image and its label map, and return their entry in the list of a dataset."""

    def write(values, label_map=None, reduce_zero_label=False, name='a.png', palette=None, size=None):
        height, width = size or np.shape(values)[:2]
        Image.new('RGB', (width, height)).save(tmp_path / 'a.jpg')
        path = save(tmp_path / name, values, palette)
        return dict(
            img_path=str(tmp_path / 'a.jpg'),
            seg_map_path=path,
            label_map=label_map,
            reduce_zero_label=reduce_zero_label,
            seg_fields=[],
        )

    return write


def look(info, rules=THREE, loader='LoadAnnotations'):
    """Problems of one pair, and of the values of all pairs."""
    report = PairChecker(TRANSFORMS.build(dict(type=loader)), rules)(info)
    tally = Tally(rules)
    tally.add(report)
    return tally, [str(problem) for problem in report.problems + value_problems(tally)]


def labels(*rows):
    return np.array(rows, dtype=np.uint8)


# ---------------------------------------------------------------- what is right


def test_pixels_are_counted_per_class(pair):
    tally, problems = look(pair(labels([0, 0, 0, 2], [255, 2, 255, 255])))
    assert not problems and not tally.unlabelled and tally.images == 1
    assert {name: use.pixels for name, use in tally.class_uses.items()} == {'sky': 3, 'car': 2}
    assert tally.ignored_pixels == 3


def test_a_subset_counts_under_its_new_names(pair):
    rules = LabelRules(('car', 'sky'), 3, label_map={0: 1, 1: 255, 2: 0})
    tally, problems = look(pair(labels([0, 0, 0, 2], [1, 2, 255, 1]), rules.label_map), rules)
    assert not problems
    assert {name: use.pixels for name, use in tally.class_uses.items()} == {'sky': 3, 'car': 2}
    assert tally.ignored_pixels == 3


def test_zero_is_no_label_with_reduce_zero_label(pair):
    rules = LabelRules(('sky', 'road', 'car'), 3, reduce_zero_label=True)
    tally, problems = look(pair(labels([0, 1, 1, 3, 255]), reduce_zero_label=True), rules)
    assert not problems and tally.ignored_pixels == 2
    assert {name: use.pixels for name, use in tally.class_uses.items()} == {'sky': 2, 'car': 1}


def test_wide_labels(pair):
    rules = LabelRules(tuple(map(str, range(300))), 300, ignored=frozenset({65535}))
    values = np.array([[255, 299, 299, 65535]], dtype=np.uint16)
    tally, problems = look(pair(values), rules, 'LoadWideAnnotations')
    assert not problems and tally.ignored_pixels == 1
    assert {name: use.pixels for name, use in tally.class_uses.items()} == {'255': 1, '299': 2}


@pytest.mark.parametrize('loader', ['LoadAnnotations', 'LoadWideAnnotations'])
@pytest.mark.parametrize('reduce_zero_label', [False, True])
@pytest.mark.parametrize('label_map', [None, {0: 255, 1: 0, 2: 2, 3: 1}])
@pytest.mark.parametrize(
    ('values', 'palette', 'name'),
    [
        (np.arange(256, dtype=np.uint8).reshape(8, 32), None, 'a.png'),
        (np.arange(256, dtype=np.uint8).reshape(8, 32), PALETTE, 'a.png'),
        (np.array([[True, False]]), None, 'a.png'),
        (np.array([[0, 1, 2, 255, 256, 299, 65535]], dtype=np.uint16), None, 'a.png'),
        (np.array([[0, 1, 2, 255, 256, 299, 65535]], dtype=np.uint16), None, 'a.tif'),
        (np.array([[0, 1, 2, 255, 256, 299, 65535]], dtype=np.int32), None, 'a.tif'),
    ],
)
def test_the_table_of_a_loader_is_what_it_makes_of_whole_files(
    pair, loader, reduce_zero_label, label_map, values, palette, name
):
    info = pair(np.tile(values, (2, 1)), label_map, reduce_zero_label, name, palette)  # two rows: mmseg squeezes
    transform = TRANSFORMS.build(dict(type=loader))
    header, stored = read_image(info['seg_map_path'], decode=True)
    table = label_table(transform, info, header)
    np.testing.assert_array_equal(table[stored.astype(int)], transform({**info, 'seg_fields': []})['gt_seg_map'])
    assert info['seg_fields'] == []


def test_scenes_without_files():
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    dataset = DATASETS.build(dict(type='PatternsDataset', length=2, pipeline=pipeline))
    report = PairChecker(annotation_loader(dataset), LabelRules.of(dataset))(dataset.get_data_info(1))
    assert not report.problems and sum(report.values.values()) == 128 * 128
    truth = count_values(dataset[1]['gt_seg_map'])
    assert report.values == {(None, label): pixels for label, pixels in truth.items()}


@pytest.mark.parametrize(
    ('kind', 'kwargs', 'expected'),
    [
        ('CheckedPascalVOCDataset', dict(metainfo=dict(classes=['sofa', 'cow'])), (2, 21, False, {255}, 21, False)),
        ('CheckedPascalContextDataset59', {}, (59, 59, True, {255}, 59, False)),
        ('CheckedCOCOStuffDataset', {}, (171, 171, False, {255}, 171, True)),
        ('FoldersDataset', dict(label_classes=['a', 'b'], ignored_labels=[7]), (2, 2, False, {255}, 0, False)),
        ('ADE20KFullDataset', {}, (847, 847, False, {65535}, 0, False)),
    ],
)
def test_rules_of_datasets(kind, kwargs, expected, tmp_path):
    (tmp_path / 'list.txt').write_text('a\n')
    cfg = dict(type=kind, data_root=str(tmp_path), data_prefix=dict(img_path='.'), ann_file='list.txt', lazy_init=True)
    rules = LabelRules.of(DATASETS.build({**cfg, **kwargs}))
    count, num_values, reduce_zero_label, ignored, colours, train_ids = expected
    assert (len(rules.classes), rules.num_values, len(rules.palette)) == (count, num_values, colours)
    assert (rules.reduce_zero_label, rules.ignored, rules.train_ids) == (reduce_zero_label, ignored, train_ids)
    if kind == 'FoldersDataset':
        assert (rules.label_of(1), rules.label_of(7), rules.label_of(2)) == (1, 255, None)


# ---------------------------------------------------------------- what is wrong with one pair


def test_wrong_files(pair, tmp_path):
    _, problems = look(pair(labels([0, 1], [2, 0]), size=(2, 3)))
    assert problems == [
        f'{tmp_path}/a.png: a label map of 2 × 2 pixels for an image of 3 × 2: create the label map in the size of its '
        'image (resize labels with NEAREST, which mixes no values)'
    ]
    _, (line,) = look(pair(np.zeros((2, 2, 3), dtype=np.uint8)))
    assert 'has several channels (mode RGB)' in line and 'palette PNG' in line
    _, (line,) = look(pair(labels([0, 1]), name='a.jpeg'))
    assert 'a label map that is a JPEG' in line
    info = pair(labels([0, 1]))
    (tmp_path / 'a.jpg').write_bytes(b'')
    (tmp_path / 'a.png').write_bytes((tmp_path / 'a.png').read_bytes()[:40])
    _, (image, label) = look(info)
    assert 'a.jpg: cannot be read (0 bytes; not an image)' in image and 'a.png: cannot be read (40 bytes' in label


class UnfitLoader:
    """Needs an entry that the dataset does not give."""

    def __call__(self, results):
        return {'gt_seg_map': results['missing']}


def test_a_loader_that_reads_colours_or_fails(pair):
    info = pair(labels([0, 1]), palette=PALETTE)
    loader = TRANSFORMS.build(dict(type='LoadAnnotations', imdecode_backend='cv2'))
    (problem,) = PairChecker(loader, THREE)(info).problems
    assert 'LoadAnnotations returns 768 labels for 256 pixels' in str(problem) and "must be 'pillow'" in str(problem)
    (problem,) = PairChecker(UnfitLoader(), THREE)(info).problems
    assert problem.kind == 'loader' and 'UnfitLoader' in problem.what


def test_a_palette_made_anew(pair, tmp_path):
    classes = tuple(PascalVOCDataset.METAINFO['classes'])
    rules = LabelRules(classes, 21, palette=tuple(map(tuple, COLOURS)))
    info = pair(labels([0, 15, 15], [7, 0, 255]), palette=PALETTE)
    assert look(info, rules)[1] == []
    original = Image.open(info['seg_map_path'])
    original.convert('RGB').quantize(4, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        tmp_path / 'new.png'
    )
    header, values = read_image(str(tmp_path / 'new.png'), decode=True)
    (problem,) = palette_problems('new.png', header, count_values(values), rules)
    assert 'has the palette colour of class number' in problem.what
    # Grey shades, as some tools give to any 8-bit file, say nothing.
    grey = Header((1, 1), 'P', 'PNG', palette=tuple(i for i in range(256) for _ in range(3)))
    assert palette_problems('x', grey, [0, 7, 15], rules) == []


# ---------------------------------------------------------------- what the values tell


def test_labels_off_by_one(pair):
    _, (line,) = look(pair(labels([1, 2, 3], [1, 1, 255])))
    assert 'values are 1…3 where 0…2 are expected, off by one: set `reduce_zero_label=True`' in line


def test_one_value_too_many(pair):
    _, (line,) = look(pair(labels([0, 1, 2, 3])))
    assert 'contains 3 (25% of the pixels), one more than the last of 0…2' in line and 'replace it by 255' in line


def test_values_without_a_name(pair):
    _, (line,) = look(pair(labels([0, 11, 254, 253])))
    assert 'contains 11, 253…254 (75% of the pixels) where 0…2 and 255 for "no label" are expected' in line
    assert '`ignored_labels` of FoldersDataset' in line
    rules = LabelRules(('sky', 'road', 'car'), 3, reduce_zero_label=True)
    _, (line,) = look(pair(labels([0, 1, 2, 8]), reduce_zero_label=True), rules)
    assert 'contains 8 (25% of the pixels) where 1…3 and 255' in line


def test_palette_files_made_grey(pair):
    grey = np.asarray(Image.fromarray(np.array([COLOURS[:4]], dtype=np.uint8)).convert('L'))
    assert grey.tolist() == [[0, 38, 75, 113]]
    rules = LabelRules(tuple(PascalVOCDataset.METAINFO['classes']), 21, palette=tuple(map(tuple, COLOURS)))
    _, (line,) = look(pair(grey), rules)
    assert 'contains 38, 75, 113 (75% of the pixels), the grey shades of the class colours' in line


def test_coco_stuff_not_converted(pair):
    rules = LabelRules(tuple(map(str, range(171))), 171, train_ids=True)
    _, (line,) = look(pair(labels([0, 150, 175, 181])), rules)
    assert 'contains 175, 181 (50% of the pixels): class ids of COCO-Stuff' in line
    assert 'alignzeg convert coco_stuff' in line


def test_wide_labels_need_a_wide_loader_and_ignore_value(pair):
    rules = LabelRules(tuple(map(str, range(300))), 300)
    values = np.array([[0, 299, 299, 65535]], dtype=np.uint16)
    _, problems = look(pair(values), rules)
    assert any('value 299 becomes label 43' in line and 'LoadWideAnnotations' in line for line in problems)
    _, (line,) = look(pair(values), rules, 'LoadWideAnnotations')
    assert 'contains 65535 (25% of the pixels): if it means "no label", set `ignore_index=65535`' in line


def test_nothing_but_no_label(pair):
    tally, (line,) = look(pair(labels([255, 255])))
    assert len(tally.unlabelled) == 1 and 'no file has a label left' in line


def test_reduce_zero_label_may_be_one_too_many(pair):
    rules = LabelRules(('sky', 'road', 'car'), 3, reduce_zero_label=True)
    tally, problems = look(pair(labels([0, 1, 2]), reduce_zero_label=True), rules)
    assert not problems and 'set `reduce_zero_label=False`' in str(shift_notes(tally)[0])
    tally, _ = look(pair(labels([0, 1, 2, 3]), reduce_zero_label=True), rules)
    assert shift_notes(tally) == []


def test_unseen_labels_in_training(pair):
    tally, _ = look(pair(labels([0, 1, 2, 2])))
    assert training_problems(tally, THREE.classes) == []
    unseen, names = training_problems(tally, ('sky', 'road'))
    assert "a.png: 2 pixels of 'car', which is not a seen class, reach training: set `metainfo.classes`" in str(unseen)
    assert '3 class names, and 2 seen ones in the model' in str(names)
    (names,) = training_problems(tally, ('sky', 'car', 'road'))
    assert "label 1 is 'road', and 'car' in the model" in str(names)


def test_spans():
    assert spans([3, 1, 2, 9, 7]) == '1…3, 7, 9'
    assert spans([5]) == '5' and spans(range(0, 20, 2)) == '0, 2, 4, 6, 8, …'


def test_a_smooth_resize_is_found_and_a_nearest_one_is_not(pair):
    """Against maps of the embedded world, whose regions are real for this purpose: blobs in front of blobs."""
    for index in range(3):
        scene = draw_scene(1, index)[1].astype(np.uint8)
        rules = LabelRules(tuple(map(str, range(256))), 256)
        for values, found in (
            (scene, False),
            (resized(scene, Image.Resampling.NEAREST), False),
            (resized(scene, Image.Resampling.BILINEAR), True),
            (resized(scene, Image.Resampling.BICUBIC), True),
        ):
            _, problems = look(pair(values), rules)
            assert any('resized smoothly' in line and 'NEAREST' in line for line in problems) == found


def resized(values, how):
    height, width = values.shape
    return np.asarray(Image.fromarray(values).resize((width // 2, height // 2), how).resize((width, height), how))


def test_a_narrow_band_between_its_neighbours_proves_nothing():
    band = np.repeat([0] * 20 + [1, 2] + [3] * 20, 30).reshape(-1, 30)  # ordered numbers, two pixels in between
    assert smooth_problems('a.png', band) == []
    ramp = np.repeat([0] * 20 + [*range(1, 10)] + [10] * 20, 30).reshape(-1, 30)
    assert [problem.kind for problem in smooth_problems('a.png', ramp)] == ['smooth']
