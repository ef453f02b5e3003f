"""Export of the predictor for a fixed vocabulary as an ONNX graph without text tower, tokenizer and Python."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from mmseg.models import SegDataPreProcessor
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmseg_alignzeg.files import whole_file
from mmseg_alignzeg.models import AlignZeg, PredictiveBiasCorrection
from mmseg_alignzeg.models.answer import merge
from mmseg_alignzeg.models.inference import drop_background
from mmseg_alignzeg.models.proposals import padded_size

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
    seen: Tensor
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
        if gamma is not None and (not pbc or model.class_indicator is None):
            why = 'is disabled by pbc=False' if model.class_indicator else 'needs φ_bc, which the model does not have'
            raise ValueError(f'gamma={gamma} is for predictive bias correction, which {why}: do not pass gamma.')
        question = model.ask(classes, unseen)
        self.vocabulary = question.vocabulary
        self.correction = None
        if pbc and model.class_indicator is not None:
            self.correction = question.bias_correction if gamma is None else PredictiveBiasCorrection(gamma)
        self.model = model.eval()
        self.scores = scores
        device = preprocessor.mean.device
        self.register_buffer('text_embeds', question.text_embeds(device).clone())
        self.register_buffer('seen', question.seen.to(device))
        bias = question.class_bias(device)
        self.register_buffer('bias', torch.zeros(len(self.seen), device=device) if bias is None else bias)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Segment images.

        Args:
            images: (B, 3, H, W) uint8, RGB; they are normalised here, and padded to whole patches.

        Returns:
            labels (B, H, W) int64 and, if ``scores``, mask-weighted class probabilities (B, C, H, W) float32.
        """
        model, preprocessor = self.model, self.model.data_preprocessor
        height, width = images.shape[2:]
        images = images.float() if preprocessor.channel_conversion else images.float().flip(1)
        padded = padded_size((height, width), model.stride)
        sums = []
        for proposals in model.look((images - preprocessor.mean) / preprocessor.std):
            logits = model.classify(proposals, self.text_embeds)
            if self.correction is not None:
                logits = self.correction(logits, model.indicate(proposals), self.seen)
            probs = drop_background(logits, model.question.background_at_test)  # (B, N, C)
            masks = F.interpolate(proposals.mask_logits, size=padded, mode='bilinear')[:, :, :height, :width].sigmoid()
            sums.append(torch.einsum('bnc,bnhw->bchw', probs, masks))
        scores = merge(sums) + self.bias[:, None, None]
        labels = scores.argmax(dim=1)
        return (labels, scores) if self.scores else (labels,)


def export_onnx(
    model: AlignZeg,
    classes: Sequence[str],
    path: str | Path,
    size: tuple[int, int] = (640, 640),
    gamma: float | None = None,
    pbc: bool = True,
    scores: bool = False,
    unseen: Sequence[str] | None = None,
) -> FixedVocabularyPredictor:
    """Write a model as an ONNX graph for a fixed vocabulary.

    Input ``images``: (B, 3, H, W) uint8 RGB. Outputs ``labels``, (B, H, W) int64, positions in ``classes``, and
    optionally ``scores``, (B, C, H, W) float32. B is dynamic; H and W are ``size``: resize images to it, or pad them at
    the right and bottom. The metadata contains, as JSON, ``classes``, ``unseen_classes``, ``input_size`` (H, W) and
    ``identity`` of the checkpoint, and ``gamma``, a number or 'none' without PBC.

    Args:
        model: A trained model in float32 on the CPU.
        classes: C class names.
        path: The file, replaced if it exists.
        size: H and W.
        gamma: See :class:`FixedVocabularyPredictor`.
        pbc: See :class:`FixedVocabularyPredictor`.
        scores: Whether ``scores`` is an output.
        unseen: See :class:`FixedVocabularyPredictor`.

    Returns:
        The exported predictor, as a PyTorch module.

    Raises:
        ImportError: If the extra ``export`` is not installed.
        ValueError: If an argument is invalid, or the weights are not float32 on the CPU.
    """
    try:
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    except ImportError as error:
        raise ImportError(f"ONNX export needs onnxscript ({error}): pip install 'mmseg_alignzeg[export]'.") from None
    if min(size) < 1:
        raise ValueError(f'size={size} must be (height, width) in pixels.')
    if any(param.dtype != torch.float32 or param.device.type != 'cpu' for param in model.parameters()):
        raise ValueError('Only a float32 model on the CPU can be exported: call model.float().cpu() first.')
    predictor = FixedVocabularyPredictor(model, classes, gamma, pbc, scores, unseen).eval()
    example = torch.zeros(2, 3, *size, dtype=torch.uint8)  # torch.export treats a dimension of 1 as constant
    batch = torch.export.Dim('batch', min=1)
    # The exporter's decomposition of the CPU's fused attention assumes other strides.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        graph = torch.export.export(predictor, (example,), dynamic_shapes=({0: batch},), strict=True)
        program = torch.onnx.export(
            graph,
            input_names=['images'],
            output_names=['labels', 'scores'] if scores else ['labels'],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(
        classes=json.dumps(predictor.vocabulary.classes, ensure_ascii=False),
        unseen_classes=json.dumps(predictor.vocabulary.unseen_classes, ensure_ascii=False),
        input_size=json.dumps(list(size)),
        identity=json.dumps(model.checkpoint_identity(), ensure_ascii=False),
        gamma='none' if predictor.correction is None else str(predictor.correction.gamma),
    )
    with whole_file(Path(path)) as part:
        program.save(part)
    return predictor


@dataclass(frozen=True)
class Agreement:
    """Agreement of two predictors.

    Attributes:
        labels: Share of pixels with equal labels, 0..1.
        scores: Largest difference of scores; None if the graph has no scores.
    """

    labels: float
    scores: float | None


@torch.no_grad()
def compare_onnx(path: str | Path, predictor: FixedVocabularyPredictor, images: Tensor) -> Agreement:
    """Compare a written graph in onnxruntime with the module it was exported from.

    Args:
        path: The graph.
        predictor: Result of :func:`export_onnx`.
        images: (B, 3, H, W) uint8 RGB of the exported size.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    found = [torch.from_numpy(output) for output in session.run(None, {'images': images.numpy()})]
    expected = predictor(images)
    difference = float((found[1] - expected[1]).abs().max()) if len(found) > 1 else None
    return Agreement(float((found[0] == expected[0]).float().mean()), difference)
