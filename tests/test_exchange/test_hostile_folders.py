"""Folders of strangers: each ends in one line, at once and with little memory, and none gives an answer."""

import copy
import json
import os
import resource
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from alignzeg.apis.trained_models import load_model
from mmseg_alignzeg import models

SHIPPED = Path(models.__file__).parents[1] / 'assets' / 'patterns'
DELETED = object()
MEMORY = 400 << 20  # bytes; the largest of these folders asks for terabytes


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


VALUES = [
    ('', []),
    ('', 'model'),
    ('', None),
    ('format', '1'),
    ('format', [1]),
    ('model', None),
    ('model', ['AlignZeg']),
    ('model', nested(400)),
    ('model.type', {'type': 'AlignZeg'}),
    ('model.type', 'mmseg.AlignZeg'),
    ('model.decoder', {'type': 'UniformEnsemble'}),
    ('model._delete_', True),
    ('model._scope_', 'mmdet'),
    ('model.text.cache_dir', '/etc'),
    ('model.init_cfg', {'type': 'Pretrained', 'checkpoint': 'http://localhost:1/x.pth'}),
    ('model.\x1b[2J', 1),
    ('model.classes', DELETED),
    ('model.classes', 'red stripes'),
    ('model.classes', 20),
    ('model.classes', [['red stripes']] * 20),
    ('model.classes', [f'{i}' for i in range(20_001)]),
    ('model.classes', ['red\nstripes', 'red dots']),
    ('model.classes', ['x' * 1001]),
    ('model.unseen_classes', None),
    ('model.unseen_classes', {'red dots': 1}),
    ('model.text.templates', 5),
    ('model.text.templates', '../../etc/passwd'),
    ('model.text.names', 'cleaned'),
    ('model.text.names', {'source': ['raw']}),
    ('model.text.names', {'source': '/etc/passwd'}),
    ('model.clip', 'tiny_clip'),
    ('model.clip.model_name', ['tiny_clip']),
    ('model.clip.model_name', 'hf-hub:org/name'),
    ('model.clip.model_name', 'ViT-bigG-14'),
    ('model.clip.pretrained', {'embedded': 1}),
    ('model.clip.pretrained', 'C:\\weights.pt'),
    ('model.clip.tap_layer', -1),
    ('model.clip.tap_layer', 'three'),
    ('model.clip.tail_layers', 1e300),
    ('model.clip.num_prompts', 999_999),
    ('model.clip.scale_factor', 0),
    ('model.clip.scale_factor', -0.5),
    ('model.clip.scale_factor', 1e-5),
    ('model.clip.scale_factor', 0.001),
    ('model.clip.scale_factor', True),
    ('model.image_encoder', None),
    ('model.image_encoder.type', 'MRPEHead'),
    ('model.image_encoder.embed_dim', 999_999),
    ('model.image_encoder.embed_dim', 10**400),
    ('model.image_encoder.embed_dim', 0),
    ('model.image_encoder.embed_dim', -96),
    ('model.image_encoder.embed_dim', 96.5),
    ('model.image_encoder.depth', 10_000),
    ('model.image_encoder.depth', '2'),
    ('model.image_encoder.num_heads', 0),
    ('model.image_encoder.image_size', 999_999),
    ('model.image_encoder.patch_size', 0),
    ('model.decode_head.num_queries', 999_999),
    ('model.decode_head.bias_heads', 999_999),
    ('model.decode_head.mlp_ratio', 1e6),
    ('model.decode_head', {'type': 'PlainDecoderHead', 'num_layers': 100_000}),
    ('model.decode_head', {'type': 'PixelDecoderHead', 'steps': [1] * 65}),
    ('model.semantic_head.num_backgrounds', -1),
    ('model.class_indicator.hidden_dim', 1_000_000),
    ('model.bias_correction.gamma', 30),
    ('model.bias_correction', 'PredictiveBiasCorrection'),
    ('model.background_at_test', 'guess'),
    ('model.data_preprocessor', DELETED),
    ('model.data_preprocessor', []),
    ('model.data_preprocessor.type', 'ImageEncoder'),
    ('model.data_preprocessor.size', DELETED),
    ('model.data_preprocessor.size', None),
    ('model.data_preprocessor.size', 128),
    ('model.data_preprocessor.size', [0, 128]),
    ('model.data_preprocessor.size', [-128, -128]),
    ('model.data_preprocessor.size', ['128', '128']),
    ('model.data_preprocessor.size', [10**9, 10**9]),
    ('model.data_preprocessor.size', [1.5, 1.5]),
    ('model.data_preprocessor.mean', DELETED),
    ('model.data_preprocessor.mean', [1e9, 1e9, 1e9]),
    ('model.data_preprocessor.std', [0, 0, 0]),
    ('model.data_preprocessor.std', [68.5]),
    ('model.data_preprocessor.std', [True, True, True]),
    ('model.data_preprocessor.rgb_to_bgr', True),
    ('model.data_preprocessor.batch_augments', [{'type': 'Mosaic'}]),
    ('model.data_preprocessor.test_cfg', 'size_divisor'),
    ('model.data_preprocessor.test_cfg', {'size': [500_000, 500_000]}),
    ('model.data_preprocessor.test_cfg', {'size_divisor': 100_000}),
    ('model.data_preprocessor.test_cfg', {'size_divisor': 0}),
    ('input_scale', []),
    ('input_scale', '640'),
    ('input_scale', [1, 1]),
    ('input_scale', [0, 128]),
    ('input_scale', [512.0, 128.0]),
    ('input_scale', [10**9, 10**9]),
    ('input_scale', [10**30, 128]),
    ('input_scale', {'long': 512}),
    ('custom_imports', ['os']),
    ('__class__', 1),
]


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(SHIPPED, tmp_path / 'model')
    return tmp_path / 'model'


