"""Parameters and FLOPs of a model: the image side of one prediction, and the text side of one vocabulary, apart.

A FLOP here is a multiplication or an addition, as torch counts them: a matrix product of m × k by k × n has 2·m·k·n.
Convolutions, matrix products and attention count; element-wise operations, norms, softmax and resizing do not.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmseg_alignzeg.models import AlignZeg
from mmseg_alignzeg.models.text_bank import encode_tokens

#: The stage of whatever no part of the model computes in its own forward: scores of classes, masks to labels.
REST = 'classes and labels'


@contextmanager
def counting() -> Iterator[FlopCounterMode]:
    """Count the FLOPs of what runs inside."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter knows no formula for torch's fused attention module
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def stage_flops(model: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    """FLOPs of a run of ``model`` by its direct children; they add up to all of it.

    What runs inside the forward of a part is that part's, whoever owns the weights.

    Args:
        model: Afterwards no parameter has a gradient, because the counter would hook into them.
        run: Runs the model once.
    """
    model.requires_grad_(False)
    stages: Counter[str] = Counter()
    active: list[tuple[str, int]] = []  # modules that are running, outermost first: stage, and the count at its begin
    with counting() as counter, ExitStack() as hooks:

        def begin(stage: str) -> None:
            active.append((stage, counter.get_total_flops()))

        def end() -> None:
            stage, before = active.pop()
            if not active:
                stages[stage] += counter.get_total_flops() - before

        for name, module in model.named_modules():
            if name:
                stage = name.partition('.')[0]
                hooks.callback(module.register_forward_pre_hook(lambda *_, stage=stage: begin(stage)).remove)
                hooks.callback(module.register_forward_hook(lambda *_: end()).remove)
        run()
    return {**+stages, REST: counter.get_total_flops() - stages.total()}


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters; the three are disjoint.

    Attributes:
        trained: With a gradient.
        frozen: Without one, on the image side.
        text_tower: Of the text tower, used once per vocabulary.
    """

    trained: int
    frozen: int
    text_tower: int


def count_parameters(model: nn.Module) -> Parameters:
    """Parameters of a model whose text tower, if it keeps one, is called ``text_encoder``, as in mmseg."""
    own = [param for name, param in model.named_parameters() if not name.startswith('text_encoder.')]
    trained = sum(param.numel() for param in own if param.requires_grad)
    frozen = sum(param.numel() for param in own if not param.requires_grad)
    return Parameters(trained, frozen, sum(param.numel() for param in model.parameters()) - trained - frozen)


def text_flops(
    clip: nn.Module,
    tokenizer: open_clip.SimpleTokenizer,
    phrases: Sequence[str],
    templates: Sequence[str],
    batch_size: int = 256,
) -> int:
    """FLOPs of :func:`~mmseg_alignzeg.models.text_bank.embed_classes`, from one prompt of each length that occurs.

    Args:
        clip: As of ``embed_classes``, like the others.
        tokenizer: Its tokenizer.
        phrases: What is encoded; each in every template.
        templates: Prompt templates with one ``{}`` each.
        batch_size: Prompts that are trimmed to one length.
    """
    prompts = [template.format(name) for name in phrases for template in templates]
    sizes: Counter[int] = Counter()  # prompts by the length that their batch is trimmed to
    tokens = tokenizer(prompts)  # (P, context); the end-of-text token has the largest id
    for batch in tokens.split(batch_size):
        sizes[int(batch.argmax(dim=1).max())] += len(batch)
    total = 0
    for end, count in sizes.items():
        prompt = torch.zeros(1, end + 1, dtype=torch.long)
        prompt[0, end] = tokens.max()
        with counting() as counter:
            encode_tokens(clip, prompt)
        total += count * counter.get_total_flops()
    return total


@dataclass(frozen=True)
class Complexity:
    """What one prediction costs.

    Attributes:
        parameters: See :class:`Parameters`.
        stages: FLOPs of the image side by stage.
        text: FLOPs of encoding the vocabulary once, or None for a model without a text side.
        classes: Number of classes that the text side encodes, or None.
        shape: Rows and columns of the image.
    """

    parameters: Parameters
    stages: dict[str, int]
    text: int | None
    classes: int | None
    shape: tuple[int, int]

    @property
    def image(self) -> int:
        """FLOPs of the image side."""
        return sum(self.stages.values())


def predict_flops(model: nn.Module, shape: tuple[int, int], **options: Any) -> dict[str, int]:
    """FLOPs of one prediction of a segmentor of mmseg, by stage, post-processing included; see :func:`stage_flops`.

    Args:
        model: On any device.
        shape: Rows and columns of the image.
        **options: Of the model's ``predict``.
    """
    image = torch.zeros(1, 3, *shape, device=next(model.parameters()).device)
    metainfo = dict(ori_shape=shape, img_shape=shape, pad_shape=shape, padding_size=[0] * 4)
    predict: Any = model.predict
    return stage_flops(model.eval(), lambda: predict(image, [SegDataSample(metainfo=metainfo)], **options))


def measure(model: nn.Module, shape: tuple[int, int]) -> Complexity:
    """Parameters and FLOPs of a model; afterwards no parameter has a gradient, and SAN's text side is a stand-in.

    Args:
        model: :class:`AlignZeg`, mmseg's SAN, or another segmentor of mmseg.
        shape: Rows and columns of the image.
    """
    parameters = count_parameters(model)
    if isinstance(model, AlignZeg):
        bank, names = model.question.text_bank, model.question.classes
        groups = bank.names.of(names)
        phrases = tuple(dict.fromkeys(phrase for group in groups for phrase in group))
        clip = bank.source.load_full()
        tower = sum(param.numel() for name, param in clip.named_parameters() if not name.startswith('visual.'))
        parameters = Parameters(parameters.trained, parameters.frozen, tower)
        text = text_flops(clip, open_clip.get_tokenizer(bank.source.model_name), phrases, bank.templates)
        most = max(map(len, groups)) if bank.names.combine == 'max' else 1
        embeds = F.normalize(torch.ones(len(names), most, model.clip.embed_dim), dim=-1)
        ready: Any = lambda classes, device: embeds.to(device)  # noqa: E731
        question = replace(model.question, text_bank=ready)
        return Complexity(parameters, predict_flops(model, shape, question=question), text, len(names), shape)
    if not hasattr(model, 'text_encoder'):
        return Complexity(parameters, predict_flops(model, shape), None, None, shape)
    encoder: Any = model.text_encoder
    with counting() as counter:
        embeds = copy.deepcopy(encoder).to('meta')()  # (C + 1, D) with SAN's background; counted, not computed
    encoder.forward = lambda: torch.zeros(embeds.shape, device=next(encoder.parameters()).device)
    text = counter.get_total_flops()
    return Complexity(parameters, predict_flops(model, shape), text, len(embeds) - encoder.cat_bg, shape)
