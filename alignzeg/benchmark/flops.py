"""Parameters and FLOPs of a model, separately for the image side of a prediction and the text side of a vocabulary.

A FLOP is a multiplication or an addition, as counted by torch: a matrix product of m × k and k × n has 2·m·k·n FLOPs.
Convolutions, matrix products and attention are counted; element-wise operations, norms, softmax and resizing are not.
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
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmseg_alignzeg.models import AlignZeg, EmbeddingBank
from mmseg_alignzeg.models.text_bank import encode_tokens, ignores_padding

#: The stage of everything outside the forward passes of the model's parts: class scores, and labels from masks. Class
#: embeddings are equal here, so all classes are equally probable, and every pixel is compared with each of them. Labels
#: cannot cost more.
REST = 'classes and labels'


@contextmanager
def counting() -> Iterator[FlopCounterMode]:
    """Count the FLOPs of the operations in the block."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not support torch's fused attention module
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def stage_flops(model: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    """Return the FLOPs of a run of ``model`` by its direct children; they add up to the total.

    Operations in the forward pass of a part belong to that part, even if the weights belong to another.

    Args:
        model: Gradients of its parameters are disabled permanently, because the counter would hook into them.
        run: Runs the model once.
    """
    model.requires_grad_(False)
    stages: Counter[str] = Counter()
    active: list[tuple[str, int]] = []  # running modules, outermost first: stage, and the count at its start
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
    """Numbers of parameters, in three disjoint groups.

    Attributes:
        trained: Parameters with a gradient.
        frozen: Parameters of the image side without a gradient.
        text_tower: Parameters of the text tower, which is used once per vocabulary.
    """

    trained: int
    frozen: int
    text_tower: int


def count_parameters(model: nn.Module) -> Parameters:
    """Count parameters; a text tower must have the name ``text_encoder``, as in mmseg."""
    own = [param for name, param in model.named_parameters() if not name.startswith('text_encoder.')]
    trained = sum(param.numel() for param in own if param.requires_grad)
    frozen = sum(param.numel() for param in own if not param.requires_grad)
    return Parameters(trained, frozen, sum(param.numel() for param in model.parameters()) - trained - frozen)


def text_flops(
    clip: open_clip.CLIP | open_clip.CustomTextCLIP,
    tokenizer: Callable[[list[str]], Tensor] | None,
    phrases: Sequence[str],
    templates: Sequence[str],
    batch_size: int = 256,
) -> int:
    """Return the FLOPs of :func:`~mmseg_alignzeg.models.text_bank.embed_classes`, from one prompt of each length.

    Args:
        clip: As in ``embed_classes``.
        tokenizer: Its tokenizer, or None if the length of prompts does not matter, see :func:`ignores_padding`.
        phrases: Phrases to encode, each with every template.
        templates: Prompt templates with one ``{}`` each.
        batch_size: Number of prompts that are trimmed to a common length.
    """
    prompts = [template.format(name) for name in phrases for template in templates]
    if tokenizer is None:
        with counting() as counter:
            encode_tokens(clip, torch.zeros(1, clip.context_length, dtype=torch.long))
        return len(prompts) * counter.get_total_flops()
    sizes: Counter[int] = Counter()  # number of prompts by the length that their batch is trimmed to
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
    """Cost of one prediction.

    Attributes:
        parameters: See :class:`Parameters`.
        stages: FLOPs of the image side by stage.
        text: FLOPs of encoding the vocabulary once, or None for a model without a text side.
        classes: Number of classes encoded by the text side, or None.
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
    """Return the FLOPs of one prediction of an mmseg segmentor by stage, with post-processing; see :func:`stage_flops`.

    Args:
        model: On any device.
        shape: Rows and columns of the image.
        **options: Arguments of the model's ``predict``.
    """
    image = torch.zeros(1, 3, *shape, device=next(model.parameters()).device)
    metainfo = dict(ori_shape=shape, img_shape=shape, pad_shape=shape, padding_size=[0] * 4)
    predict: Any = model.predict
    return stage_flops(model.eval(), lambda: predict(image, [SegDataSample(metainfo=metainfo)], **options))


def measure(model: nn.Module, shape: tuple[int, int]) -> Complexity:
    """Measure parameters and FLOPs of a model. Disables its gradients, and replaces SAN's text side by a placeholder.

    Args:
        model: :class:`AlignZeg`, mmseg's SAN, or another segmentor of mmseg.
        shape: Rows and columns of the image.
    """
    parameters = count_parameters(model)
    if isinstance(model, AlignZeg):
        bank, names = model.question.text_bank, model.question.classes
        if isinstance(bank, EmbeddingBank):  # no text tower
            return Complexity(parameters, predict_flops(model, shape), None, None, shape)
        groups = bank.names.of(names)
        phrases = tuple(dict.fromkeys(phrase for group in groups for phrase in group))
        clip = bank.source.load_full()
        tower = sum(param.numel() for name, param in clip.named_parameters() if not name.startswith('visual.'))
        parameters = Parameters(parameters.trained, parameters.frozen, tower)
        tokenizer = bank.source.load_tokenizer() if ignores_padding(clip) else None
        text = text_flops(clip, tokenizer, phrases, bank.templates)
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
