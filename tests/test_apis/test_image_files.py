"""Pictures as people have them: every mode, turned, broken, and what a folder holds."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from alignzeg.apis.image_files import Source, find_images, read_rgb


def stored(image, path, **options):
    image.save(path, **options)
    return read_rgb(Source(str(path)))


def solid(mode, colour, size=(3, 2)):
    return Image.new(mode, size, colour)


@pytest.mark.parametrize(
    ('image', 'suffix', 'expected'),
    [
        (solid('RGB', (10, 20, 30)), 'png', (10, 20, 30)),
        (solid('L', 77), 'png', (77, 77, 77)),
        (solid('1', 1), 'png', (255, 255, 255)),
        (solid('RGBA', (200, 100, 0, 255)), 'png', (200, 100, 0)),
        (solid('RGBA', (200, 100, 0, 0)), 'png', (255, 255, 255)),  # transparent is white
        (solid('LA', (0, 51)), 'png', (204, 204, 204)),  # a fifth of black on white
        (solid('CMYK', (255, 0, 0, 0)), 'tif', (0, 255, 255)),
        (solid('CMYK', (0, 0, 0, 128)), 'tif', (127, 127, 127)),
        (solid('I;16', 65535), 'png', (255, 255, 255)),
        (solid('I;16', 32896), 'png', (128, 128, 128)),  # 128 · 257: scaled, not clipped
        (solid('I;16', 1000), 'tif', (4, 4, 4)),
        (solid('I', 32896), 'tif', (128, 128, 128)),
    ],
)
def test_every_mode_becomes_rgb(image, suffix, expected, tmp_path):
    pixels = stored(image, tmp_path / f'image.{suffix}')
    assert pixels.shape == (2, 3, 3) and pixels.dtype == np.uint8
    assert (pixels == expected).all()


def test_cmyk_jpeg_and_palettes(tmp_path):
    assert (
        abs(stored(solid('CMYK', (0, 255, 255, 0), (16, 16)), tmp_path / 'cmyk.jpg').astype(int) - [255, 0, 0]).max()
        < 4
    )
    image = Image.new('P', (2, 1))
    image.putpalette([9, 8, 7, 60, 70, 80])
    image.putpixel((1, 0), 1)
    assert stored(image, tmp_path / 'palette.png').tolist() == [[[9, 8, 7], [60, 70, 80]]]
    assert stored(image, tmp_path / 'clear.png', transparency=1).tolist() == [[[9, 8, 7], [255, 255, 255]]]


@pytest.mark.parametrize(
    ('orientation', 'turns', 'mirrored'), [(3, 2, False), (6, 3, False), (8, 1, False), (2, 0, True)]
)
def test_exif_turns_a_picture_upright(orientation, turns, mirrored, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = np.rot90(pixels, turns)  # counter-clockwise
    expected = expected[:, ::-1] if mirrored else expected
    assert (stored(Image.fromarray(pixels), tmp_path / 'turned.png', exif=exif) == expected).all()


def test_arrays_are_taken_as_rgb_grey_or_with_alpha():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    assert (read_rgb(Source('a', pixels)) == pixels).all()
    assert (read_rgb(Source('a', pixels[..., 0])) == pixels[..., :1]).all()
    assert (read_rgb(Source('a', pixels[..., :1])) == pixels[..., :1]).all()
    alpha = np.dstack([pixels, np.full((4, 6), 255, np.uint8)])
    assert (read_rgb(Source('a', alpha)) == pixels).all()


def png_head_of(width, height):
    """A PNG that claims a size and holds no pixel."""
    chunks = (b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0), b'IDAT')
    framed = (struct.pack('>I', len(c) - 4) + c + struct.pack('>I', zlib.crc32(c)) for c in chunks)
    return b'\x89PNG\r\n\x1a\n' + b''.join(framed)


def test_what_cannot_be_read_says_why(tmp_path):
    path = tmp_path / 'image.jpg'
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))

    def message(content):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r'\A[^\n]+\Z') as caught:
            read_rgb(Source(str(path)))
        return str(caught.value)

    assert message(b'') == 'is empty'
    assert message(b'just some text') == 'is not an image that Pillow can read (14 bytes)'
    for suffix in ('jpg', 'png'):
        whole = tmp_path / f'whole.{suffix}'
        noise.save(whole)
        content = whole.read_bytes()
        assert 'cannot be read: ' in message(content[: len(content) // 2])
    assert 'decompression bombs' in message(png_head_of(60000, 60000))
    with pytest.raises(ValueError, match='no longer exists'):
        read_rgb(Source(str(tmp_path / 'gone.png')))
    with pytest.raises(ValueError, match='floating-point pixels'):
        stored(solid('F', 0.5), tmp_path / 'float.tif')
    with pytest.raises(ValueError, match=r'32-bit integer pixels beyond 0\.\.65535'):
        stored(solid('I', 70000), tmp_path / 'long.tif')


def test_a_picture_at_the_edge_of_the_limit_is_read_without_a_warning(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 5)
    assert stored(solid('RGB', 'red'), tmp_path / 'six.png').shape == (2, 3, 3)
    assert not [warning for warning in recwarn if 'bomb' in str(warning.message)]


def test_a_folder_gives_its_pictures_by_name(tmp_path):
    for name in ('b.PNG', 'a.jpeg', '.hidden.png'):
        solid('RGB', 'red').save(tmp_path / name)
    (tmp_path / 'notes.txt').write_text('no picture')
    (tmp_path / 'more').mkdir()
    solid('RGB', 'red').save(tmp_path / 'more' / 'c.png')
    array = np.zeros((2, 2, 3), np.uint8)
    names = [source.name for source in find_images([tmp_path, array, str(tmp_path / 'notes.txt')])]
    assert names == [str(tmp_path / 'a.jpeg'), str(tmp_path / 'b.PNG'), 'array 1', str(tmp_path / 'notes.txt')]


def test_what_is_no_picture_is_refused_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'nowhere/a.png' does not exist: give the path"):
        find_images(['nowhere/a.png'])
    (tmp_path / 'notes.txt').write_text('no picture')
    with pytest.raises(ValueError, match=r'\(1 other entries'):
        find_images(tmp_path)
    with pytest.raises(ValueError, match='the list is empty'):
        find_images([])
    with pytest.raises(ValueError, match='Input 1 is of type int'):
        find_images([np.zeros((2, 2), np.uint8), 3])
    with pytest.raises(ValueError, match='is neither a file nor a folder'):
        find_images('/dev/null')
    for array in (
        np.zeros((2, 2, 3)),
        np.zeros((3, 2, 2, 3), np.uint8),
        np.zeros((2, 2, 2), np.uint8),
        np.zeros((0, 2), np.uint8),
    ):
        with pytest.raises(ValueError, match=r'Input 0 is an array of .* expected uint8 RGB \(H, W, 3\)'):
            find_images(array)
