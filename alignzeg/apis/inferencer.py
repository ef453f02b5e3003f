"""Segmentation of arbitrary images into arbitrary classes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from mmengine.dataset import pseudo_collate

from mmseg_alignzeg.aliases import fold
from mmseg_alignzeg.models.random_clip import NOTE, is_random
from mmseg_alignzeg.models.tiling import Tiling

from .banks import Banks
from .hints import far_words
from .image_files import Source, find_images
from .looks import Look, look_at, predictions
from .prediction import OTHERS, Failure, Prediction
from .preparation import Item, prepare
from .request import Request, bias_correction
from .trained_models import PathLike, load_model, usable_device
from .watching import Watch, watched
from .words import check_words, cut_words

DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}


class AlignZegInferencer:
    """Segment images into classes given by name. Argument names are those of MMEngine's inferencers.

    It is not a subclass of them: they execute the config stored in a checkpoint, and one unreadable file ends a whole
    call.

    Args:
        model: A config (``.py``), a folder of ``save_pretrained``, or None for the trained model of the embedded world.
        weights: A checkpoint (``.pth``) or ``.safetensors``; only with a config.
        device: For example ``'cuda:0'``; by default a GPU if there is one.
        dtype: ``'fp32'``, or ``'fp16'`` or ``'bf16'`` with autocast.
        clip_weights: File or tag of CLIP's weights, if the one in config or folder does not exist on this machine.

    Attributes:
        model: The :class:`AlignZeg`; calls do not change it.
        input_scale: Maximum size of inputs as (long, short) pixels, see :func:`fit`.
        watch: Called after each window with the image's name, the windows done and their number; or None.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If model and weights do not fit, or the device or dtype is not available.

    Examples:
        >>> from mmseg_alignzeg.datasets.patterns import draw_scene
        >>> image, _ = draw_scene(seed=2, index=2)  # or a path, such as 'street.jpg'
        >>> inferencer = AlignZegInferencer(device='cpu')  # or of your own: 'config.py', 'weights.pth'
        >>> prediction = inferencer(image, classes=['red checks', 'blue checks', 'yellow dots'])[0]
        >>> [prediction.classes[prediction.labels[y, x]] for y, x in ((101, 54), (83, 103), (33, 56))]
        ['red checks', 'blue checks', 'yellow dots']
        >>> sorted(prediction.unseen)  # words that training had no labels for
        ['blue checks', 'yellow dots']
    """

    def __init__(
        self,
        model: PathLike | None = None,
        weights: PathLike | None = None,
        device: str | torch.device | None = None,
        dtype: str = 'fp32',
        clip_weights: str | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f'dtype={dtype!r} must be one of {list(DTYPES)}.')
        self.dtype = dtype
        self.device = usable_device(device)
        self.model, self.input_scale = load_model(model, weights, clip_weights)
        if self.model.decoder.needs_labels:
            raise ValueError(f'The decoder {type(self.model.decoder).__name__} needs ground truth: use `mim test`.')
        self.model.to(self.device)
        self.notes = (NOTE,) if is_random(self.model) else ()
        self._banks = Banks(self.model.text_bank)
        self.watch: Watch | None = None

    def without_text_cache(self) -> AlignZegInferencer:
        """Return an inferencer of the same model that keeps no text embeddings on disk, for untrusted class names."""
        other = copy.copy(self)
        other._banks = Banks(self.model.text_bank, keep=False)
        return other

    def __call__(  # noqa: D417 (the others are described there)
        self,
        inputs: Any,
        classes: Sequence[str] | None = None,
        unseen: Sequence[str] | None = None,
        others: bool = False,
        gamma: float | None = None,
        pbc: bool = True,
        templates: str | None = None,
        batch_size: int = 1,
        proposals: bool = False,
        windows: tuple[int, int] | None = None,
        return_datasamples: bool = False,
    ) -> list[Any]:
        """Segment images; see :meth:`stream` for the arguments, and to keep only one batch in memory.

        Args:
            return_datasamples: Return mmseg's ``SegDataSample``, see :meth:`Prediction.to_datasample`.

        Returns:
            For every image in order, a :class:`Prediction` or data sample, or a :class:`Failure` if it is unreadable.

        Raises:
            FileNotFoundError: See :meth:`stream`.
            ValueError: See :meth:`stream`; also if no image could be read.
        """
        settings = (classes, unseen, others, gamma, pbc, templates, batch_size, proposals, windows)
        results = list(self.stream(inputs, *settings))
        failures = [result for result in results if isinstance(result, Failure)]
        if len(failures) == len(results):
            more = f' (and {len(failures) - 1:,} more)' if len(failures) > 1 else ''
            raise ValueError(f'{failures[0].name}: {failures[0].message}{more}')
        if not return_datasamples:
            return results
        return [result if isinstance(result, Failure) else result.to_datasample() for result in results]

    def stream(
        self,
        inputs: Any,
        classes: Sequence[str] | None = None,
        unseen: Sequence[str] | None = None,
        others: bool = False,
        gamma: float | None = None,
        pbc: bool = True,
        templates: str | None = None,
        batch_size: int = 1,
        proposals: bool = False,
        windows: tuple[int, int] | None = None,
    ) -> Iterator[Prediction | Failure]:
        """Segment images one after the other. Arguments are checked immediately, images are read when needed.

        Args:
            inputs: A path, a folder (its images in alphabetical order, without subfolders), a uint8 RGB array
                (H, W, 3), RGBA (H, W, 4) or grey (H, W), a Pillow image, the bytes of a file, or a list of those.
            classes: Class names, or None for those that the model was trained for.
            unseen: Names that PBC treats as unseen; None for all names without training labels.
            others: Add a last class for pixels where no score Σ_n p_nc·σ(M_n) reaches 0.5, so that "none of the
                classes", 1 - score, is larger. On 60 validation scenes of the embedded world, whose background is
                something else, its IoU is 76.5, and on labelled pixels the mIoU of the 20 names falls from 68.6 to
                64.6.
            gamma: γ of the bias correction, in (0, 1]; None for the model's own setting, which may be no correction.
            pbc: False disables the bias correction, whatever ``gamma``.
            templates: Name of a template set; None for that of the model.
            batch_size: Number of images read at a time; those with the same input size are predicted together.
            proposals: Also return the proposals of each image.
            windows: Side and stride in pixels of overlapping windows, see :class:`Tiling`, for pictures that are much
                larger than those of the training: they keep their size, and memory does not grow with it. None for the
                model's config, in which pictures are usually scaled down.

        Returns:
            One result per image, in order; a :class:`Failure` for an unreadable one.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If an argument is invalid.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f'batch_size={batch_size!r} must be a whole number of at least 1.')
        tiling = None if windows is None else Tiling.square(windows)
        if proposals and (tiling or self.model.tiling) is not None:
            raise ValueError('Proposals are those of whole images: leave windows (`test_cfg.mode`) or proposals out.')
        sources = find_images(inputs)
        request = self._request(classes, unseen, others, gamma, pbc, templates, proposals, tiling)
        return self._run(sources, request, batch_size)

    def look(self, image: Any) -> Look:
        """Let the model look at one image, for any number of questions: :meth:`answer` is much faster.

        Args:
            image: A path or an array, see :meth:`stream`.

        Raises:
            FileNotFoundError: If the path does not exist.
            ValueError: If the image is unreadable, or the model predicts in windows (`test_cfg.mode`).
        """
        if self.model.tiling is not None:
            raise ValueError('This model predicts in windows (`test_cfg.mode`), which are not kept: call it instead.')
        with self._autocast():
            return look_at(self.model, [prepare(find_images([image])[0], self.input_scale)])

    def answer(
        self,
        look: Look,
        classes: Sequence[str] | None = None,
        unseen: Sequence[str] | None = None,
        others: bool = False,
        gamma: float | None = None,
        pbc: bool = True,
        templates: str | None = None,
        proposals: bool = False,
    ) -> Prediction:
        """Answer a question about an image that :meth:`look` has seen; see :meth:`stream` for the other arguments."""
        request = self._request(classes, unseen, others, gamma, pbc, templates, proposals, None)
        with self._autocast():
            return self._answer(look, request)[0]

    def _request(
        self,
        classes: Sequence[str] | None,
        unseen: Sequence[str] | None,
        others: bool,
        gamma: float | None,
        pbc: bool,
        templates: str | None,
        proposals: bool,
        tiling: Tiling | None,
    ) -> Request:
        correction = bias_correction(self.model, gamma, pbc)
        words = check_words(classes, unseen, self.model.vocabulary)
        if others and OTHERS in map(fold, words.classes):
            raise ValueError(f'`classes` already contains {OTHERS!r}: remove it, or set others=False.')
        bank = self._banks(templates, words.classes)
        asked = self.model.ask(words.classes, words.unseen)
        question = replace(asked, text_bank=bank, bias_correction=correction)
        question.text_embeds(self.device)  # reports problems with class names or CLIP before any image is read
        far = () if self.notes else far_words(words.classes, self.model.vocabulary, bank)
        return Request(question, replace(cut_words(words, bank), far=far), others, proposals, tiling)

    def _run(self, sources: Sequence[Source], request: Request, batch_size: int) -> Iterator[Prediction | Failure]:
        for start in range(0, len(sources), batch_size):
            results: dict[int, Prediction | Failure] = {}
            groups: dict[torch.Size, dict[int, Item]] = {}  # padding to a common size would change results
            for i, source in enumerate(sources[start : start + batch_size]):
                try:
                    item = prepare(source, None if request.tiling else self.input_scale)
                except ValueError as error:
                    results[i] = Failure(source.name, str(error))
                else:
                    groups.setdefault(item.packed['inputs'].shape, {})[i] = item
            for group in groups.values():
                with self._autocast():
                    results.update(zip(group, self._predict(list(group.values()), request), strict=True))
            yield from (results[i] for i in sorted(results))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, DTYPES[self.dtype], enabled=self.dtype != 'fp32')

    def _predict(self, items: list[Item], request: Request) -> list[Prediction]:
        """Return predictions of images with the same input size."""
        tiling = request.tiling or self.model.tiling
        if tiling is None:
            return self._answer(look_at(self.model, items), request)
        with torch.no_grad():
            data = pseudo_collate([item.packed for item in items])
            answers = self.model.answers(data['inputs'], data['data_samples'], request.question, tiling)
            return predictions(items, watched(answers, items, self.watch), None, request, self.notes)

    @torch.no_grad()
    def _answer(self, look: Look, request: Request) -> list[Prediction]:
        answers = self.model.answer(look.views, look.samples, look.shape, request.question)
        return predictions(look.items, answers, self.model.indicate(look.views[0]), request, self.notes)
