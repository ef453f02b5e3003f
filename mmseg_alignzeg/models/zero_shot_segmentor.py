"""Base class of zero-shot segmentors with proposals: class names at test time, and decoding to labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from ..vocabulary import Vocabulary
from .answer import Answer, Drawing, ViewProposals
from .class_embeddings import Bank
from .proposals import Proposals, Window, pad, upright
from .question import Question
from .tiling import Tiling, read_tiling, tiled_answers


class ZeroShotSegmentor(BaseSegmentor):
    """Base of :class:`AlignZeg`: from images to labels in two steps, :meth:`look` and :meth:`answer`.

    Attributes:
        vocabulary: Vocabulary of the training.
        text_bank: Embeds class names.
        stride: Inputs are padded to a multiple of this many pixels.
        question: Default question of :meth:`predict`.
        decoder: Decoder from proposals to labels.
        tiling: Overlapping windows for prediction, or None for whole images.
    """

    vocabulary: Vocabulary
    text_bank: Bank
    stride: int

    def prepare_test(
        self,
        bias_correction: dict[str, Any] | None,
        calibration: dict[str, Any] | None,
        decoder: dict[str, Any] | None,
        test_cfg: Mapping[str, Any] | None,
    ) -> None:
        """Build decoder, windows and default question; see the arguments of :class:`AlignZeg`.

        Raises:
            ValueError: If the parts do not fit together.
        """
        self.decoder = MODELS.build(decoder or {'type': 'SemanticDecoder'})
        settings = test_cfg or {}
        self.tiling = read_tiling(settings)
        if self.tiling is not None and self.decoder.needs_labels:
            raise ValueError(f"{type(self.decoder).__name__} looks at whole images: leave `test_cfg.mode='slide'` out.")
        self.return_scores = bool(settings.get('return_scores', False))
        pbc, stacking = (MODELS.build(part) if part else None for part in (bias_correction, calibration))
        self.question = Question(
            self.vocabulary, self.text_bank, pbc, stacking, settings.get('background_at_test', 'share')
        )
        self.set_test_classes(self.vocabulary.classes)

    def ask(self, classes: Sequence[str], unseen: Sequence[str] | None = None) -> Question:
        """Return the question for other class names, with the correction settings of :attr:`question`.

        Args:
            classes: Class names in label order; any text that CLIP can encode.
            unseen: The names that are not in S; by default all names without training labels.

        Raises:
            ValueError: See :class:`Vocabulary`.
        """
        return replace(self.question, vocabulary=self.vocabulary.at_test(classes, unseen))

    def set_test_classes(self, classes: Sequence[str], unseen: Sequence[str] | None = None) -> None:
        """Set :attr:`question`, the default of :meth:`predict`, to :meth:`ask` of these class names."""
        self.question = self.ask(classes, unseen)

    # ------------------------------------------------------------------ what a segmentor provides

    @abstractmethod
    def extract_feat(self, inputs: Tensor) -> Proposals:
        """Compute proposals of normalised images (B, 3, H, W)."""

    @abstractmethod
    def classify(self, proposals: Proposals, text_embeds: Tensor) -> Tensor:
        """Return P, (B, N, C + 1) logits of proposals for C class embeddings and the background."""

    @abstractmethod
    def indicate(self, proposals: Proposals) -> Tensor | None:
        """Return I, (B, N) probabilities that a proposal contains no seen class, or None."""

    # ------------------------------------------------------------------ from images to labels

    def look(self, inputs: Tensor) -> list[Proposals]:
        """Return upright proposals for each view of the decoder. They do not depend on the class names."""
        images = pad(inputs, self.stride)
        return [view.restored(self.extract_feat(view.apply(images, self.stride))) for view in self.decoder.views]

    def class_probs(self, proposals: Proposals, question: Question | None = None) -> Tensor:
        """Return probabilities of the C class names after bias correction, (B, N, C); rows sum to at most 1."""
        question = question or self.question
        scores = self.classify(proposals, question.text_embeds(proposals.cls_feats.device))
        return question.probs(scores, None if question.bias_correction is None else self.indicate(proposals))

    def answer(
        self,
        looks: Sequence[Proposals],
        samples: Sequence[SegDataSample],
        shape: Sequence[int],
        question: Question | None = None,
    ) -> list[Answer]:
        """Decode the result of :meth:`look`. This is cheap: one look can answer several questions.

        Args:
            looks: Result of :meth:`look` for B images.
            samples: B data samples with meta information.
            shape: Rows and columns of the input.
            question: Class names and correction settings; by default :attr:`question`.
        """
        question = question or self.question
        bias = question.class_bias(looks[0].feats.device)
        views = []  # per view, one for each image
        for found in looks:
            masks, probs = upright(found.mask_logits, samples), self.class_probs(found, question).float()
            views.append([ViewProposals(*parts) for parts in zip(masks, probs, strict=True)])
        windows = [Window.of_image(sample.metainfo, shape, self.stride) for sample in samples]
        images = zip(zip(*views, strict=True), windows, samples, strict=True)
        return [self.decoder(parts, window, bias, sample) for parts, window, sample in images]

    def answers(
        self,
        inputs: Tensor,
        samples: Sequence[SegDataSample],
        question: Question | None = None,
        tiling: Tiling | None = None,
    ) -> Sequence[Drawing]:
        """Compute answers for whole images or in windows.

        Args:
            inputs: See :meth:`predict`. With windows also a list of images of any size, and uint8 pixels, which are
                normalised window by window.
            samples: B data samples with meta information.
            question: See :meth:`predict`.
            tiling: The windows; by default those of ``test_cfg``.
        """
        tiling = tiling or self.tiling
        if tiling is not None:
            return tiled_answers(self, tiling, inputs, samples, question)
        return self.answer(self.look(inputs), samples, inputs.shape[2:], question)

    def test_step(self, data: Any) -> list[SegDataSample]:
        """Predict the images of a batch. With windows, no normalised copy of a whole image is made."""
        if self.tiling is None:
            return super().test_step(data)
        return self.predict(data['inputs'], data['data_samples'])

    val_step = test_step

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, data_samples: list[SegDataSample] | None = None, question: Question | None = None
    ) -> list[SegDataSample]:
        """Segment images into the classes of a question.

        Args:
            inputs: (B, 3, H, W), normalised.
            data_samples: Meta information: results have size ``ori_shape``, with padding and flips undone. Without
                samples, results have the size of ``inputs``.
            question: Class names and correction settings; by default :attr:`question`.

        Returns:
            Data samples with ``pred_sem_seg`` (1, H, W) int64 and, if ``return_scores``, ``seg_logits`` (C, H, W),
            mask-weighted class probabilities.
        """
        samples = [SegDataSample() for _ in inputs] if data_samples is None else data_samples
        for sample, answer in zip(samples, self.answers(inputs, samples, question), strict=True):
            if self.return_scores:
                sample.seg_logits = PixelData(data=answer.scores())
                labels = sample.seg_logits.data.argmax(dim=0, keepdim=True)
            else:
                labels = answer.labels()
            sample.pred_sem_seg = PixelData(data=labels)
        return samples

    @torch.no_grad()
    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict[str, Any]]) -> Tensor:
        """Return class scores at input size, (B, C, H, W)."""
        return torch.stack([answer.scores() for answer in self.answers(inputs, [SegDataSample() for _ in inputs])])

    def _forward(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> tuple[Tensor, Tensor]:
        """Return mask logits (B, N, h, w) and class probabilities (B, N, C), without post-processing."""
        proposals = self.extract_feat(inputs)
        return proposals.mask_logits, self.class_probs(proposals)
