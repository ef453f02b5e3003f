"""AlignZeg with a preference score and an ensemble of views: an experiment beside the paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.structures import InstanceData, PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import seg_data_to_instance_data
from torch import Tensor

from .alignzeg import AlignZeg
from .inference import collect_labels, collect_scores
from .losses.preference import mask_iou
from .preference_ensemble import ViewProposals, merged_stripes
from .proposals import Window, pad, unflip
from .question import Question
from .views import View


@MODELS.register_module()
class PreferenceAlignZeg(AlignZeg):
    """AlignZeg with a preference score for proposals, and with an ensemble of views at test. Not in the paper.

    The score is trained beside the terms of Eq. (8) and reads detached features of extra forward passes without
    gradient, so that nothing of it flows into the segmentor: weights can be compared with and without ensemble. (Its
    gradient does count in the norm that the optimizer clips.) Without the three arguments this is AlignZeg itself.
    The ensemble is in :meth:`predict` and :meth:`encode_decode`; analyses and pictures of proposals show the image
    as it is.

    Args:
        *args: As :class:`AlignZeg`, like all keyword arguments but these.
        preference: Config of :class:`PreferenceHead`, or None.
        preference_loss: Config of :class:`PreferenceLoss`, or None to leave the score as it is.
        ensemble: Config of :class:`PreferenceEnsemble` at test, or None. Needs no retraining.

    Raises:
        ValueError: If the loss or the ensemble's weighting needs a score and ``preference`` is None.
    """

    def __init__(
        self,
        *args: Any,
        preference: dict[str, Any] | None = None,
        preference_loss: dict[str, Any] | None = None,
        ensemble: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        # Built last: a seed gives the segmentor the same initial weights as without them.
        self.preference = MODELS.build({**preference, 'embed_dim': self.clip.embed_dim}) if preference else None
        self.preference_loss = MODELS.build(preference_loss) if preference_loss else None
        self.ensemble = MODELS.build(ensemble) if ensemble else None
        if self.preference is None and self.preference_loss is not None:
            raise ValueError('`preference_loss` trains the score of `preference`, which is None.')
        if self.preference is None and self.ensemble is not None and self.ensemble.weighting == 'preference':
            raise ValueError(
                "`ensemble` with weighting='preference' needs the score of `preference`, which is None; "
                "weighting='uniform' needs none."
            )

    # ------------------------------------------------------------------ training

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """As :meth:`AlignZeg.loss`, and with ``preference_loss`` the term ``loss_preference``."""
        losses = super().loss(inputs, data_samples)
        if self.preference is not None and self.preference_loss is not None:
            step = int(self.preference.steps)
            self.preference.steps += 1
            if step % self.preference_loss.interval:  # a zero with a gradient, which distributed training expects
                nothing = self.preference(inputs.new_zeros(0, self.clip.embed_dim), inputs.new_zeros(0, 1, 1))
                losses['loss_preference'] = nothing.sum()
            else:
                targets = seg_data_to_instance_data(self.ignore_index, data_samples)
                judged = [
                    self.judge(self.preference_loss.noisy(inputs), targets, v) for v in self.preference_loss.views
                ]
                scores, ious = zip(*judged, strict=True)
                losses['loss_preference'] = self.preference_loss(torch.stack(scores), torch.stack(ious), step)
        return losses

    def judge(self, images: Tensor, targets: Sequence[InstanceData], view: View) -> tuple[Tensor, Tensor]:
        """Score the proposals that matching gives to the true masks, and measure them.

        Args:
            images: (B, 3, H, W), normalised.
            targets: Per image, ``labels`` (G,) and ``masks`` (G, H, W).
            view: How the images are looked at.

        Returns:
            r (ΣG,), with a gradient for the head, and IoU (ΣG,), NaN where a mask has no proposal.
        """
        self.decode_head.eval()  # versions of an image differ by their noise alone
        with torch.no_grad():
            proposals = self.extract_feat(view.apply(pad(images, self.stride), self.stride))
            mask_logits = view.restore(proposals.mask_logits)
            class_scores = self.classify(proposals, self.text_bank(self.vocabulary.seen_classes, images.device))
            feats, masks, ious = [], [], []
            for i, target in enumerate(targets):
                match = self.criterion.matcher(class_scores[i], mask_logits[i], target)
                proposal = match.proposals.new_zeros(len(target.labels))
                proposal[match.targets] = match.proposals
                iou = match.mask_cost.new_full((len(proposal),), float('nan'))
                iou[match.targets] = mask_iou(mask_logits[i, match.proposals], target.masks[match.targets])
                feats.append(proposals.feats[i, proposal])
                masks.append(mask_logits[i, proposal])
                ious.append(iou)
        self.decode_head.train(self.training)
        assert self.preference is not None
        return self.preference(torch.cat(feats), torch.cat(masks)), torch.cat(ious)

    # ------------------------------------------------------------------ test

    def look(self, inputs: Tensor, question: Question) -> list[list[ViewProposals]]:
        """What the views of the ensemble say, image by image.

        Args:
            inputs: (B, 3, H, W), normalised.
            question: What is asked.

        Raises:
            ValueError: If scores are needed that were never trained.
        """
        assert self.ensemble is not None
        score = self.preference if self.ensemble.weighting == 'preference' else None
        if score is not None and not score.trained:
            raise ValueError(
                'The score of `preference` was never trained, or the checkpoint holds none: train with '
                "`preference_loss`, or set weighting='uniform' in `ensemble`."
            )
        found: list[list[ViewProposals]] = [[] for _ in inputs]
        for view in self.ensemble.views:
            proposals = self.extract_feat(view.apply(pad(inputs, self.stride), self.stride))
            masks, probs = view.restore(proposals.mask_logits).float(), self.class_probs(proposals, question).float()
            scores = None if score is None else score(proposals.feats, proposals.mask_logits).float()
            for i, image in enumerate(found):
                image.append(ViewProposals(masks[i], probs[i], None if scores is None else scores[i]))
        return found

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, data_samples: list[SegDataSample] | None = None, question: Question | None = None
    ) -> list[SegDataSample]:
        """As :meth:`AlignZeg.predict`, from all views of the ensemble."""
        if self.ensemble is None:
            return super().predict(inputs, data_samples, question)
        question = question or self.question
        samples = [SegDataSample() for _ in inputs] if data_samples is None else data_samples
        for sample, views in zip(samples, self.look(inputs, question), strict=True):
            window = Window.of_image(sample.metainfo, inputs.shape[2:], self.stride)
            for view in views:
                view.mask_logits = unflip(view.mask_logits, sample.metainfo)
            stripes = self._merged(views, window, question)
            if self.return_scores:
                seg_logits = collect_scores(stripes, window, len(question.classes), inputs)
                sample.seg_logits = PixelData(data=seg_logits)
                labels = seg_logits.argmax(dim=0, keepdim=True)
            else:
                labels = collect_labels(stripes, window, inputs.device)
            sample.pred_sem_seg = PixelData(data=labels)
        return samples

    @torch.no_grad()
    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """As :meth:`AlignZeg.encode_decode`, from all views of the ensemble."""
        if self.ensemble is None:
            return super().encode_decode(inputs, batch_img_metas)
        window = Window.of_image({}, inputs.shape[2:], self.stride)
        num_classes = len(self.question.classes)
        merged = (self._merged(views, window, self.question) for views in self.look(inputs, self.question))
        return torch.stack([collect_scores(stripes, window, num_classes, inputs) for stripes in merged])

    def _merged(
        self, views: Sequence[ViewProposals], window: Window, question: Question
    ) -> Iterator[tuple[slice, Tensor]]:
        assert self.ensemble is not None
        bias = question.class_bias(views[0].class_probs.device)
        return merged_stripes(views, window, class_bias=bias, temperature=self.ensemble.temperature)