def refused(folder):
    """Load a folder, which must fail in one printable line and within bounds; returns the line."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load_model(folder, None)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY
    message = str(caught.value)
    assert message.isprintable() and len(message) < 1200, message
    return message


def name_of(case):
    path, value = case
    return f'{path}={"deleted" if value is DELETED else repr(value)[:30]}'.encode('ascii', 'backslashreplace').decode()


@pytest.mark.attack('model folders: hostile config.json')
@pytest.mark.parametrize('case', VALUES, ids=name_of)
def test_values(folder, case):
    path, value = case
    config = json.loads((folder / 'config.json').read_text())
    del config['input_scale']  # without it, the size of the training images counts
    if not path:
        config = value
    else:
        *parents, last = path.split('.')
        part = config
        for parent in parents:
            part = part[parent]
        if value is DELETED:
            del part[last]
        else:
            part[last] = copy.deepcopy(value)
    (folder / 'config.json').write_text(json.dumps(config))
    message = refused(folder)
    assert 'config.json' in message or 'model.safetensors does not fit' in message


@pytest.mark.attack('model folders: hostile config.json')
@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ('"type": "AlignZeg"', '"type": "AlignZeg", "type": "AlignZeg"'),  # JSON takes the last of two
        ('"gamma": 0.3', '"gamma": 0.3, "gamma": 0.9'),
        ('"gamma": 0.3', '"gamma": NaN'),
        ('"size": [\n        128,\n        128\n      ]', '"size": [NaN, 128]'),
        ('68.5005', 'Infinity'),
        ('"alpha": 3.0', '"alpha": -Infinity'),
        ('"format": 1', '"format": ' + '1' * 5000),
        ('"num_points": 1024', '"num_points": ' + '[' * 100_000 + ']' * 100_000),
        ('"num_points": 1024', '"num_points": 1e999'),
        ('"format"', '\ufeff"format"'),
        ('{', ''),
        ('\n', ' ' * 5_000_000),
    ],
    ids=range(12),
)
def test_texts(folder, old, new):
    text = (folder / 'config.json').read_text()
    assert old in text
    (folder / 'config.json').write_text(text.replace(old, new, 1))
    refused(folder)


def rewritten(change_tensors=lambda x: x, change_metadata=lambda x: x):
    def change(folder):
        path = folder / 'model.safetensors'
        tensors = load_file(path)
        with safe_open(path, 'pt') as file:
            metadata = file.metadata()
        save_file(change_tensors(tensors), path, change_metadata(metadata))

    return change


def cast(dtype):
    return rewritten(lambda tensors: {name: value.to(dtype) for name, value in tensors.items()})


def identity(text):
    return rewritten(change_metadata=lambda _: {'alignzeg': text})


def header(change):
    """Change the header of the file, which is JSON behind its length."""

    def apply(folder):
        content = (folder / 'model.safetensors').read_bytes()
        length = struct.unpack('<Q', content[:8])[0]
        entries = json.loads(content[8 : 8 + length])
        changed = json.dumps(change(entries)).encode()
        (folder / 'model.safetensors').write_bytes(struct.pack('<Q', len(changed)) + changed + content[8 + length :])

    return apply


def first(entries, **changes):
    name = next(name for name in entries if name != '__metadata__')
    entries[name].update(changes)
    return entries


def replaced(content):
    return lambda folder: (folder / 'model.safetensors').write_bytes(content)


def sparse(name, size):
    def change(folder):
        with (folder / name).open('r+b') as file:
            file.truncate(size)

    return change


def linked(name, target):
    def change(folder):
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return change


def fifo(name):
    def change(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


FILES = {
    'integers': cast(torch.int32),
    'bytes': cast(torch.uint8),
    'truth values': cast(torch.bool),
    'a tensor of numbers that are complex': rewritten(
        lambda tensors: {**tensors, 'fusion.bias': tensors['fusion.bias'].to(torch.complex64)}
    ),
    'no tensors': rewritten(lambda tensors: {}),
    'one tensor more': rewritten(lambda tensors: {**tensors, 'x\x1b[2J\n': torch.zeros(1)}),
    'another shape': rewritten(lambda tensors: {**tensors, 'fusion.bias': tensors['fusion.bias'][None]}),
    'no identity': rewritten(change_metadata=lambda _: None),
    'identity null': identity('null'),
    'identity a list': identity('[]'),
    'identity half': identity('{"classes": '),
    'identity deep': identity('[' * 100_000 + ']' * 100_000),
    'identity deep within': identity('{"classes": ' + '[' * 900 + ']' * 900 + '}'),
    'identity of numbers': identity('{"classes": 5, "unseen_classes": {}, "clip": null, "templates": [NaN]}'),
    'identity with long words': identity(json.dumps({'classes': ['x' * 100_000], 'y\n' * 50_000: 1})),
    'identity of another CLIP': identity('{"clip": "tiny_clip:0"}'),
    'header larger than the file': replaced(struct.pack('<Q', 1 << 40) + b'{}'),
    'header of 2 ** 63': replaced(struct.pack('<Q', 1 << 63) + b'{}'),
    'header no JSON': replaced(struct.pack('<Q', 4) + b'\0\0\0\0'),
    'header deep': replaced(struct.pack('<Q', 200_000) + b'[' * 100_000 + b']' * 100_000),
    'offsets beyond the end': header(lambda entries: first(entries, data_offsets=[0, 1 << 50])),
    'offsets backwards': header(lambda entries: first(entries, data_offsets=[64, 0])),
    'shape negative': header(lambda entries: first(entries, shape=[-1, 4])),
    'shape huge': header(lambda entries: first(entries, shape=[1 << 40, 1 << 40])),
    'dtype unknown': header(lambda entries: first(entries, dtype='F999')),
    'pickle': replaced(b'\x80\x02cos\nsystem\nq\x00X\x04\x00\x00\x00trueq\x01\x85q\x02Rq\x03.'),
    'zip': replaced(b'PK\x03\x04' + bytes(100)),
    'empty': replaced(b''),
    'weights 1 TB of nothing': sparse('model.safetensors', 1 << 40),
    'config 1 TB of nothing': sparse('config.json', 1 << 40),
    'config a link to a secret': linked('config.json', '/etc/passwd'),
    'config a link to itself': linked('config.json', 'config.json'),
    'weights a link to a device': linked('model.safetensors', '/dev/zero'),
    'weights a link to nothing': linked('model.safetensors', '/nowhere'),
    'weights a pipe': fifo('model.safetensors'),
    'config a pipe': fifo('config.json'),
    'config a folder': lambda folder: ((folder / 'config.json').unlink(), (folder / 'config.json').mkdir()),
    'no weights': lambda folder: (folder / 'model.safetensors').unlink(),
    'no config': lambda folder: (folder / 'config.json').unlink(),
}


@pytest.mark.attack('model folders: hostile files')
@pytest.mark.parametrize('change', FILES.values(), ids=FILES)
def test_files(folder, change):
    change(folder)
    message = refused(folder)
    assert 'root:' not in message  # of /etc/passwd


def test_the_shipped_folder_is_not_refused(folder):
    model, scale = load_model(folder, None)
    assert type(model).__name__ == 'AlignZeg' and scale == (512, 128)
