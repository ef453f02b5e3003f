"""Counts against sums done by hand."""

import json
import sys
from pathlib import Path

import mmseg
import open_clip
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from torch import nn

from alignzeg.benchmark.flops import REST, count_parameters, counting, measure, stage_flops, text_flops
from mmseg_alignzeg.models import CLIPSource, get_templates
from mmseg_alignzeg.models.text_bank import embed_classes

EMBEDDED = 'configs/alignzeg_patterns.py'
SAN = Path(mmseg.__file__).parent / '.mim/configs/san/san-vit-b16_coco-stuff164k-640x640.py'


class Stack(nn.Module):
    """A convolution, self-attention in a part of a part, a layer called from outside its owner, and a product."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.inner = nn.ModuleDict({'attention': nn.MultiheadAttention(8, 2, batch_first=True)})
        self.head = nn.Linear(8, 4)
        self.unused = nn.Linear(8, 8)

    def forward(self, images):
        tokens = self.conv(images).flatten(2).transpose(1, 2)  # (1, 120, 8)
        tokens = self.inner['attention'](tokens, tokens, tokens)[0]
        return self.head(tokens) @ torch.ones(4, 7)


def test_a_stack_counted_by_hand():
    model = Stack()
    stages = stage_flops(model, lambda: model(torch.ones(1, 3, 10, 12)))
    attention = 2 * 120 * 8 * 24 + 2 * (2 * 120 * 120 * 8) + 2 * 120 * 8 * 8  # q, k, v; q·kᵀ and ·v; out
    assert stages == {
        'conv': 2 * 8 * 10 * 12 * 3 * 3 * 3,
        'inner': attention,
        'head': 2 * 120 * 8 * 4,
        REST: 2 * 120 * 4 * 7,
    }


def test_a_call_inside_another_part_is_that_part_s():
    class Borrower(nn.Module):
        def forward(self, layer, x):
            return layer(x)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.owner = nn.ModuleDict({'layer': nn.Linear(4, 6)})
            self.borrower = Borrower()

        def forward(self, x):
            return self.borrower(self.owner['layer'], x)

    model = Model()
    assert stage_flops(model, lambda: model(torch.ones(5, 4))) == {'borrower': 2 * 5 * 4 * 6, REST: 0}
    assert not model.owner['layer']._forward_hooks and not model.owner['layer']._forward_pre_hooks


def test_parameters_by_hand():
    model = Stack()
    model.text_encoder = nn.Linear(3, 2)
    model.conv.requires_grad_(False)
    parameters = count_parameters(model)
    conv, attention, linears = 8 * 27 + 8, 24 * 8 + 24 + 8 * 8 + 8, (8 * 4 + 4) + (8 * 8 + 8)
    assert (parameters.frozen, parameters.trained, parameters.text_tower) == (conv, attention + linears, 3 * 2 + 2)


def test_stages_of_the_embedded_world_by_hand():
    model = MODELS.build(Config.fromfile(EMBEDDED).model)
    frozen = sum(param.numel() for param in model.clip.visual.parameters())
    found = measure(model, (128, 128))
    tokens, dim, proposals, classes, joint = 256, 96, 100, 20, model.clip.embed_dim
    block = 2 * tokens * dim * (3 * dim + dim + 2 * 4 * dim) + 2 * 2 * tokens * tokens * dim
    assert found.stages['image_encoder'] == 2 * dim * tokens * 3 * 8 * 8 + 2 * block  # two layers
    assert found.stages['fusion'] == 2 * (128 // 2 // 8) ** 2 * model.clip.width * dim
    assert found.stages['class_indicator'] == 2 * proposals * (joint * 256 + 256)
    scores, masks = 2 * proposals * joint * (classes + 10), 2 * proposals * 128 * 16 * (16 + 128)
    pixels = 2 * 128 * 128 * proposals  # per class; how many are compared depends on the masks
    assert scores + masks + pixels <= found.stages[REST] <= scores + masks + pixels * (2 * classes + 1)
    assert list(found.stages) == [
        *('image_encoder', 'clip', 'fusion', 'decode_head', 'semantic_head', 'class_indicator'),
        REST,
    ]
    # All of it again, counted at one go and without parts.
    model.question.text_embeds('cpu')  # the text side is not counted
    with counting() as counter:
        model.predict(torch.zeros(1, 3, 128, 128))
    assert 0 <= found.image - counter.get_total_flops() <= pixels * (2 * classes + 1)
    assert found.parameters.frozen == frozen
    assert found.parameters.trained == sum(value.numel() for value in model.state_dict().values())


def test_text_flops_equal_those_of_the_whole_vocabulary():
    source, names = CLIPSource('tiny_clip', 'embedded'), ['a', 'red dots', 'a very long name of a class indeed']
    clip, tokenizer, templates = source.load_full(), open_clip.get_tokenizer('tiny_clip'), get_templates('vild')
    with counting() as counter:
        embed_classes(clip, tokenizer, names, templates, batch_size=16)
    assert text_flops(clip, tokenizer, names, templates, batch_size=16) == counter.get_total_flops() > 0


def test_more_classes_cost_pixels_and_text_only():
    few, many = (MODELS.build(Config.fromfile(EMBEDDED).model) for _ in range(2))
    few.set_test_classes(['cat', 'dog'])
    many.set_test_classes(['cat', 'dog', 'cow', 'sky'])
    few, many = measure(few, (64, 48)), measure(many, (64, 48))
    assert many.text == 2 * few.text and (few.classes, many.classes) == (2, 4)
    assert many.stages.pop(REST) > few.stages.pop(REST)
    assert many.stages == few.stages


@pytest.fixture
def tool(load_tool, monkeypatch, capsys):
    """Run the tool; returns what it printed. Nothing may be downloaded."""

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['get_flops.py', *map(str, arguments)])
        load_tool('get_flops').main()
        return capsys.readouterr().out

    def refuse(*_args, **_kwargs):
        raise AssertionError('a download')

    monkeypatch.setattr(open_clip, 'download_pretrained', refuse)
    monkeypatch.setattr('logging.disable', lambda *_: None)  # for the whole process
    return run


def test_table_and_json(tool):
    table = tool(EMBEDDED)
    for text in ('128 × 128', 'image_encoder', REST, 'once for 20 classes', 'M parameters', '0.702'):
        assert text in table
    found = json.loads(tool(EMBEDDED, '--json', '--shape', 64, 96, '--classes', 23))
    assert found['shape'] == [64, 96] and found['classes'] == 23
    assert sum(found['stages'].values()) == found['image']


def test_full_size_needs_no_weights(load_tool, tool):
    model, shape = load_tool('get_flops').build(Path('configs/alignzeg_voc.py'), 2)
    assert shape == (640, 640) and len(model.question.classes) == 2


def test_san_with_its_text_tower_apart(tool):
    found = json.loads(tool(SAN, '--json', '--shape', 64, 64, '--classes', 2))
    layer = 2 * 77 * 512 * (4 * 512 + 2 * 2048) + 2 * 2 * 77 * 77 * 512
    assert found['text'] == 2 * 14 * (12 * layer + 2 * 512 * 512)  # two names in the 14 templates of ViLD
    assert found['classes'] == 2 and sum(found['stages'].values()) == found['image']
    weights = 12 * (12 * 512**2 + 13 * 512) + 2 * 512  # the layers and the last norm
    weights += 49408 * 512 + 77 * 512 + 512 * 512 + 1 + 512  # tokens, places, projection, τ, SAN's background
    assert found['parameters']['text_tower'] == weights
    assert round(found['parameters']['trained'] / 1e6, 2) == 8.37  # as measured before, in the README
    assert round((found['parameters']['trained'] + found['parameters']['frozen']) / 1e6, 1) == 94.4


def test_other_segmentors_have_no_text_side(tool, tmp_path):
    base = Path(mmseg.__file__).parent / '.mim/configs/_base_/models/segformer_mit-b0.py'
    found = json.loads(tool(base, '--json', '--shape', 64, 64))
    assert found['text'] is None and found['parameters']['text_tower'] == 0 and found['image'] > 0


def test_bad_input(tool, tmp_path, capsys):
    (tmp_path / 'empty.py').write_text('a = 1\n')
    with pytest.raises(SystemExit, match=r'empty\.py has no `model`'):
        tool(tmp_path / 'empty.py')
    base = Path(mmseg.__file__).parent / '.mim/configs/_base_/models/segformer_mit-b0.py'
    with pytest.raises(SystemExit, match=r'--classes 3: .* has a fixed number of classes'):
        tool(base, '--classes', 3)
    for arguments, message in (
        (['nowhere.py'], 'no config nowhere.py: give the path'),
        ([EMBEDDED, '--shape', '0', '64'], "expected a number of at least 1, got '0'"),
        ([EMBEDDED, '--classes', '-1'], "expected a number of at least 1, got '-1'"),
    ):
        with pytest.raises(SystemExit) as caught:
            tool(*arguments)
        assert caught.value.code == 2 and message in capsys.readouterr().err
