"""The segmentor. Its forward reads as figure 2 of the paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
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
from .inference import Window, drop_background, predict_labels, predict_scores, unflip
from .losses import OVERLAP_LOSSES, HungarianMatcher, checked_targets, classification_loss, mask_loss, mean_counts
from .text_bank import TextBank


@dataclass
class Proposals:
    """N class-agnostic proposals per image.

    Attributes:
        mask_logits: M, (B, N, h, w) on the grid of the padded input.
        feats: F, (B, N, D), CLIP's features of the proposals.
        cls_feats: F_cls = φ_cls(F), (B, N, D) unit rows.
    """

    mask_logits: Tensor
    feats: Tensor
    cls_feats: Tensor


@MODELS.register_module()
class AlignZeg(BaseSegmentor):
    """AlignZeg: zero-shot semantic segmentation by aligned proposals, features and predictions.

    Trained on the classes that are not unseen, tested on any names: those of :attr:`vocabulary` by default, or
    those of :meth:`set_test_classes`. Every part of the method can be left out by setting its config to None.

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
        feature_expansion: Config of :class:`FeatureExpansionLoss`, or None.
        background_diversity: Config of :class:`BackgroundDiversityLoss`, or None.
        class_weight: λ1 of Eq. (8), for L_ce.
        mask_weight: λ2 of Eq. (8), for both parts of L_mask.
        num_points: Points at which masks are matched and compared.
        mask_overlap: The part of L_mask beside cross-entropy: 'dice' as in the paper, or 'jaccard' (JML).
        background_weight: Weight of the background class in L_ce (not given in the paper).
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
        feature_expansion: dict[str, Any] | None = None,
        background_diversity: dict[str, Any] | None = None,
        class_weight: float = 2.0,
        mask_weight: float = 5.0,
        num_points: int = 12544,
        mask_overlap: str = 'dice',
        background_weight: float = 0.1,
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
        if background_at_test not in ('share', 'ignore'):
            raise ValueError(f"background_at_test={background_at_test!r} must be 'share' or 'ignore'.")

        if mask_overlap not in OVERLAP_LOSSES:
            raise ValueError(f'mask_overlap={mask_overlap!r} must be one of {list(OVERLAP_LOSSES)}.')

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
        self.bias_correction = MODELS.build(bias_correction) if bias_correction else None
        self.calibration = MODELS.build(calibration) if calibration else None
        self.feature_expansion = MODELS.build(feature_expansion) if feature_expansion else None
        self.background_diversity = MODELS.build(background_diversity) if background_diversity else None

        self.matcher = HungarianMatcher(class_weight, mask_weight, mask_weight, num_points)
        self.class_weight = class_weight
        self.mask_weight = mask_weight
        self.num_points = num_points
        self.mask_overlap = mask_overlap
        self.background_weight = background_weight
        self.background_at_test = background_at_test
        self.return_scores = return_scores
        self.ignore_index = ignore_index
        self.set_test_classes(self.vocabulary.classes)

    def set_test_classes(self, classes: Sequence[str], unseen: Sequence[str] | None = None) -> None:
        """Choose the names that :meth:`predict` tells apart, in label order; any words CLIP knows.

        Args:
            classes: The names.
            unseen: Those that are not in S; by default all that training had no labels for.
        """
        self.test_classes = Vocabulary(tuple(classes)).classes
        if unseen is None:
            unseen = [name for name in self.test_classes if not self.vocabulary.has_labels_for(name)]
        self._test_unseen = frozenset(unseen)

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
        images = F.pad(inputs, (0, -inputs.shape[3] % self.stride, 0, -inputs.shape[2] % self.stride))
        z_enc = self.image_encoder(images)  # (B, D, h, w)
        stream = self.clip(images)
        z_clip = self.fusion(self.tap_norm(stream.tap.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        z_f = z_enc + F.interpolate(z_clip, size=z_enc.shape[2:], mode='bilinear')
        mask_logits, attn_bias = self.decode_head(z_f, stream.grid)
        feats = self.semantic_head(self.clip, stream, attn_bias)
        return Proposals(mask_logits, feats, self.semantic_head.classify(feats))

    def classify(self, proposals: Proposals, classes: Sequence[str]) -> Tensor:
        """P, (B, N, C + 1) logits of proposals against C class names and the background."""
        text_embeds = self.text_bank(classes, proposals.cls_feats.device)
        return self.semantic_head.scores(proposals.cls_feats, text_embeds, self.clip.logit_scale)

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
        scores = self.classify(proposals, seen_classes)
        matches = [self.matcher(*image) for image in zip(scores, proposals.mask_logits, targets, strict=True)]

        # Matched proposals of the whole batch, one after the other: image index, proposal index, mask, label.
        images = torch.cat([torch.full_like(match.proposals, i) for i, match in enumerate(matches)])
        matched = torch.cat([match.proposals for match in matches])
        pairs = list(zip(targets, matches, strict=True))
        masks = torch.cat([target.masks[match.targets] for target, match in pairs])
        labels = torch.cat([target.labels[match.targets] for target, match in pairs])

        all_labels = torch.full(scores.shape[:2], len(seen_classes), device=scores.device)
        all_labels[images, matched] = labels
        negatives = self.class_indicator.negatives(matches) if self.class_indicator is not None else []
        weight = len(matched) + (all_labels.numel() - len(matched)) * self.background_weight
        mean_weight, mean_matched, mean_negatives = mean_counts(weight, len(matched), sum(map(len, negatives)))
        # The mean of this rank times its share is its part of the mean of all; the share of a single process is 1.
        share_of_weight = weight / (mean_weight or 1)

        loss_bce, loss_overlap = mask_loss(
            proposals.mask_logits[images, matched], masks, mean_matched or 1, self.num_points, self.mask_overlap
        )
        loss_ce = classification_loss(scores, all_labels, self.background_weight)
        losses = {
            'loss_ce': self.class_weight * share_of_weight * loss_ce,
            'loss_bce': self.mask_weight * loss_bce,
            f'loss_{self.mask_overlap}': self.mask_weight * loss_overlap,
        }
        if self.feature_expansion is not None:
            text_embeds = self.text_bank(seen_classes, scores.device)[:, 0]
            losses['loss_vir'] = self.feature_expansion(
                proposals.cls_feats[images, matched], labels, text_embeds, self.clip.logit_scale
            )
        if self.background_diversity is not None:
            losses['loss_reg'] = self.background_diversity(self.semantic_head.backgrounds)
        if self.class_indicator is not None:
            losses['loss_bc'] = self.class_indicator.loss(
                proposals.feats, [match.proposals for match in matches], negatives, (mean_matched, mean_negatives)
            )
        return losses

    # ------------------------------------------------------------------ test

    @property
    def seen_mask(self) -> Tensor:
        """(C,) bool, which test classes are in S, see :meth:`set_test_classes`."""
        return torch.tensor([name not in self._test_unseen for name in self.test_classes])

    def class_bias(self, like: Tensor) -> Tensor | None:
        """(C,) float32 on the device of ``like``: what calibration, if any, adds to the pixel scores of a class."""
        if self.calibration is None:
            return None
        return self.calibration(torch.zeros(len(self.test_classes), device=like.device), self.seen_mask)

    def class_probs(self, proposals: Proposals) -> Tensor:
        """Probabilities of the test classes after bias correction, (B, N, C); rows sum to at most 1."""
        scores = self.classify(proposals, self.test_classes)
        if self.bias_correction is not None and self.class_indicator is not None:
            indicator = self.class_indicator(proposals.feats).sigmoid()
            scores = self.bias_correction(scores, indicator, self.seen_mask.to(scores.device))
        return drop_background(scores, self.background_at_test)

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """Segment images into the test classes.

        Args:
            inputs: (B, 3, H, W), normalised.
            data_samples: Meta information: results have ``ori_shape``, without padding and flips. Without samples
                they have the size of ``inputs``.

        Returns:
            Data samples with ``pred_sem_seg`` (1, H, W) int64 and, if ``return_scores``, ``seg_logits`` (C, H, W),
            which hold mask-weighted class probabilities.
        """
        proposals = self.extract_feat(inputs)
        samples = [SegDataSample() for _ in inputs] if data_samples is None else data_samples
        return self.segment(proposals.mask_logits, self.class_probs(proposals), samples, inputs.shape[2:])

    def segment(
        self, mask_logits: Tensor, class_probs: Tensor, samples: list[SegDataSample], shape: Sequence[int]
    ) -> list[SegDataSample]:
        """Add what :meth:`predict` returns to ``samples``.

        Args:
            mask_logits: M, (B, N, h, w).
            class_probs: (B, N, C).
            samples: B data samples with their meta information.
            shape: Rows and columns of the input.
        """
        bias = self.class_bias(class_probs)
        for sample, masks, probs in zip(samples, mask_logits.float(), class_probs.float(), strict=True):
            window = Window.of_image(sample.metainfo, shape, self.stride)
            masks = unflip(masks, sample.metainfo)
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
        bias = self.class_bias(inputs)
        return torch.stack([predict_scores(mask_logits, probs, window, bias) for mask_logits, probs in pairs])

    def _forward(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> tuple[Tensor, Tensor]:
        """Mask logits (B, N, h, w) and class probabilities (B, N, C), without post-processing."""
        proposals = self.extract_feat(inputs)
        return proposals.mask_logits, self.class_probs(proposals)
