"""Files for other tools: read back by pycocotools if it is there, by hand, and by drawing polygons with Pillow."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from alignzeg.apis import AlignZegInferencer, Prediction, Proposal
from mmseg_alignzeg.datasets.patterns import draw_scene


def made(labels, classes=('sky', 'red dots', 'cat', 'others'), unseen=('cat',), name='scene.png'):
    return Prediction(name, np.full((*labels.shape, 3), 90, np.uint8), labels, classes, unseen)


def noise(height=23, width=31, count=4):
    """Holes, fragments, diagonal neighbours, and regions within regions."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, count, (height, width)).astype(np.uint8)
    labels[8:, 12:] = 1
    labels[12:20, 15:28] = 2
    labels[14:18, 18:25] = 1
    labels[15:17, 20:22] = 0
    return labels


def decoded(segmentation):
    """A mask from run lengths, one pixel after the other."""
    height, width = segmentation['size']
    flat, value = [], 0
    for length in segmentation['counts']:
        flat += [value] * length
        value = 1 - value
    return np.array(flat, bool).reshape(width, height).T


def test_coco_has_a_mask_for_each_class():
    labels = noise()
    coco = made(labels).to_coco()
    assert coco == json.loads(json.dumps(coco))
    assert [(c['id'], c['name'], c['unseen']) for c in coco['categories']] == [
        (1, 'sky', False), (2, 'red dots', False), (3, 'cat', True),
    ]  # fmt: skip
    assert coco['images'] == [{'id': 1, 'file_name': 'scene.png', 'width': 31, 'height': 23}]
    assert [annotation['category_id'] for annotation in coco['annotations']] == [1, 2, 3]
    for annotation in coco['annotations']:
        mask = labels == annotation['category_id'] - 1
        assert np.array_equal(decoded(annotation['segmentation']), mask) and annotation['area'] == mask.sum()
        (x, y, w, h), (rows, columns) = annotation['bbox'], np.nonzero(mask)
        assert (x, y, x + w - 1, y + h - 1) == (columns.min(), rows.min(), columns.max(), rows.max())
    whole = made(np.zeros((3, 2), np.uint8)).to_coco()['annotations']
    assert [annotation['segmentation']['counts'] for annotation in whole] == [[0, 6]]


def test_pycocotools_reads_the_masks(tmp_path):
    coco = pytest.importorskip('pycocotools.coco')
    labels = noise()
    made(labels).save(tmp_path / 'a.json', 'coco')
    data = coco.COCO(str(tmp_path / 'a.json'))
    for annotation in data.loadAnns(data.getAnnIds()):
        assert np.array_equal(data.annToMask(annotation).astype(bool), labels == annotation['category_id'] - 1)
    assert [category['name'] for category in data.loadCats(data.getCatIds(['cat']))] == ['cat']


@pytest.mark.parametrize(
    'labels', [noise(), np.indices((6, 7)).sum(0) % 2, draw_scene(2, 4)[1] % 3, np.zeros((1, 1), int)]
)
def test_polygons_drawn_one_after_the_other_are_the_label_map(labels):
    content = made(labels.astype(np.uint8)).to_polygons()
    drawn = Image.new('L', (content['imageWidth'], content['imageHeight']), 255)
    for shape in content['shapes']:
        assert shape['shape_type'] == 'polygon' and len(shape['points']) >= 3
        value = ('sky', 'red dots', 'cat', 'others').index(shape['label'])
        ImageDraw.Draw(drawn).polygon([tuple(point) for point in shape['points']], outline=value, fill=value)
    assert np.array_equal(np.asarray(drawn), labels)


def test_files_are_whole_and_replaced_only_if_asked(tmp_path):
    image = tmp_path / 'in' / 'scene.png'
    image.parent.mkdir()
    Image.new('RGB', (31, 23)).save(image)
    prediction = made(noise(), name=str(image))
    for kind in ('overlay', 'png', 'coco', 'labelme', 'csv', 'proposals'):
        target = tmp_path / 'out' / f'{kind}.file'
        prediction.save(target, kind)
        before = target.read_bytes()
        with pytest.raises(FileExistsError, match='exists already: pass overwrite=True'):
            prediction.save(target, kind)
        prediction.save(target, kind, overwrite=True)
        assert target.read_bytes() == before or kind == 'proposals'  # a zip file has the time in it
    assert len(list((tmp_path / 'out').iterdir())) == 6
    assert json.loads((tmp_path / 'out/labelme.file').read_text())['imagePath'] == '../in/scene.png'
    with Image.open(tmp_path / 'out/overlay.file') as drawn:
        assert np.array_equal(np.asarray(drawn), np.asarray(prediction.overlay()))
    prediction.save(tmp_path / 'x.jpg', side_by_side=True)
    with Image.open(tmp_path / 'x.jpg') as drawn:
        assert drawn.format == 'JPEG' and drawn.size == prediction.overlay(side_by_side=True).size
    with pytest.raises(ValueError, match=r"format='gif' must be one of overlay, png"):
        prediction.save(tmp_path / 'x.gif', 'gif')


