"""The page itself: gradio's fields for the question, and the script ``page.js``, which shows the answers."""

from __future__ import annotations

import html
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from mmseg_alignzeg.datasets.patterns import CLASSES, draw_scene
from mmseg_alignzeg.models import PredictiveBiasCorrection
from mmseg_alignzeg.vocabulary import abridged

from ..apis import AlignZegInferencer
from .answers import Answers
from .jobs import FairQueue
from .pictures import png_url
from .uploads import GONE, Uploads

SCENES = ((2, 42), (2, 1), (2, 60), (2, 67))  # world seed and number; in the last one, PBC changes most

# The fonts of the system: gradio's own files lack most bold letters. Its hints, and white on its orange, are too pale.
THEME = gr.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace']).set(
    block_info_text_color='*neutral_500',
    block_info_text_color_dark='*neutral_300',
    button_primary_background_fill='*primary_700',
    button_primary_background_fill_dark='*primary_700',
    button_primary_background_fill_hover='*primary_800',
    button_primary_background_fill_hover_dark='*primary_800',
)
CSS, SCRIPT, PICTURES, RESULTS = (
    Path(__file__).with_name(name).read_text(encoding='utf-8')
    for name in ('page.css', 'page.js', 'pictures.html', 'results.html')
)


def build_page(
    inferencer: AlignZegInferencer,
    uploads: Uploads,
    busy: AbstractContextManager[Any] | None = None,
) -> gr.Blocks:
    """Build the page; :func:`serving` serves it.

    The browser keeps the pictures, and asks about one at a time. Handlers receive and return the raw JSON values
    (``preprocess=False``), because gradio's own conversions of pictures write files. So the handlers must accept values
    of any type from a client.

    Args:
        inferencer: The model.
        uploads: The store of the upload route, which other programs use.
        busy: Held during each prediction: one at a time.
    """
    vocabulary = inferencer.model.vocabulary
    has_indicator = inferencer.model.class_indicator is not None
    correction = inferencer.model.question.bias_correction
    has_scenes = set(vocabulary.classes) <= set(CLASSES)
    answers = Answers(inferencer, uploads, busy)

    with gr.Blocks(title='AlignZeg', analytics_enabled=False) as page:
        gr.Markdown(
            '# AlignZeg\nSegment any picture into any words. This model was trained on labels of '
            f'{len(vocabulary.seen_classes)} classes ({abridged(vocabulary.seen_classes)}); other words are unseen. '
            'Pictures are not stored on disk. A picture, and what the model saw in it, stay in memory until they have '
            'been unused for ten minutes.'
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=300, elem_classes='az-question'):
                gr.HTML(
                    PICTURES.replace('EXAMPLES', thumbnails() if has_scenes else ''),
                    js_on_load=None,
                    apply_default_css=False,
                )
                words = gr.Textbox(
                    label='Words',
                    info=f'Separated by commas. Empty: the {len(vocabulary.classes)} classes of the model.',
                    placeholder=', '.join(vocabulary.classes[:3]),
                    max_lines=4,
                )
                button = gr.Button('Segment', variant='primary')
                others = gr.Checkbox(
                    has_scenes, label='others', info='Add a class for pixels that fit none of the words.'
                )
                pbc = gr.Checkbox(
                    correction is not None,
                    label='PBC (predictive bias correction)',
                    info='Removes trained words from regions that look unseen.'
                    if has_indicator
                    else 'This model was trained without it.',
                    interactive=has_indicator,
                )
                gamma = gr.Slider(
                    0.05,
                    1,
                    max(0.05, (correction or PredictiveBiasCorrection()).gamma),
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
            with gr.Column(scale=3, min_width=300):
                results = gr.HTML(
                    html_template=RESULTS,
                    js_on_load=SCRIPT,
                    apply_default_css=False,
                    most_bytes=uploads.most_bytes,
                )
        # Values of other programs; the script sends its own in their place.
        picture, seen, number = gr.Image(visible=False), gr.Textbox('', visible=False), gr.Number(0, visible=False)

        for changed, milliseconds in (((words, unseen), 400), ((others, pbc, gamma, windows), 50)):
            gr.on([field.change for field in changed], js=f'() => window.alignzeg?.ask({milliseconds})')
        gr.on([button.click, words.submit, unseen.submit], js='() => window.alignzeg?.ask(0, true)')
        results.submit(
            answers.answer,
            [picture, words, unseen, others, pbc, gamma, windows, seen, number],
            results,
            js='(...values) => window.alignzeg.sent(values)',
            api_name='segment',
            concurrency_limit=1,
            trigger_mode='always_last',
            show_progress='hidden',
            preprocess=False,
            postprocess=False,
        ).failure(js='() => window.alignzeg.refused()')

    async def refuse_foreign(path: str) -> str:
        """Replace gradio's method, which would download any link that a client sends as a picture."""
        if path not in uploads.files:
            raise gr.Error(f'The picture {GONE}.', print_exception=False)
        return path

    for block in page.blocks.values():
        vars(block)['async_move_resource_to_block_cache'] = refuse_foreign

    page._queue = FairQueue(page, answers.clean_up)
    return page


def thumbnails() -> str:
    """Return the HTML of the buttons that choose the scenes."""
    buttons = []
    for i, scene in enumerate(SCENES):
        image, labels = draw_scene(*scene)
        names = ', '.join(CLASSES[label] for label in np.unique(labels).tolist() if label < len(CLASSES))
        name = html.escape(f'Example {i + 1}: {names}')
        buttons.append(f'<button type="button" data-example="{i + 1}" title="{name}" aria-pressed="false">'
                       f'<img src="{png_url(image)[0]}" alt="{name}"></button>')  # fmt: skip
    return f'<p id="examples">Or an example:</p><div role="group" aria-labelledby="examples">{"".join(buttons)}</div>'
