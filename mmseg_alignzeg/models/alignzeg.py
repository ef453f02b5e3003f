"""The segmentor. Its forward pass follows figure 2 of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ..vocabulary import Vocabulary
from .bias_correction import PredictiveBiasCorrection
from .class_embeddings import build_text_bank
from .clip_source import CLIPSource
from .losses import checked_targets
from .proposals import Proposals, common_stride, pad
from .towers import build_tower, with_statistics
from .zero_shot_segmentor import ZeroShotSegmentor


@MODELS.register_module()
class AlignZeg(ZeroShotSegmentor):
    """AlignZeg: zero-shot semantic segmentation by aligned proposals, features and predictions.

    The model is trained on the seen classes and tested on any class names. A :class:`Question` holds the class names
    and settings of a test: by default :attr:`question`, which :meth:`set_test_classes` replaces, or the one passed by
    the caller. Setting the config of an optional part to None disables that part.

    Args:
        classes: Names of the training vocabulary, in label order, including the unseen ones (stored in checkpoints).
        unseen_classes: Names that training never sees.
        clip: ``model_name`` and ``pretrained`` of :class:`CLIPSource`, and arguments of its tower, see
            :func:`build_tower`.
        image_encoder: Config of the learnable encoder, Z_enc.
        decode_head: Config of the proposal head, :class:`MRPEHead` or the baseline :class:`PlainDecoderHead`. The
            ``embed_dim`` of the heads and of φ_bc follow from ``image_encoder`` and ``clip``.
        semantic_head: Config of :class:`CLIPSemanticHead`.
        text: Text prototypes: ``templates``, a set of :func:`get_templates`, by default 'vild'; ``names``, arguments
            of :class:`ClassNames`; ``cache_dir``, see :class:`TextBank`. Or ``embeddings``, a file of class embeddings,
            see :class:`EmbeddingBank`; or ``drawn=True``, see :class:`DrawnBank`.
        class_indicator: Config of φ_bc, or None to train without it (``bias_correction`` must then be None too).
        bias_correction: Config of :class:`PredictiveBiasCorrection`, applied at test time, or None. Changing it needs
            no retraining.
        calibration: Config of :class:`CalibratedStacking`, applied at test time, or None (not in the paper); can be
            combined with PBC.
        criterion: Config of :class:`AlignZegCriterion`, the losses; None uses its defaults.
        decoder: Config of :class:`SemanticDecoder`, the default, :class:`EnsembleDecoder` or :class:`OracleDecoder`.
        test_cfg: ``mode='slide'`` with ``crop_size`` and ``stride``, see :class:`Tiling`, by default 'whole';
            ``background_at_test``, see :func:`drop_background`; ``return_scores``: whether results contain full-size
            class scores, ``seg_logits``, C × H × W floats per image.
        **base: ``data_preprocessor``, whose mean and std are those of the tower, and ``init_cfg`` of
            :class:`BaseSegmentor`; ``pretrained`` and ``train_cfg``, which ``mmseg.apis.init_model`` sets to None in
            every model, are ignored.

    Raises:
        ValueError: If the vocabulary is invalid, there is no seen class, or the parts do not fit together.
    """

    def __init__(
        self,
        classes: Sequence[str],
        unseen_classes: Sequence[str],
        clip: dict[str, Any],
        image_encoder: dict[str, Any],
        decode_head: dict[str, Any],
        semantic_head: dict[str, Any],
        text: Mapping[str, Any] | None = None,
        class_indicator: dict[str, Any] | None = None,
        bias_correction: dict[str, Any] | None = None,
        calibration: dict[str, Any] | None = None,
        criterion: dict[str, Any] | None = None,
        decoder: dict[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        **base: Any,
    ) -> None:
        vision = dict(clip)
        source = CLIPSource(vision.pop('model_name'), vision.pop('pretrained'))
        base['data_preprocessor'] = with_statistics(base.get('data_preprocessor'), source)
        super().__init__(**{key: value for key, value in base.items() if key not in ('pretrained', 'train_cfg')})
        self.vocabulary = Vocabulary(tuple(classes), tuple(unseen_classes))
        if not self.vocabulary.seen_classes:
            raise ValueError(f'All {len(classes)} classes are unseen: training needs at least one seen class.')
        if bias_correction is not None and class_indicator is None:
            raise ValueError('`bias_correction` needs the indicator that `class_indicator` trains; the latter is None.')
        self.text_bank = build_text_bank(source, self.vocabulary.classes, text)
        self.clip = build_tower(source, **vision)
        self.image_encoder = MODELS.build(image_encoder)
        self.tap_norm = nn.LayerNorm(self.clip.width)  # not given in the paper; as in SAN
        self.fusion = nn.Linear(self.clip.width, self.image_encoder.embed_dim)
        self.decode_head = MODELS.build({**decode_head, 'embed_dim': self.image_encoder.embed_dim})
        #: Inputs are padded to a multiple of this many pixels.
        self.stride = common_stride(self.image_encoder.patch_size, self.clip.patch_size, self.clip.scale_factor)
        if self.decode_head.bias_heads not in (1, self.clip.num_heads):
            raise ValueError(
                f"bias_heads={self.decode_head.bias_heads} must be 1 or CLIP's number of heads, {self.clip.num_heads}."
            )
        in_clip = {'embed_dim': self.clip.embed_dim}
        self.semantic_head = MODELS.build({**semantic_head, **in_clip})
        self.class_indicator = MODELS.build({**class_indicator, **in_clip}) if class_indicator else None
        self.criterion = MODELS.build({'type': 'AlignZegCriterion', **(criterion or {})})
        backgrounds = len(self.semantic_head.background_prototypes)
        if backgrounds < 2 and self.criterion.background_diversity is not None:
            raise ValueError(
                f'`num_backgrounds={backgrounds}`, but Eq. (4) needs two background prototypes: raise it, or set '
                '`criterion.background_diversity=None`.'
            )
        self.prepare_test(bias_correction, calibration, decoder, test_cfg)

    def checkpoint_identity(self, saved: object = None) -> dict[str, Any]:
        """Return what a checkpoint and the model that loads it must have in common, in plain types.

        Args:
            saved: The identity in a checkpoint. If it is old and names CLIP by the digest of the file that this model
                has too, so does the result.
        """
        clip = saved.get('clip') if isinstance(saved, Mapping) else None
        return {
            'classes': list(self.vocabulary.classes),
            'unseen_classes': list(self.vocabulary.unseen_classes),
            'templates': self.text_bank.template_set,
            'clip': self.text_bank.source.identity_as(clip),
        }

    # ------------------------------------------------------------------ figure 2, from left to right

    def extract_feat(self, inputs: Tensor) -> Proposals:
        """Compute proposals of normalised images (B, 3, H, W), padded at the right and bottom to whole patches."""
        images = pad(inputs, self.stride)
        z_enc = self.image_encoder(images)  # (B, D, h, w)
        stream = self.clip(images)
        z_clip = self.fusion(self.tap_norm(stream.tap.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        z_f = z_enc + F.interpolate(z_clip, size=z_enc.shape[2:], mode='bilinear')
        mask_logits, attn_bias = self.decode_head(z_f, stream.grid)
        feats = self.semantic_head(self.clip, stream, attn_bias)
        return Proposals(mask_logits, feats, self.semantic_head.classify(feats))

    def classify(self, proposals: Proposals, text_embeds: Tensor) -> Tensor:
        """Return P, (B, N, C + 1) logits of proposals for C class embeddings and the background."""
        return self.semantic_head.scores(proposals.cls_feats, text_embeds, self.clip.logit_scale)

    def indicate(self, proposals: Proposals) -> Tensor | None:
        """Return I, (B, N) probabilities of φ_bc that a proposal contains no seen class; None without φ_bc."""
        return None if self.class_indicator is None else self.class_indicator(proposals.feats).sigmoid()

    def choose_correction(self, gamma: float | None = None, pbc: bool = True) -> PredictiveBiasCorrection | None:
        """Return the bias correction for a prediction.

        Args:
            gamma: γ; None for the model's own setting, which may be no correction.
            pbc: False for no correction, whatever ``gamma``.

        Raises:
            ValueError: If there is no φ_bc to compare γ with, or γ is outside [0, 1].
        """
        if not pbc:
            return None
        if gamma is None:
            return self.question.bias_correction
        if self.class_indicator is None:
            raise ValueError(f'gamma={gamma} needs φ_bc (`class_indicator`), without which this model was trained.')
        return PredictiveBiasCorrection(gamma)

    # ------------------------------------------------------------------ training

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Return the weighted terms of Eq. (8).

        Args:
            inputs: (B, 3, H, W), normalised.
            data_samples: With ``gt_sem_seg``: indices of the seen classes, and ``ignore_index`` elsewhere.

        Returns:
            Scalars. Means are over the proposals of all ranks: W processes train like one with a W-fold batch.

        Raises:
            ValueError: See :func:`checked_targets`.
        """
        seen_classes, criterion = self.vocabulary.seen_classes, self.criterion
        targets = checked_targets(
            inputs, data_samples, len(seen_classes), criterion.ignore_index, self.decode_head.num_queries
        )
        proposals = self.extract_feat(inputs)
        embeds, scale = self.text_bank(seen_classes, inputs.device), self.clip.logit_scale
        scores, backgrounds = self.classify(proposals, embeds), self.semantic_head.backgrounds
        return criterion(proposals, scores, targets, embeds[:, 0], scale, backgrounds, self.class_indicator)
