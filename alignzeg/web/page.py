"""The page itself: gradio's components around :func:`segment`."""

from __future__ import annotations

import html
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import gradio as gr

from mmseg_alignzeg.datasets.patterns import CLASSES, draw_scene
from mmseg_alignzeg.models import PredictiveBiasCorrection
from mmseg_alignzeg.vocabulary import abridged

from ..apis import AlignZegInferencer
from .jobs import FairQueue
from .pictures import Picture, png_value
from .segment import SHOWN_PROPOSALS, segment
from .uploads import GONE, Uploads

SCENES = ((2, 43), (2, 1), (2, 6), (2, 4))  # world seed and number; what PBC changes is easy to see in them

SHARES = ['Word', 'Share (%)', 'Unseen']
PROPOSALS = ['Word', 'Score', 'Unseen score', 'Share (%)']


# Gradio's default asks no other server for fonts; its hints are too pale to read.
THEME = gr.themes.Default().set(block_info_text_color='*neutral_500', block_info_text_color_dark='*neutral_300')
CSS = """
.picture img { width: 100%; height: 100%; object-fit: contain; }
.scenes { display: flex; flex-wrap: wrap; gap: 8px; }
.scenes span { flex-basis: 100%; }
.scenes button { padding: 0; border: 2px solid var(--border-color-primary); border-radius: 6px; cursor: pointer; }
.scenes button:hover, .scenes button:focus { border-color: var(--color-accent); }
.scenes img { display: block; width: 56px; height: 56px; border-radius: 4px; }
.status p { margin: 0; }
.status .error { font-weight: 600; color: var(--error-text-color); }
.gradio-container { --font-mono: var(--font); }
"""
# Clicks on the pictures inside one component; gradio's own examples would be files.
ON_CLICK = """
element.addEventListener('click', (event) => {
    const button = event.target.closest('button');
    if (button) trigger('click', {scene: Number(button.dataset.scene)});
});
"""
# On a phone the result is below all settings; it has its height when its picture has loaded.
TO_RESULT = """() => { setTimeout(() => {
    const result = document.querySelector('.result');
    const below = result?.getBoundingClientRect().top > innerHeight / 2;
    if (below && result.querySelector('img')) result.scrollIntoView({behavior: 'smooth'});
}, 300); }"""


