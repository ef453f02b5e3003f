"""2,500 damaged files: each is read, or refused with the error that its reader promises, in bounded time."""

import io
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import damaged, fuzz, within
from hypothesis import given
from hypothesis import strategies as st
from mmseg.registry import TRANSFORMS
from PIL import Image
from safetensors.torch import save

from alignzeg.apis import image_files, words
from alignzeg.exchange import load_pretrained
from alignzeg.exchange.weights import read_weights
from mmseg_alignzeg import models
from mmseg_alignzeg.datasets import file_checks
from mmseg_alignzeg.datasets.validation.pairs import PairChecker
from mmseg_alignzeg.datasets.validation.rules import LabelRules
from mmseg_alignzeg.models import CLIPSource, TextBank
from mmseg_alignzeg.vocabulary import Vocabulary

SHIPPED = Path(models.__file__).parents[1] / 'assets' / 'patterns'
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings('ignore::UserWarning', 'ignore::PIL.Image.DecompressionBombWarning'),
]


def encode(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def pictures():
    """Small pictures of every format that is read, with what makes each of them special."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    exif = rgb.getexif()
    exif[274] = 6
    kinds = [('PNG', {}), ('JPEG', dict(exif=exif)), ('JPEG', dict(progressive=True)), ('BMP', {}), ('PPM', {})]
    kinds += [('TIFF', dict(compression=name)) for name in (None, 'tiff_lzw', 'tiff_deflate', 'jpeg')]
    kinds += [('GIF', {}), ('WEBP', {}), ('WEBP', dict(lossless=True)), ('AVIF', {}), ('JPEG2000', {})]
    kinds = [(kind, options) for kind, options in kinds if kind in Image.SAVE]
    found = [encode(rgb, kind, **options) for kind, options in kinds]
    found += [encode(rgb.convert(mode), 'PNG') for mode in ('1', 'L', 'LA', 'RGBA')]
    found += [encode(rgb.quantize(8), 'PNG', transparency=1), encode(rgb.convert('CMYK'), 'JPEG')]
    deep = Image.fromarray(rng.integers(0, 2**16, (24, 32), dtype=np.uint16))
    return [*found, encode(deep, 'PNG'), encode(deep, 'TIFF'), encode(deep.convert('F'), 'TIFF')]


def label_maps():
    labels = np.random.default_rng(0).integers(0, 3, (24, 32))
    grey = Image.fromarray(labels.astype(np.uint8))
    palette = grey.copy()
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    kinds = [encode(picture, kind) for picture in (grey, palette) for kind in ('PNG', 'TIFF', 'BMP')]
    kinds += [encode(Image.fromarray(labels.astype(dtype)), 'TIFF') for dtype in (np.uint16, np.int32, np.float32)]
    return [*kinds, encode(Image.fromarray(labels.astype(np.uint16)), 'PNG')]


@pytest.fixture
def count(request):
    """Counts inputs for the table, up to the one that fails."""
    numbers = itertools.count(1)

    def one():
        request.node.user_properties[:] = [('tries', next(numbers))]

    return one


@pytest.mark.attack('fuzz: images')
def test_images(tmp_path, count):
    image_files.suffixes()  # loads all of Pillow's formats

    @fuzz(1000)
    @given(damaged(pictures()))
    def attack(data):
        count()
        path = tmp_path / 'image'
        path.write_bytes(data)
        with within():
            try:
                pixels = image_files.read_rgb(image_files.Source(str(path)))
                assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size
            except ValueError as error:
                assert str(error) and '\n' not in str(error)
            try:
                file_checks.read_image(str(path))
            except ValueError as error:
                assert str(error) and '\n' not in str(error)

    attack()


@pytest.mark.attack('fuzz: label maps')
def test_label_maps(tmp_path, count):
    Image.new('RGB', (32, 24)).save(tmp_path / 'image.png')
    path = tmp_path / 'labels.png'
    info = dict(img_path=str(tmp_path / 'image.png'), seg_map_path=str(path), seg_fields=[])
    info |= dict(label_map=None, reduce_zero_label=False)
    checker = PairChecker(TRANSFORMS.build(dict(type='LoadAnnotations')), LabelRules(('a', 'b', 'c'), 3))
    wide = TRANSFORMS.build(dict(type='LoadWideAnnotations'))

    @fuzz(500)
    @given(damaged(label_maps()))
    def attack(data):
        count()
        path.write_bytes(data)
        with within():
            report = checker(info)
            for problem in report.problems:
                assert '\n' not in str(problem) and problem.todo
            # What is found whole has a label for each of its pixels, in the size of the image.
            if not report.problems:
                assert sum(report.values.values()) == 32 * 24
            try:
                assert wide({**info, 'ori_shape': (24, 32), 'seg_fields': []})['gt_seg_map'].shape == (24, 32)
            except ValueError as error:
                assert str(path) in str(error) and '\n' not in str(error)

    attack()


@pytest.mark.attack('fuzz: checkpoints')
def test_checkpoints(tmp_path, count):
    state = {f'layer.{i}': torch.randn(3, 2) for i in range(3)}
    buffer = io.BytesIO()
    meta = dict(alignzeg=dict(classes=['a', 'b'], unseen_classes=['b']), config='model = 1', iter=3)
    torch.save({'state_dict': state, 'meta': meta}, buffer)
    legacy = io.BytesIO()
    torch.save({'state_dict': state, 'meta': meta}, legacy, _use_new_zipfile_serialization=False)
    safe = save(state, {'alignzeg': json.dumps(meta['alignzeg'])})

    @fuzz(500)
    @given(
        st.one_of(
            damaged([buffer.getvalue(), legacy.getvalue()]).map(lambda data: ('pth', data)),
            damaged([safe]).map(lambda data: ('safetensors', data)),
        )
    )
    def attack(file):
        count()
        path = tmp_path / f'weights.{file[0]}'
        path.write_bytes(file[1])
        with within():
            try:
                tensors, _ = read_weights(path)
                assert isinstance(tensors, dict)
            except ValueError as error:
                assert str(path) in str(error)

    attack()


@pytest.mark.attack('fuzz: model folders')
def test_model_folders(tmp_path, count):
    shutil.copytree(SHIPPED, tmp_path / 'model')
    config, weights = (SHIPPED / 'config.json').read_bytes(), (SHIPPED / 'model.safetensors').read_bytes()
    head = 8 + int.from_bytes(weights[:8], 'little')  # numbers beyond it are numbers, whatever they are

    @fuzz(150)
    @given(
        st.one_of(
            damaged([config]).map(lambda data: ('config.json', data)),
            damaged([weights[:head]]).map(lambda data: ('model.safetensors', data + weights[head:])),
        )
    )
    def attack(file):
        count()
        (tmp_path / 'model/config.json').write_bytes(config)
        (tmp_path / 'model/model.safetensors').write_bytes(weights)
        (tmp_path / 'model' / file[0]).write_bytes(file[1])
        with within():
            try:
                load_pretrained(tmp_path / 'model')
            except (ValueError, FileNotFoundError) as error:
                assert str(error)

    attack()


@pytest.mark.attack('fuzz: text cache')
def test_text_cache(tmp_path, count):
    names = ('red', 'blue')
    bank = TextBank(CLIPSource('tiny_clip', 'embedded'), 'single', cache_dir=str(tmp_path))
    right, path = bank(names), bank.path(names)
    whole = path.read_bytes()

    @fuzz(150)
    @given(damaged([whole]))
    def attack(data):
        count()
        path.write_bytes(data)
        fresh = TextBank(bank.source, 'single', cache_dir=str(tmp_path))
        with within():
            assert torch.equal(fresh(names), right)
        assert path.read_bytes() == whole

    attack()


@pytest.mark.attack('fuzz: words')
def test_words(count):
    trained = Vocabulary(('red', 'blue'), ('blue',))
    anything = st.one_of(st.text(max_size=40), st.sampled_from(['red', 'BLUE', '', ' ', '\x00', '\ud800', 'e\u0301']))

    @fuzz(200)
    @given(st.lists(anything, max_size=6), st.none() | st.lists(anything, max_size=3))
    def attack(classes, unseen):
        count()
        try:
            found = words.check_words(classes, unseen, trained)
            assert len(set(map(words.fold, found.classes))) == len(classes) and set(found.unseen) <= set(found.classes)
        except ValueError as error:
            assert '\n' not in str(error)

    attack()