def test_shares_in_a_table_cannot_be_formulas(tmp_path):
    made(noise(), ('=1+1', 'a,"b', 'cat', 'others'), name='-x.png').save(tmp_path / 'a.csv', 'csv')
    rows = list(csv.reader(io.StringIO((tmp_path / 'a.csv').read_text())))
    assert rows[0] == ['image', 'class', 'unseen', 'pixels', 'share']
    assert [row[:3] for row in rows[1:]] == [
        ["'-x.png", "'=1+1", 'False'], ["'-x.png", 'a,"b', 'False'], ["'-x.png", 'cat', 'True'],
        ["'-x.png", 'others', 'False'],
    ]  # fmt: skip
    assert [int(row[3]) for row in rows[1:]] == np.bincount(noise().ravel()).tolist()
    assert sum(float(row[4]) for row in rows[1:]) == pytest.approx(1)


def test_more_than_255_classes_have_16_bits(tmp_path):
    labels = np.arange(300, dtype=np.uint16).reshape(15, 20)
    made(labels, tuple(map(str, range(300))), ()).save(tmp_path / 'a.png', 'png')
    with Image.open(tmp_path / 'a.png') as image:
        assert image.mode == 'I;16' and np.array_equal(np.asarray(image), labels)
    with pytest.raises(ValueError, match='cannot hold 70,000 classes'):
        made(labels, tuple(map(str, range(70_000))), ()).save(tmp_path / 'b.png', 'png')


def test_a_prediction_is_a_line():
    assert repr(made(noise() % 2)).startswith("Prediction('scene.png', 31 × 23 pixels: red dots ")
    proposal = Proposal(np.eye(10, dtype=bool), 'cat', 0.25, None)
    assert repr(proposal) == "Proposal('cat', score 0.250, 10 of 10 × 10 pixels)"


def test_supervision_has_a_mask_for_each_class():
    supervision = pytest.importorskip('supervision')
    labels = noise()
    found = made(labels).to_supervision()
    assert isinstance(found, supervision.Detections) and found.class_id.tolist() == [0, 1, 2]
    assert found.data['class_name'].tolist() == ['sky', 'red dots', 'cat'] and found.data['unseen'].tolist() == [
        0,
        0,
        1,
    ]
    assert np.array_equal(found.mask, np.stack([labels == label for label in range(3)]))
    assert found.xyxy[2].tolist() == [*np.argwhere(labels == 2).min(0)[::-1], *np.argwhere(labels == 2).max(0)[::-1]]
    assert len(made(np.full((4, 4), 3, np.uint8)).to_supervision()) == 0  # nothing but others


def test_fiftyone_has_a_mask_with_names():
    fiftyone = pytest.importorskip('fiftyone')
    from alignzeg.apis.adapters import mask_targets

    labels = noise()
    found = made(labels).to_fiftyone()
    assert isinstance(found, fiftyone.Segmentation)
    assert np.array_equal(found.mask, np.where(labels == 3, 0, labels + 1))
    assert mask_targets(('sky', 'cat')) == {1: 'sky', 2: 'cat'}


@pytest.mark.parametrize('package', ['supervision', 'fiftyone'])
def test_a_missing_package_is_named(package, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'pip install "mmseg_alignzeg\[{package}\]"'):
        getattr(made(noise()), f'to_{package}')()


def test_images_in_memory_give_the_same_labels(tmp_path):
    pixels = draw_scene(2, 3)[0]
    path = tmp_path / 'a.png'
    Image.fromarray(pixels).save(path)
    turned = Image.fromarray(np.rot90(pixels))
    turned.getexif()[274] = 6  # must be turned by a quarter clockwise
    results = AlignZegInferencer(device='cpu')([path, Image.fromarray(pixels), path.read_bytes(), turned])
    assert [result.name for result in results] == [str(path), 'image 1', 'bytes 2', 'image 3']
    assert all(np.array_equal(result.labels, results[0].labels) for result in results[1:])
    assert turned.size == (128, 128) and turned.getexif()[274] == 6  # what was given is as before
