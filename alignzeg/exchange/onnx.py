"""Export of the predictor for a fixed vocabulary as an ONNX graph without text tower, tokenizer and Python."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmseg.models import SegDataPreProcessor
from packaging.version import Version
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmseg_alignzeg.files import whole_file
from mmseg_alignzeg.models import AlignZeg
from mmseg_alignzeg.models.answer import merge
from mmseg_alignzeg.models.data_preprocessor import reverses_channels
from mmseg_alignzeg.models.proposals import padded_size

from . import onnx_runner

if TYPE_CHECKING:
    from ..apis import AlignZegInferencer

DRAWN_PIXELS = 2**22  # as in `alignzeg.apis.prediction`, which builds on this package
LONGEST = 2**13  # pixels of a side
OLDEST = '2.14'  # of torch
OPSET = 18  # the first with antialiased Resize, which is needed for CLIP's smaller input


class FixedVocabularyPredictor(nn.Module):
    """:meth:`AlignZeg.predict` for fixed class names, whose text embeddings are constants.

    Labels and scores equal those of the model, up to rounding. Scores are computed for all pixels at once, not in
    stripes, which a graph cannot express.

    Args:
        model: A trained model; its weights are shared, and it is set to evaluation mode.
        classes: C class names in label order.
        gamma: γ of PBC in place of the model's own.
        pbc: False disables predictive bias correction.
        scores: Also return class scores.
        unseen: Names whose scores PBC does not change; by default those without training labels.

    Raises:
        ValueError: If the names are invalid, or the model cannot normalise images or correct its predictions.
    """

    text_embeds: Tensor
    bias: Tensor

    def __init__(
        self,
        model: AlignZeg,
        classes: Sequence[str],
        gamma: float | None = None,
        pbc: bool = True,
        scores: bool = False,
        unseen: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if model.decoder.needs_labels:
            raise ValueError(f'The decoder {type(model.decoder).__name__} needs ground truth and cannot be exported.')
        if model.tiling is not None:
            raise ValueError("The graph takes a whole image: set `test_cfg.mode='whole'` in the config.")
        preprocessor = model.data_preprocessor
        if not isinstance(preprocessor, SegDataPreProcessor) or not preprocessor._enable_normalize:
            raise ValueError('The model has no `data_preprocessor` with mean and std: set them in its config.')
        question = replace(model.ask(classes, unseen), bias_correction=model.choose_correction(gamma, pbc))
        self.question = question
        self.model = model.eval()
        self.scores = scores
        device = preprocessor.mean.device
        self.register_buffer('text_embeds', question.text_embeds(device).clone())
        bias = question.class_bias(device)
        self.register_buffer('bias', torch.zeros(len(question.classes), device=device) if bias is None else bias)

    def forward(self, images: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        """Segment images.

        Args:
            images: (B, 3, H, W) uint8, RGB; they are normalised here, and padded to whole patches.
            size: (2,) int64, rows and columns of the result, such as those of the pictures before they were resized.

        Returns:
            labels (B, rows, columns) int64 and, if ``scores``, mask-weighted class probabilities (B, C, rows, columns)
            float32.
        """
        model, preprocessor = self.model, self.model.data_preprocessor
        shape = (images.shape[2], images.shape[3])
        extents = [side / whole for side, whole in zip(shape, padded_size(shape, model.stride), strict=True)]
        rows, columns = (int(side.item()) for side in size.unbind())
        torch._check(rows > 1)  # for the exporter; the graph is the same for 1
        torch._check(columns > 1)
        images = images.float() if reverses_channels(preprocessor) else images.float().flip(1)
        sums = []
        for proposals in model.look((images - preprocessor.mean) / preprocessor.std):
            logits = model.classify(proposals, self.text_embeds)
            indicator = None if self.question.bias_correction is None else model.indicate(proposals)
            probs = self.question.probs(logits, indicator)  # (B, N, C)
            grid = proposals.mask_logits.shape[2:]
            down = visible_weights(rows, grid[0], extents[0])
            across = visible_weights(columns, grid[1], extents[1])
            masks = (down @ proposals.mask_logits @ across.T).sigmoid()  # (B, N, rows, columns)
            sums.append(torch.einsum('bnc,bnhw->bchw', probs, masks))
        scores = merge(sums) + self.bias[:, None, None]
        labels = scores.argmax(dim=1)
        return (labels, scores) if self.scores else (labels,)


def visible_weights(out: int, grid: int, extent: float) -> Tensor:
    """Return :func:`linear_weights` for the first part of a grid, in operations whose sizes can be symbols.

    Args:
        out: Number of output samples.
        grid: Number of input samples.
        extent: Share of the grid that the output covers.

    Returns:
        (out, grid) float32.
    """
    cells = torch.arange(grid, dtype=torch.float64)
    centres = (torch.arange(out, dtype=torch.float64) + 0.5) * extent / out
    position = torch.minimum((centres * grid - 0.5).clamp(min=0), cells[-1])
    return (1 - (position[:, None] - cells).abs()).clamp(min=0).float()


def can_export() -> bool:
    """Whether this torch is one whose graphs were compared with the model; those of 2.6 are wrong."""
    return Version(torch.__version__) >= Version(OLDEST)


def export_onnx(
    model: AlignZeg,
    classes: Sequence[str],
    path: str | Path,
    input_scale: tuple[int, int],
    gamma: float | None = None,
    pbc: bool = True,
    scores: bool = False,
    unseen: Sequence[str] | None = None,
) -> FixedVocabularyPredictor:
    """Write a model as an ONNX graph for a fixed vocabulary; :mod:`onnx_runner` resizes pictures and runs it.

    Inputs: ``images``, (batch, 3, height, width) uint8 RGB, and ``size``, (2,) int64, rows and columns of the result.
    Outputs: ``labels``, (batch, rows, columns) int64, positions in ``classes``, and optionally ``scores``, (batch, C,
    rows, columns) float32. The metadata contains, as JSON, ``classes``, ``unseen_classes``, ``input_scale`` (long,
    short), ``drawn_pixels``, the most that :class:`AlignZegInferencer` draws, and ``identity`` of the checkpoint; and
    ``gamma``, a number or 'none' without PBC.

    Height and width of the images are free. They are fixed for an ensemble with resized views, whose sizes are rounded:
    they are then those of the training.

    Args:
        model: A trained model in float32 on the CPU.
        classes: C class names.
        path: The file, replaced if it exists.
        input_scale: The (long, short) pixels that pictures are resized to, :attr:`AlignZegInferencer.input_scale`.
        gamma: See :class:`FixedVocabularyPredictor`.
        pbc: See :class:`FixedVocabularyPredictor`.
        scores: Whether ``scores`` is an output.
        unseen: See :class:`FixedVocabularyPredictor`.

    Returns:
        The exported predictor, as a PyTorch module.

    Raises:
        ImportError: If the extra ``export`` is not installed, or torch is too old.
        ValueError: If an argument is invalid, or the weights are not float32 on the CPU.
    """
    try:
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    except ImportError as error:
        raise ImportError(f"ONNX export needs onnxscript ({error}): pip install 'mmseg_alignzeg[export]'.") from None
    if min(input_scale) < 1:
        raise ValueError(f'input_scale={input_scale} must be (long, short) in pixels.')
    if any(param.dtype != torch.float32 or param.device.type != 'cpu' for param in model.parameters()):
        raise ValueError('Only a float32 model on the CPU can be exported: call model.float().cpu() first.')
    predictor = FixedVocabularyPredictor(model, classes, gamma, pbc, scores, unseen).eval()
    if not can_export():
        raise ImportError(
            f'ONNX export needs torch {OLDEST} or newer, and this is {torch.__version__}: older versions write wrong '
            'graphs, or were not tried.'
        )
    fixed = any(view.scale != 1 for view in model.decoder.views)
    # No side of the example is 1 or equals another: torch.export would take it for a constant, or both for one.
    height, width = (min(input_scale),) * 2 if fixed else (4 * model.stride + 1, 6 * model.stride + 3)
    example = torch.zeros(2, 3, height, width, dtype=torch.uint8), torch.tensor([height + 5, width + 9])
    axes = {0: torch.export.Dim('batch', min=1)}
    if not fixed:
        bounds = dict(min=2 * model.stride, max=LONGEST)  # assumptions of the exporter, not of the graph
        axes |= {axis: torch.export.Dim(name, **bounds) for axis, name in ((2, 'height'), (3, 'width'))}
    # The exporter's decomposition of the CPU's fused attention assumes other strides.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        graph = torch.export.export(predictor, example, dynamic_shapes=(axes, None), strict=True)
        program = torch.onnx.export(
            graph,
            input_names=['images', 'size'],
            output_names=['labels', 'scores'] if scores else ['labels'],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    _name_axes(program.model.graph)
    vocabulary, correction = predictor.question.vocabulary, predictor.question.bias_correction
    program.model.metadata_props.update(
        classes=json.dumps(vocabulary.classes, ensure_ascii=False),
        unseen_classes=json.dumps(vocabulary.unseen_classes, ensure_ascii=False),
        input_scale=json.dumps(list(input_scale)),
        drawn_pixels=json.dumps(DRAWN_PIXELS),
        identity=json.dumps(model.checkpoint_identity(), ensure_ascii=False),
        gamma='none' if correction is None else str(correction.gamma),
    )
    with whole_file(Path(path)) as part:
        program.save(part)
    return predictor


def _name_axes(graph: Any) -> None:
    """Give the free axes of inputs and outputs names in place of torch's symbols."""
    names = dict.fromkeys(('labels', 'scores'), ('batch', 'rows', 'columns')) | {'images': ('batch', 'height', 'width')}
    for value in (*graph.inputs, *graph.outputs):
        free = [axis for axis, side in enumerate(value.shape) if not isinstance(side, int)]
        for axis, name in zip(free, names.get(value.name, ()), strict=False):
            value.shape[axis] = name


def compare_onnx(
    path: str | Path, inferencer: AlignZegInferencer, images: Sequence[Any], **settings: Any
) -> list[float]:
    """Compare a written graph in onnxruntime, run by :mod:`onnx_runner`, with the inferencer that `predict` uses.

    Args:
        path: The graph.
        inferencer: The model that it was exported from.
        images: Paths or uint8 RGB arrays (H, W, 3) of any size.
        settings: ``gamma``, ``pbc`` and ``unseen``, if they are not the defaults.

    Returns:
        Per image, the share of pixels with equal labels, 0..1.

    Raises:
        ValueError: If no image can be read.
    """
    session = onnx_runner.load(path)
    classes = json.loads(session.get_modelmeta().custom_metadata_map['classes'])
    return [
        float((onnx_runner.segment(session, prediction.image) == prediction.labels).mean())
        for image in images
        for prediction in inferencer(image, classes, **settings)
    ]
