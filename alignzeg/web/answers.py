"""Answers to the questions that a browser or another program sends: any JSON values in, plain data out."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import gradio as gr

from ..apis import AlignZegInferencer
from .limits import client_of
from .looks import Looks
from .pictures import Picture, labels_url, png_url
from .segment import Result, see, segment
from .uploads import Uploads


class Answers:
    """Answer questions about pictures.

    Args:
        inferencer: The model.
        uploads: The store of the upload route, which other programs use.
        busy: Held during each prediction: one at a time.

    Attributes:
        looks: What the model saw in the pictures of earlier questions.
    """

    def __init__(
        self, inferencer: AlignZegInferencer, uploads: Uploads, busy: AbstractContextManager[Any] | None = None
    ) -> None:
        self.inferencer, self.uploads = inferencer, uploads
        self.busy = busy or nullcontext()
        self.looks = Looks()

    def answer(
        self,
        picture: object,
        words: object,
        unseen: object,
        others: object,
        pbc: object,
        gamma: object,
        windows: object,
        seen: object,
        number: object,
        request: gr.Request,
    ) -> dict[str, Any]:
        """Return the answer to a question about a picture; an answer with ``error`` if there is none.

        ``seen`` is the ``look`` of an earlier answer in place of the picture itself; the answer is ``gone`` if that is
        no longer kept. The answer repeats ``number``.
        """
        answer: dict[str, Any] = {'number': number if isinstance(number, int) else 0, 'look': ''}
        owner = client_of(request.client.host if request.client else None), str(request.session_hash)
        try:
            settings = checked(words, unseen, others, pbc, gamma, windows)
            subject: Any = self.looks.find(*owner, seen)
            token = '' if subject is None else str(seen)
            if subject is None and seen and not picture:
                return {**answer, 'gone': True}
            taken = Picture.take(picture, self.uploads) if subject is None else None
            pixels = taken.pixels() if taken else None
            with self.busy:
                if pixels is not None and not settings[-1] and self.inferencer.model.tiling is None:
                    subject = see(self.inferencer, pixels)
                    token = self.looks.keep(*owner, subject)
                result = segment(self.inferencer, pixels if subject is None else subject, *settings)
        except (ValueError, OSError) as error:
            return {**answer, 'error': failed(error)}
        return {**answer, 'look': token, **shown(result), 'question': described(*settings)}

    def clean_up(self) -> None:
        """Delete old uploads, and what has been unused for long."""
        self.uploads.sweep()
        self.looks.sweep()


def checked(
    words: object, unseen: object, others: object, pbc: object, gamma: object, windows: object = False
) -> tuple[str, str, bool, float | None, bool, bool]:
    """Check the settings that a client sent with a picture, and return them as :func:`segment` expects them.

    Raises:
        ValueError: If a value has the wrong type.
    """
    texts, switches = (('`classes`', words), ('`unseen`', unseen)), (('others', others), ('windows', windows))
    for name, value, kind in (*((*text, str) for text in texts), *((*switch, bool) for switch in switches)):
        if value is not None and not isinstance(value, kind):
            raise ValueError(f'{name} is of type {type(value).__name__}: expected {kind.__name__}.')
    if not isinstance(pbc, bool) or isinstance(gamma, bool) or not isinstance(gamma, (int, float)):
        raise ValueError('PBC or γ has the wrong type: expected true or false, and a number.')
    return str(words or ''), str(unseen or ''), bool(others), float(gamma) if pbc else None, pbc, bool(windows)


def described(
    words: str, unseen: str, others: bool, gamma: float | None, pbc: bool, windows: bool
) -> dict[str, str | float | bool | None]:
    """Return the settings of a question, as they are shown above its result and downloaded with it."""
    return dict(words=words, unseen=unseen, others=others, pbc=pbc, gamma=gamma, windows=windows)


def shown(result: Result) -> dict[str, Any]:
    """Return a result as plain data; pictures are data URLs."""
    overlay, note = png_url(result.overlay)
    height, width = result.labels.shape
    return dict(
        overlay=overlay, labels=labels_url(result.labels), height=height, width=width, classes=list(result.classes),
        shares=result.shares, proposals=result.proposals, hints=result.hints,
        status=[*result.status, note] if note else result.status,
    )  # fmt: skip


def failed(error: Exception) -> str:
    """Return the status line of an error, with arguments named as on the page."""
    text = ' '.join(f'Not done: {error}'.split())
    return text.replace('`classes`', '“Words”').replace('`unseen`', '“Unseen words”')
