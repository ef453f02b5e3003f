"""The segmentor. Its forward reads as figure 2 of the paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ..vocabulary import Vocabulary
from .class_names import ClassNames
from .clip_source import CLIPSource
from .clip_vision import CLIPVision
from .inference import predict_labels, predict_scores
from .losses import checked_targets
from .proposals import Proposals, Window, pad, upright
from .question import Question, unseen_words
from .text_bank import TextBank


@MODELS.register_module()
class AlignZeg(BaseSegmentor):
    """AlignZeg: zero-shot semantic segmentation by aligned proposals, features and predictions.

    Trained on the classes that are not unseen, tested on any words. What is asked at test is a :class:`Question`:
    :attr:`question` by default, which :meth:`set_test_classes` replaces, or the one that a caller passes. Every part
    of the method can be left out by setting its config to None.

    Args:
        classes: Names of the training vocabulary, in label order; unseen ones included, so that checkpoints know.
        unseen_classes: Names that training never sees.
        clip: Arguments of :class:`CLIPVision`, and ``model_name`` and ``pretrained`` of :class:`CLIPSource`.
        image_encoder: Config of the learnable encoder, Z_enc.
        decode_head: Config of the proposal head, :class:`MRPEHead` or the baseline :class:`PlainDecoderHead`.
        semantic_head: Config of :class:`CLIPSemanticHead`.
        templates: Name of the prompt template set.
        names: Arguments of :class:`ClassNames`: what classes are called in prompts; their raw names by default.
        class_indicator: Config of φ_bc, or None to train without it (then ``bias_correction`` must be None too).
        bias_correction: Config of :class:`PredictiveBiasCorrection` at test, or None. Needs no retraining.
        calibration: Config of :class:`CalibratedStacking` at test, or None (the paper has none); may go with PBC.
        criterion: Config of :class:`AlignZegCriterion`, the losses; None is its defaults.
        background_at_test: 'share' takes the softmax over C + 1 and drops the background, so that a proposal of
            nothing stays silent (the code of the works cited in section 4.2); 'ignore' takes it over C alone.
        return_scores: Also return full-size class scores as ``seg_logits``, C × H × W floats per image.
        cache_dir: Where text embeddings are kept, see :class:`TextBank`.
        ignore_index: Label of pixels without a class.
        data_preprocessor: mmseg's data preprocessor config.
        init_cfg: mmengine's initialisation config.
        pretrained: Not used, like the next two; ``mmseg.apis.init_model`` sets them to None in every model.
        train_cfg: See ``pretrained``.
        test_cfg: See ``pretrained``.

    Raises:
        ValueError: If the vocabulary is invalid, training has no class left, or parts do not fit each other.
    """

    def __init__(
        self,
        classes: Sequence[str],
        unseen_classes: Sequence[str],
        clip: dict[str, Any],
        image_encoder: dict[str, Any],
        decode_head: dict[str, Any],
        semantic_head: dict[str, Any],
        templates: str = 'vild',
        names: dict[str, str] | None = None,
        class_indicator: dict[str, Any] | None = None,
        bias_correction: dict[str, Any] | None = None,
        calibration: dict[str, Any] | None = None,
        criterion: dict[str, Any] | None = None,
        background_at_test: str = 'share',
        return_scores: bool = False,
        cache_dir: str | None = None,
        ignore_index: int = 255,
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
        pretrained: None = None,
        train_cfg: None = None,
        test_cfg: None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.vocabulary = Vocabulary(tuple(classes), tuple(unseen_classes))
        if not self.vocabulary.seen_classes:
            raise ValueError(f'All {len(classes)} classes are unseen: training needs at least one seen class.')
        if bias_correction is not None and class_indicator is None:
            raise ValueError('`bias_correction` needs the indicator that `class_indicator` trains; the latter is None.')
        vision = dict(clip)
        source = CLIPSource(vision.pop('model_name'), vision.pop('pretrained'))
        self.text_bank = TextBank(source, templates, cache_dir, ClassNames(**(names or {})))
        self.templates = templates
        self.clip = CLIPVision(source, **vision)
        embed_dim = self.clip.embed_dim
        self.image_encoder = MODELS.build(image_encoder)
        self.tap_norm = nn.LayerNorm(self.clip.width)  # not given in the paper; SAN has one there
        self.fusion = nn.Linear(self.clip.width, self.image_encoder.embed_dim)
        self.decode_head = MODELS.build({**decode_head, 'embed_dim': self.image_encoder.embed_dim})
        clip_patch = self.clip.patch_size / self.clip.scale_factor
        if clip_patch != int(clip_patch):
            raise ValueError(
                f'A CLIP patch of {self.clip.patch_size} pixels at scale_factor={self.clip.scale_factor} covers '
                f'{clip_patch:.2f} pixels of the image; choose a scale that makes it a whole number, e.g. 0.5.'
            )
        #: Inputs are padded to a multiple of this many pixels.
        self.stride = math.lcm(self.image_encoder.patch_size, int(clip_patch))
        if self.decode_head.bias_heads not in (1, self.clip.num_heads):
            raise ValueError(
                f'bias_heads={self.decode_head.bias_heads} fits neither 1 nor the {self.clip.num_heads} heads of CLIP.'
            )
        self.semantic_head = MODELS.build({**semantic_head, 'embed_dim': embed_dim})
        self.class_indicator = MODELS.build({**class_indicator, 'embed_dim': embed_dim}) if class_indicator else None
        self.criterion = MODELS.build({'type': 'AlignZegCriterion', **(criterion or {})})
        self.return_scores = return_scores
        self.ignore_index = ignore_index
        self.question = Question(
            self.vocabulary,
            self.text_bank,
            MODELS.build(bias_correction) if bias_correction else None,
            MODELS.build(calibration) if calibration else None,
            background_at_test,
        )
        self.set_test_classes(self.vocabulary.classes)

    def ask(self, classes: Sequence[str], unseen: Sequence[str] | None = None) -> Question:
        """The question for other words, corrected as :attr:`question` is.

        Args:
            classes: The words, in label order; any that CLIP knows.
            unseen: Those that are not in S; by default all that training had no labels for.

        Raises:
            ValueError: See :class:`Vocabulary`.
        """
        unseen = unseen_words(Vocabulary(tuple(classes)).classes, self.vocabulary) if unseen is None else unseen
        return replace(self.question, vocabulary=Vocabulary(tuple(classes), tuple(unseen)))

    def set_test_classes(self, classes: Sequence[str], unseen: Sequence[str] | None = None) -> None:
        """Make :meth:`ask` for these words the default question of :meth:`predict`."""
        self.question = self.ask(classes, unseen)

    def checkpoint_identity(self) -> dict[str, Any]:
        """What a checkpoint must share with the model that loads it, in plain types."""
        return {
            'classes': list(self.vocabulary.classes),
            'unseen_classes': list(self.vocabulary.unseen_classes),
            'templates': self.templates,
            'clip': self.text_bank.source.identity,
        }

    # ------------------------------------------------------------------ the figure, from left to right

    def extract_feat(self, inputs: Tensor) -> Proposals:
        """Images to proposals.

        Args:
            inputs: (B, 3, H, W), normalised; padded at the right and bottom to whole patches of both encoders.
        """
        images = pad(inputs, self.stride)
        z_enc = self.image_encoder(images)  # (B, D, h, w)
        stream = self.clip(images)
        z_clip = self.fusion(self.tap_norm(stream.tap.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        z_f = z_enc + F.interpolate(z_clip, size=z_enc.shape[2:], mode='bilinear')
        mask_logits, attn_bias = self.decode_head(z_f, stream.grid)
        feats = self.semantic_head(self.clip, stream, attn_bias)
        return Proposals(mask_logits, feats, self.semantic_head.classify(feats))

    def classify(self, proposals: Proposals, text_embeds: Tensor) -> Tensor:
        """P, (B, N, C + 1) logits of proposals against C embedded class names and the background."""
        return self.semantic_head.scores(proposals.cls_feats, text_embeds, self.clip.logit_scale)

    def indicate(self, proposals: Proposals) -> Tensor | None:
        """I, (B, N) probabilities of φ_bc that a proposal shows no seen class; None for a model without φ_bc."""
        return None if self.class_indicator is None else self.class_indicator(proposals.feats).sigmoid()

    # ------------------------------------------------------------------ training

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """The terms of Eq. (8), each with its weight.

        Args:
            inputs: (B, 3, H, W), normalised.
            data_samples: With ``gt_sem_seg`` labels that index the seen classes; the rest is ``ignore_index``.

        Returns:
            Scalars. Means are over the proposals of all ranks: W processes train as one with the W-fold batch.

        Raises:
            ValueError: See :func:`checked_targets`.
        """
        seen_classes = self.vocabulary.seen_classes
        targets = checked_targets(inputs, data_samples, len(seen_classes), self.ignore_index)
        proposals = self.extract_feat(inputs)
        text_embeds = self.text_bank(seen_classes, inputs.device)
        return self.criterion(
            proposals,
            self.classify(proposals, text_embeds),
            targets,
            text_embeds[:, 0],
            self.clip.logit_scale,
            self.semantic_head.backgrounds,
            self.class_indicator,
        )

    # ------------------------------------------------------------------ test

    def class_probs(self, proposals: Proposals, question: Question | None = None) -> Tensor:
        """Probabilities of the words of a question after bias correction, (B, N, C); rows sum to at most 1."""
        question = question or self.question
        scores = self.classify(proposals, question.text_embeds(proposals.cls_feats.device))
        return question.probs(scores, None if question.bias_correction is None else self.indicate(proposals))

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, data_samples: list[SegDataSample] | None = None, question: Question | None = None
    ) -> list[SegDataSample]:
        """Segment images into the words of a question.

        Args:
            inputs: (B, 3, H, W), normalised.
            data_samples: Meta information: results have ``ori_shape``, without padding and flips. Without samples
                they have the size of ``inputs``.
            question: What is asked; by default :attr:`question`.

        Returns:
            Data samples with ``pred_sem_seg`` (1, H, W) int64 and, if ``return_scores``, ``seg_logits`` (C, H, W),
            which hold mask-weighted class probabilities.
        """
        proposals = self.extract_feat(inputs)
        samples = [SegDataSample() for _ in inputs] if data_samples is None else data_samples
        probs = self.class_probs(proposals, question)
        return self.segment(proposals.mask_logits, probs, samples, inputs.shape[2:], question)

    def segment(
        self,
        mask_logits: Tensor,
        class_probs: Tensor,
        samples: list[SegDataSample],
        shape: Sequence[int],
        question: Question | None = None,
    ) -> list[SegDataSample]:
        """Add what :meth:`predict` returns to ``samples``.

        Args:
            mask_logits: M, (B, N, h, w).
            class_probs: (B, N, C).
            samples: B data samples with their meta information.
            shape: Rows and columns of the input.
            question: What is asked; by default :attr:`question`.
        """
        bias = (question or self.question).class_bias(class_probs.device)
        images = upright(mask_logits, samples, shape, self.stride)
        for sample, (masks, window), probs in zip(samples, images, class_probs.float(), strict=True):
            if self.return_scores:
                seg_logits = predict_scores(masks, probs, window, bias)
                sample.seg_logits = PixelData(data=seg_logits)
                labels = seg_logits.argmax(dim=0, keepdim=True)
            else:
                labels = predict_labels(masks, probs, window, bias)
            sample.pred_sem_seg = PixelData(data=labels)
        return samples

    @torch.no_grad()
    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Class scores at the size of the input, (B, C, H, W)."""
        proposals = self.extract_feat(inputs)
        window = Window.of_image({}, inputs.shape[2:], self.stride)
        pairs = zip(proposals.mask_logits.float(), self.class_probs(proposals).float(), strict=True)
        bias = self.question.class_bias(inputs.device)
        return torch.stack([predict_scores(mask_logits, probs, window, bias) for mask_logits, probs in pairs])

    def _forward(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> tuple[Tensor, Tensor]:
        """Mask logits (B, N, h, w) and class probabilities (B, N, C), without post-processing."""
        proposals = self.extract_feat(inputs)
        return proposals.mask_logits, self.class_probs(proposals)
