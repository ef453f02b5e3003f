"""The predictor for a fixed vocabulary as an ONNX graph: no text tower, no tokenizer, no Python."""

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
from mmseg_alignzeg.models.decoding import merge, score_columns
from mmseg_alignzeg.models.inference import drop_background
from mmseg_alignzeg.models.proposals import padded_size

OPSET = 18  # the first with antialiased Resize, which CLIP's smaller view of the image needs


class FixedVocabularyPredictor(nn.Module):
    """:meth:`AlignZeg.predict` for names that never change: their text embeddings are constants.

    Labels and scores equal those of the model, up to rounding; the scores are made for all pixels at once instead of
    in stripes, which a graph cannot express.

    Args:
        model: A trained model; its weights are shared, its mode is set to evaluation.
        classes: C names to tell apart, in label order.
        gamma: γ of PBC instead of the model's own.
        pbc: False leaves predictive bias correction out.
        scores: Also return the scores of classes.
        unseen: Names whose scores PBC leaves alone; by default those that training had no labels for.

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
            raise ValueError(f'The decoder {type(model.decoder).__name__} needs true labels: it cannot be exported.')
        if model.tiling is not None:
            raise ValueError("The graph takes a whole image: set `test_cfg.mode='whole'` in the config.")
        preprocessor = model.data_preprocessor
        if not isinstance(preprocessor, SegDataPreProcessor) or not preprocessor._enable_normalize:
            raise ValueError('The model has no `data_preprocessor` with mean and std: set them in its config.')
        if gamma is not None and (not pbc or model.class_indicator is None):
            why = 'was switched off by pbc=False' if model.class_indicator else 'needs φ_bc, and the model has none'
            raise ValueError(f'gamma={gamma} is for predictive bias correction, which {why}: leave gamma out.')
        question = model.ask(classes, unseen)
        self.vocabulary = question.vocabulary
        self.correction = None
        if pbc and model.class_indicator is not None:
            self.correction = question.bias_correction if gamma is None else PredictiveBiasCorrection(gamma)
        self.model = model.eval()
        self.scores = scores
        self.preference = model.preference if model.decoder.weighting == 'preference' else None
        if self.preference is not None:
            self.preference.check_trained()
        device = preprocessor.mean.device
        self.register_buffer('text_embeds', question.text_embeds(device).clone())
        self.register_buffer('seen', question.seen.to(device))
        bias = question.class_bias(device)
        self.register_buffer('bias', torch.zeros(len(self.seen), device=device) if bias is None else bias)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Segment images.

        Args:
            images: (B, 3, H, W) uint8, RGB; normalised here, and padded to whole patches.

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
            preference = self.preference and self.preference(proposals.feats, proposals.mask_logits)
            sums.append(torch.einsum('bnc,bnhw->bchw', score_columns(probs, preference), masks))
        scores = merge(sums, self.preference is not None, model.decoder.temperature, dim=1) + self.bias[:, None, None]
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
    perhaps ``scores``, (B, C, H, W) float32. B is free; H and W are ``size``: resize pictures to it, or pad them at
    the right and bottom. The metadata holds, as JSON, ``classes``, ``unseen_classes``, ``input_size`` (H, W) and
    ``identity`` of the checkpoint, and ``gamma``, a number or 'none' without PBC.

    Args:
        model: A trained model in float32 on the CPU.
        classes: C names to tell apart.
        path: The file, replaced if it exists.
        size: H and W.
        gamma: See :class:`FixedVocabularyPredictor`, also for the next three.
        pbc: Whether predictions are corrected.
        scores: Whether ``scores`` is an output.
        unseen: Names whose scores are never corrected.

    Returns:
        What was exported, as a PyTorch module.

    Raises:
        ImportError: Without the extra ``export``.
        ValueError: If an argument is invalid, or the weights are not float32 on the CPU.
    """
    try:
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    except ImportError as error:
        raise ImportError(f"ONNX export needs onnxscript ({error}): pip install 'mmseg_alignzeg[export]'.") from None
    if min(size) < 1:
        raise ValueError(f'size={size} must be (height, width) in pixels.')
    if any(param.dtype != torch.float32 or param.device.type != 'cpu' for param in model.parameters()):
        raise ValueError('Only a float32 model on the CPU can be exported: call model.float().cpu() before.')
    predictor = FixedVocabularyPredictor(model, classes, gamma, pbc, scores, unseen).eval()
    example = torch.zeros(2, 3, *size, dtype=torch.uint8)  # torch.export takes a dimension of 1 for a constant
    batch = torch.export.Dim('batch', min=1)
    # The CPU's fused attention has strides that the exporter's decomposition of it has not.
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
    """How far two predictors agree.

    Attributes:
        labels: Share of pixels with equal labels, 0..1.
        scores: Largest difference of scores; None where the graph has none.
    """

    labels: float
    scores: float | None


@torch.no_grad()
def compare_onnx(path: str | Path, predictor: FixedVocabularyPredictor, images: Tensor) -> Agreement:
    """Run a written graph in onnxruntime beside the module it came from.

    Args:
        path: The graph.
        predictor: What :func:`export_onnx` returned.
        images: (B, 3, H, W) uint8 RGB of the exported size.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    found = [torch.from_numpy(output) for output in session.run(None, {'images': images.numpy()})]
    expected = predictor(images)
    difference = float((found[1] - expected[1]).abs().max()) if len(found) > 1 else None
    return Agreement(float((found[0] == expected[0]).float().mean()), difference)