def build_page(
    inferencer: AlignZegInferencer,
    uploads: Uploads,
    busy: AbstractContextManager[Any] | None = None,
) -> gr.Blocks:
    """Build the page; :func:`serving` serves it.

    Handlers receive and return the raw JSON values (``preprocess=False``), because gradio's own conversions of pictures
    write files. So the handlers must accept values of any type from a client.

    Args:
        inferencer: The model.
        uploads: The store of the upload route.
        busy: Held during each prediction: one at a time.
    """
    vocabulary = inferencer.model.vocabulary
    has_indicator = inferencer.model.class_indicator is not None
    correction = inferencer.model.question.bias_correction or PredictiveBiasCorrection()

    def accept(picture: object) -> tuple[dict[str, Any] | None, str]:
        """Replace an upload by a picture that the browser keeps."""
        try:
            taken = Picture.take(picture, uploads)
            return (taken.shown(), '') if taken else (None, '')
        except (ValueError, OSError) as error:
            return None, failed(error)

    def run(
        picture: object, words: object, unseen: object, others: object, pbc: object, gamma: object, windows: object
    ) -> tuple[Any, ...]:
        """Return overlay, shares, proposals and status of a picture."""
        try:
            taken = Picture.take(picture, uploads)
            settings = checked(words, unseen, others, pbc, gamma, windows)
            pixels = taken.pixels() if taken else None
            with busy or nullcontext():
                result = segment(inferencer, pixels, *settings)
        except (ValueError, OSError) as error:
            return None, table(SHARES), table(PROPOSALS), failed(error)
        overlay, note = png_value(result.overlay, 'overlay.png')
        status = lines([*result.status, note] if note else result.status)
        return overlay, table(SHARES, result.shares), table(PROPOSALS, result.proposals), status

    def choose(event: gr.EventData) -> tuple[dict[str, Any], str]:
        """Return the scene that was clicked."""
        return scene(event._data.get('scene') if isinstance(event._data, dict) else 0), ''

    with gr.Blocks(title='AlignZeg', analytics_enabled=False) as page:
        gr.Markdown(
            '# AlignZeg\nSegment any picture into any words. This model was trained on labels of '
            f'{len(vocabulary.seen_classes)} classes ({abridged(vocabulary.seen_classes)}); other words are unseen. '
            'Pictures are not kept.'
        )
        with gr.Row():
            with gr.Column():
                picture = gr.Image(
                    label='Picture', sources=['upload', 'clipboard'], height=300, buttons=[], elem_classes='picture'
                )
                scenes = None
                if set(vocabulary.classes) <= set(CLASSES):
                    picture.value = scene(0)
                    scenes = gr.HTML(thumbnails(), js_on_load=ON_CLICK)
                words = gr.Textbox(
                    label='Words',
                    info=f'Separated by commas. Empty: the {len(vocabulary.classes)} classes of the model.',
                    placeholder=', '.join(vocabulary.classes[:3]),
                    max_lines=4,
                )
                button = gr.Button('Segment', variant='primary')
                status = gr.HTML(elem_classes='status')
                others = gr.Checkbox(label='others', info='Add a class for pixels that fit none of the words.')
                pbc = gr.Checkbox(
                    has_indicator,
                    label='PBC (predictive bias correction)',
                    info='Removes trained words from regions that look unseen.'
                    if has_indicator
                    else 'This model was trained without it.',
                    interactive=has_indicator,
                )
                gamma = gr.Slider(
                    0.05,
                    1,
                    max(0.05, correction.gamma),
                    step=0.05,
                    label='γ of PBC',
                    info='A region looks unseen if its unseen score is above γ.',
                    interactive=has_indicator,
                )
                unseen = gr.Textbox(
                    label='Unseen words',
                    info='The words that PBC treats as unseen. Empty: all that the model was not trained on.',
                    max_lines=4,
                )
                windows = gr.Checkbox(
                    label='full resolution',
                    info='Predict a large picture in overlapping windows; slower. Otherwise, it is scaled down.',
                )
            with gr.Column():
                overlay = gr.Image(
                    label='Result', interactive=False, buttons=['download', 'fullscreen'], elem_classes='result'
                )
                shares = gr.Dataframe(label='Shares of the picture', **columns(SHARES))
                proposals = gr.Dataframe(
                    label=f'Proposals, the best {SHOWN_PROPOSALS}; they may overlap', **columns(PROPOSALS)
                )

        raw: dict[str, Any] = dict(preprocess=False, postprocess=False)
        picture.upload(accept, picture, [picture, status], api_visibility='undocumented', show_progress='hidden', **raw)
        if scenes is not None:
            scenes.click(choose, None, [picture, status], api_visibility='private', show_progress='hidden', **raw)
        gr.on(
            [button.click, words.submit, unseen.submit],
            run,
            [picture, words, unseen, others, pbc, gamma, windows],
            [overlay, shares, proposals, status],
            api_name='segment',
            concurrency_limit=1,
            **raw,
        ).then(None, js=TO_RESULT)

    async def refuse_foreign(path: str) -> str:
        """Replace gradio's method, which would download any link that a client sends as a picture."""
        if path not in uploads.files:
            raise gr.Error(f'The picture {GONE}.', print_exception=False)
        return path

    for block in page.blocks.values():
        vars(block)['async_move_resource_to_block_cache'] = refuse_foreign
    page._queue = FairQueue(page, uploads.sweep)
    return page


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


def scene(number: object) -> dict[str, Any]:
    """Return one of ``SCENES`` for gradio's ``Image``; the first one if ``number`` is not a valid index."""
    i = number if isinstance(number, int) and 0 <= number < len(SCENES) else 0
    return png_value(draw_scene(*SCENES[i])[0], f'scene_{i}.png')[0]


def thumbnails() -> str:
    """Return the HTML of the buttons that show the scenes."""
    buttons = (
        f'<button type="button" data-scene="{i}"><img src="{scene(i)["url"]}" alt="example {i + 1}"></button>'
        for i in range(len(SCENES))
    )
    return f'<div class="scenes"><span>Or an example:</span>{"".join(buttons)}</div>'


def columns(headers: list[str]) -> dict[str, Any]:
    """Return the arguments of a read-only ``Dataframe``."""
    widths = ['34%', '20%', '24%', '22%'] if len(headers) == 4 else ['50%', '25%', '25%']
    return dict(
        headers=headers,
        column_count=len(headers),
        column_widths=widths,
        interactive=False,
        buttons=[],
        max_height=400,
        wrap=True,
    )


def table(headers: list[str], rows: list[Any] | None = None) -> dict[str, Any]:
    """Return the value of a ``Dataframe``."""
    return {'headers': headers, 'data': rows or [], 'metadata': None}


def lines(texts: list[str], kind: str = 'done') -> str:
    """Return status lines as HTML, escaped, because they may contain words that a client sent."""
    return ''.join(f'<p class="{kind}" role="status">{html.escape(text)}</p>' for text in texts)


def failed(error: Exception) -> str:
    """Return the status line of an error, with arguments named as on the page."""
    text = ' '.join(f'Not done: {error}'.split())
    return lines([text.replace('`classes`', '“Words”').replace('`unseen`', '“Unseen words”')], 'error')
