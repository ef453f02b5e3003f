import colorsys

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageColor

from mmseg_alignzeg.datasets.patterns import CLASSES, COLOURS
from mmseg_alignzeg.visualization import overlay
from mmseg_alignzeg.visualization.colours import DISTINCT, SHADES, class_colours, colour_in, named_colours
from mmseg_alignzeg.visualization.legend import Entry, draw_legend, share_text
from mmseg_alignzeg.visualization.overlay import line_width, overlay_picture, paint_overlay, shown_colours, text_size
from mmseg_alignzeg.vocabulary import Vocabulary

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency" (2009),
# severity 1.0, for linear RGB.
VISIONS = {
    'normal': np.eye(3),
    'protanopia': [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    'deuteranopia': [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
VOCABULARY = Vocabulary(('tree', 'cat', 'sky'), ('cat',))


def least_distance(colours, vision):
    """The least ΔE (CIE 1976) of two colours (n, 3) uint8; CIELAB by LittleCMS."""
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(VISIONS[vision]), 0, 1)
    srgb = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    picture = Image.fromarray((255 * srgb).round().astype(np.uint8)[None])
    lab = ImageCms.profileToProfile(
        picture, ImageCms.createProfile('sRGB'), ImageCms.createProfile('LAB'), outputMode='LAB'
    )
    light, a, b = np.moveaxis(np.asarray(lab)[0].astype(float), -1, 0)
    points = np.stack([light * 100 / 255, (a + 128) % 256 - 128, (b + 128) % 256 - 128], axis=-1)
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    return distances[np.triu_indices(len(points), 1)].min()


@pytest.mark.parametrize('vision', VISIONS)
@pytest.mark.parametrize(('count', 'pure', 'over_grey'), [(8, 15, 9), (12, 15, 9), (20, 15, 9), (40, 9, 5)])
def test_colours_keep_apart_for_every_eye(vision, count, pure, over_grey):
    assert least_distance(class_colours(count), vision) > pure
    vocabulary = Vocabulary(tuple(map(str, range(count))))
    assert least_distance(shown_colours(vocabulary), vision) > over_grey


def test_the_colour_of_a_class_depends_on_its_position_alone():
    assert class_colours(0).shape == (0, 3)
    assert class_colours(3).tolist() == [[230, 159, 0], [86, 180, 233], [0, 158, 115]]
    assert np.array_equal(class_colours(30)[:12], class_colours(12))
    many = class_colours(10_000)
    assert many.shape == (10_000, 3) and np.array_equal(many[:DISTINCT], many[DISTINCT : 2 * DISTINCT])
    assert len(np.unique(many, axis=0)) == DISTINCT


@pytest.mark.parametrize(
    ('name', 'colour'),
    [
        ('yellow grid', 'yellow'), ('a Red striped blob', 'red'), ('light blue car', 'lightblue'),
        ('SKY-BLUE', 'skyblue'), ('tomato', 'tomato'), ('white or black', 'white'), ('the red of blue', 'red'),
        ('grey wall', None), ('dark gray', None), ('infrared', None), ('cat', None), ('', None), ('红色', None),
    ],
)  # fmt: skip
def test_a_colour_is_found_in_a_name(name, colour):
    assert colour_in(name) == (ImageColor.getrgb(colour) if colour else None)  # Pillow has a list of its own


def test_a_class_named_after_a_colour_is_drawn_in_it():
    colours = named_colours(CLASSES)
    for name, colour in zip(CLASSES, colours.tolist(), strict=True):
        hues = [colorsys.rgb_to_hsv(*(part / 255 for part in rgb)) for rgb in (colour, COLOURS[name.split()[0]])]
        assert abs((hues[0][0] - hues[1][0] + 0.5) % 1 - 0.5) < 25 / 360 and hues[0][1] > 0.3, name
    assert least_distance(colours, 'normal') > 10 and len(np.unique(colours, axis=0)) == len(CLASSES)
    mixed = named_colours(('cat', 'red dots', 'dog', 'white cat', 'black dog', 'snow', 'red'))
    assert mixed[1].tolist() == [255, 0, 0] and mixed[3].min() > 200 and mixed[4].max() < 90
    assert least_distance(mixed, 'normal') > 5  # white and snow are nearly one
    assert np.array_equal(named_colours(('cat', 'dog', 'sky')), class_colours(3))
    many = named_colours(tuple(f'red {i}' for i in range(2 * SHADES)))
    assert np.array_equal(many[:SHADES], many[SHADES:]) and (many[:, 0] > many[:, 1:].max(axis=1)).all()
    assert named_colours(()).shape == (0, 3)


def test_lines_and_text_grow_with_the_picture():
    assert [line_width((side, 2 * side)) for side in (128, 360, 1080, 4096)] == [1, 2, 6, 23]
    assert [text_size(side, side) for side in (300, 1040, 4160)] == [15, 40, 160]


def test_a_fragment_keeps_its_colour_within_a_border():
    labels = np.zeros((60, 90), np.uint8)
    labels[20:22, 20:23] = 2  # a fragment that is seen
    labels[40, 40] = 1  # and one that is not
    image = np.full((60, 90, 3), 100, np.uint8)
    painted = paint_overlay(image, labels, VOCABULARY, line=3)
    for (top, left, bottom, right), label, border in (((20, 20, 22, 23), 2, 255), ((40, 40, 41, 41), 1, 0)):
        colour = 0.65 * class_colours(3)[label] + 0.35 * 100
        assert np.abs(painted[top:bottom, left:right] - colour).max() <= 1.5
        ring = painted[top - 3 : bottom + 3, left - 3 : right + 3].copy()
        ring[3:-3, 3:-3] = border
        assert (ring == border).all()
    assert np.abs(painted[5, 5] - (0.65 * class_colours(3)[0] + 35)).max() <= 1.5
    large = np.zeros((60, 90), np.int64)
    large[10:50, 10:80] = 300
    names = Vocabulary(tuple(map(str, range(400))))
    assert np.array_equal(paint_overlay(image, large, names, line=3)[30, 12], [255] * 3)  # more than 255 classes


def test_the_original_stands_beside_the_overlay():
    image = np.random.default_rng(0).integers(0, 256, (400, 640, 3), dtype=np.uint8)
    labels = np.zeros((400, 640), np.uint8)
    labels[:200] = 1
    alone, both = (overlay_picture(image, labels, VOCABULARY, side_by_side=beside) for beside in (False, True))
    assert np.array_equal(both[:400, :640], image) and np.array_equal(both[:400, -640:], alone[:400])
    assert (both[:400, 640:-640] == 255).all()
    wide = overlay_picture(np.zeros((20, 6000, 3), np.uint8), np.zeros((20, 6000), int), VOCABULARY, side_by_side=True)
    assert wide.shape[1] <= 4096 + 4096 // 60


def test_the_picture_shows_through_in_grey_and_borders_tell_unseen_classes():
    image = np.full((40, 60, 3), (200, 100, 50), np.uint8)
    grey = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 20:40] = 1
    labels[:, 40:] = 255
    painted = paint_overlay(image, labels, VOCABULARY, line=2)
    colours = class_colours(3)
    for column, colour in ((10, colours[0]), (30, colours[1])):
        assert np.abs(painted[20, column] - (0.65 * colour + 0.35 * grey)).max() <= 1.5
    assert painted[20, 50].tolist() == [grey] * 3  # without a label
    assert (painted[20, 18:20] == 255).all() and (painted[20, 40:42] == 255).all()  # outside of the unseen class
    assert (painted[20, 20:22] == 0).all() and (painted[20, 38:40] == 0).all()  # within
    assert (painted[:2, 25:35] == 0).all() and (painted[-2:, 25:35] == 0).all()  # at the edge of the picture
    assert not (painted[:2, 5:15] == 0).any() and not (painted[:2, 5:15] == 255).all(axis=-1).any()  # a seen one
    plain = paint_overlay(image, labels, VOCABULARY, plain=['tree'])
    assert plain[20, 10].tolist() == [grey] * 3


def test_the_legend_has_present_classes_by_share(monkeypatch):
    asked = []
    monkeypatch.setattr(overlay, 'draw_legend', lambda *args: asked.append(args) or draw_legend(*args))
    labels = np.zeros((10, 10), np.int64)
    labels[:6] = 1
    labels[9] = 7  # not in the vocabulary
    image = np.full((10, 10, 3), 90, np.uint8)
    picture = overlay_picture(image, labels, VOCABULARY)
    ((entries, width, size),) = asked
    colours = [tuple(colour) for colour in shown_colours(VOCABULARY).tolist()]
    assert entries == [Entry('cat', 0.6, colours[1], True), Entry('tree', 0.3, colours[0], False)]
    assert (width, size) == (300, 15)
    below = {tuple(colour) for colour in picture[300:].reshape(-1, 3).tolist()}
    assert set(colours[:2]) <= below and colours[2] not in below
    assert overlay_picture(image, np.full((10, 10), 9), VOCABULARY).shape == (300, 300, 3)  # nothing to explain


def test_unseen_is_said_in_words_and_by_a_frame():
    entries = [Entry('cat', 0.5, (200, 0, 0), unseen) for unseen in (False, True)]
    plain, marked = (draw_legend([entry], 400, 14) for entry in entries)
    assert plain.shape == marked.shape
    dark = [(legend.astype(int).sum(axis=-1) < 150) for legend in (plain, marked)]
    assert dark[1][:, :28].sum() > dark[0][:, :28].sum() == 0  # the frame of the square
    assert np.nonzero(dark[1].any(axis=0))[0].max() > np.nonzero(dark[0].any(axis=0))[0].max() + 60  # ' (unseen)'


@pytest.mark.parametrize(
    ('shape', 'width', 'height'),
    [
        ((1, 1), 300, 300),
        ((128, 128), 384, 384),
        ((3000, 1), 300, 3000),
        ((6, 10_000), 3334, 2),
        ((600, 700), 700, 600),
    ],
)
def test_pictures_of_every_size_are_legible(shape, width, height):
    picture = overlay_picture(np.full((*shape, 3), 90, np.uint8), np.zeros(shape, int), VOCABULARY)
    assert picture.dtype == np.uint8 and picture.shape[1] == width
    size = text_size(width, height)
    assert 15 <= size <= max(15, width // 26) and picture.shape[0] == height + round(1.75 * size) + size
    assert (picture[height:].astype(int).sum(axis=-1) < 150).sum() > 20  # text


def test_names_in_any_script_are_drawn_and_told_apart():
    names = ('猫', '犬', '👩\u200d🚀', '\U0001fabf', 'مرحبا', 'ünïcode', 'a\nb\tc', 'x' * 5000, '\ue000', '\u0301')
    legends = [draw_legend([Entry(name, 0.1, (200, 0, 0))], 400, 14) for name in names]
    assert {legend.shape for legend in legends} == {(24 + 14, 400, 3)}
    for i, legend in enumerate(legends):
        assert all(not np.array_equal(legend, other) for other in legends[:i])
        assert (legend[:, -14:] == 255).all()  # nothing runs out of the picture


def test_as_many_columns_as_fit():
    entries = [Entry(f'class {i}', 0.01, (200, 0, 0)) for i in range(40)]
    assert draw_legend(entries, 300, 13).shape[0] > 3 * draw_legend(entries, 1200, 13).shape[0]
    assert draw_legend([], 300, 13).shape == (0, 300, 3)


def test_shares_are_percent():
    assert [share_text(share) for share in (1, 0.1234, 0.001, 0.0009, 0)] == [
        '100.0 %', '12.3 %', '0.1 %', '< 0.1 %', '0.0 %',
    ]  # fmt: skip


def test_labels_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r'\(4, 4\) pixels, its labels \(5, 4\): expected the same size'):
        overlay_picture(np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4), int), VOCABULARY)
