import matplotlib.image
import numpy as np
import pytest

from mmseg_alignzeg.visualization import (
    Correction,
    contact_sheet,
    corrections_picture,
    features_picture,
    predictions_picture,
)
from mmseg_alignzeg.visualization.canvas import Canvas
from mmseg_alignzeg.visualization.label_maps import marked_name, shorten
from mmseg_alignzeg.vocabulary import Vocabulary


def test_contact_sheet_draws_labels_in_their_colours(tmp_path):
    image = np.full((32, 32, 3), 128, dtype=np.uint8)
    labels = np.zeros((32, 32), dtype=np.int64)
    labels[8:24, 8:24] = 1
    labels[:4] = 255
    path = tmp_path / 'new' / 'sheet.png'
    palette = [[200, 10, 10], [10, 10, 200]]
    contact_sheet(('image', 'labels'), [[image, labels]], Vocabulary(('a', 'b'), ('b',)), palette, path, 'title')
    sheet = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)
    colours = {tuple(colour) for colour in sheet.reshape(-1, 3)}
    assert {(200, 10, 10), (10, 10, 200), (128, 128, 128), (235, 235, 235), (0, 0, 0)} <= colours


VOCABULARY = Vocabulary(('tree', 'cat', 'sky'), ('cat',))
PALETTE = [[200, 10, 10], [10, 10, 200], [10, 180, 60]]


@pytest.mark.parametrize(('shape', 'zoom', 'size'), [((20, 31), 10, 13), ((210, 420), 1, 15)])
def test_every_pixel_of_a_panel_is_one_of_the_image(shape, zoom, size):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
    labels = generator.integers(0, 2, shape) * 2
    labels[:5] = 255
    picture = predictions_picture(image, [('ground truth', labels), ('prediction', labels[::-1])], VOCABULARY, PALETTE)
    assert picture.dtype == np.uint8 and picture.shape[1] == 3 * zoom * shape[1] + 4 * size
    colours = np.full((256, 3), 235, dtype=np.uint8)
    colours[:3] = PALETTE
    for number, panel in enumerate((image, colours[labels], colours[labels[::-1]])):
        left = size + number * (zoom * shape[1] + size)
        shown = picture[3 * size : 3 * size + zoom * shape[0], left : left + zoom * shape[1]]
        assert np.array_equal(shown, panel.repeat(zoom, 0).repeat(zoom, 1))


def test_a_large_vocabulary_and_a_map_of_small_labels():
    names = tuple(map(str, range(300)))
    palette = [[i % 200, i // 2, 7] for i in range(300)]
    labels = np.full((30, 30), 7)
    picture = predictions_picture(np.zeros((30, 30, 3), np.uint8), [('labels', labels)], Vocabulary(names, ()), palette)
    assert (picture == palette[7]).all(axis=-1).any()


def test_unseen_regions_have_a_frame_and_the_legend_says_so():
    image = np.full((400, 400, 3), 128, dtype=np.uint8)
    labels = np.zeros((400, 400), dtype=np.int64)
    plain = predictions_picture(image, [('prediction', labels)], VOCABULARY, PALETTE)
    labels[100:200, 100:200] = 1
    framed = predictions_picture(image, [('prediction', labels)], VOCABULARY, PALETTE)
    top, left = 3 * 14, 2 * 14 + 400
    assert framed[top + 150, left + 150].tolist() == PALETTE[1] and framed[top + 50, left + 50].tolist() == PALETTE[0]
    assert (framed[top + 150, left + 95 : left + 105] == 0).all(axis=-1).any()  # black at the border
    assert not (plain[top : top + 400, left : left + 400] == 0).all(axis=-1).any()
    below = set(map(tuple, framed[top + 405 :].reshape(-1, 3)))
    assert {tuple(PALETTE[0]), tuple(PALETTE[1])} <= below and tuple(PALETTE[2]) not in below
    assert marked_name(1, VOCABULARY) == 'cat (unseen)' and marked_name(0, VOCABULARY) == 'tree'


def test_labels_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 4\) pixels, the labels of 'truth' \(5, 4\)"):
        predictions_picture(np.zeros((4, 4, 3), np.uint8), [('truth', np.zeros((5, 4), int))], VOCABULARY, PALETTE)


def test_a_corrected_proposal_keeps_its_colours_and_the_rest_is_pale():
    image = np.full((350, 350, 3), 100, dtype=np.uint8)
    mask = np.zeros((350, 350), dtype=bool)
    mask[100:200, 50:300] = True
    corrections = [Correction(mask, 0.9, 0, 1, 0.7, 0.2)] * 4
    picture = corrections_picture(image, corrections, VOCABULARY, PALETTE, gamma=0.3)
    size, row = 13, 21
    height = 350 + 3 * row + 2 * size
    assert picture.shape == (size + 2 * height, size + 3 * (350 + size), 3)
    for left, top in ((size, size), (size + 2 * (350 + size), size), (size, size + height)):
        panel = picture[top : top + 350, left : left + 350]
        assert (panel[110:190, 60:290] == 100).all()
        assert (panel[:90] == round(0.25 * 100 + 0.75 * 255)).all()
        below = set(map(tuple, picture[top + 355 : top + height - size, left : left + 350].reshape(-1, 3)))
        assert {tuple(PALETTE[0]), tuple(PALETTE[1])} <= below and tuple(PALETTE[2]) not in below
    assert (picture[size + height :, 2 * size + 350 :] == 255).all()  # no fifth panel
    with pytest.raises(ValueError, match='no correction to draw'):
        corrections_picture(image, [], VOCABULARY, PALETTE)


def test_a_map_has_a_colour_and_a_marker_for_each_class(monkeypatch):
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    axes = []
    to_array = Canvas.to_array
    monkeypatch.setattr(Canvas, 'to_array', lambda self: axes.append(self.figure.axes[0]) or to_array(self))
    picture = features_picture(points, np.array([1, 2, 1]), VOCABULARY)
    assert picture.shape == (700, 1000, 3)
    lines = {line.get_marker(): line for line in axes[0].get_lines()}
    assert lines['o'].get_xydata().tolist() == [[1, 0]]  # sky
    assert lines['^'].get_xydata().tolist() == [[0, 0], [0, 1]]  # cat, unseen
    for line in lines.values():
        colour = tuple(int(line.get_color()[i : i + 2], 16) for i in (1, 3, 5))
        assert colour in set(map(tuple, picture[:, :700].reshape(-1, 3)))


def test_long_names_keep_their_end():
    assert shorten('cat (unseen)', 12) == 'cat (unseen)'
    assert shorten('a very long name (unseen)', 20) == 'a very lon… (unseen)'
    assert all(len(shorten('x' * 50, length)) == length for length in range(1, 50))
