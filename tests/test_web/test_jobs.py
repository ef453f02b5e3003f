"""The queue's shares, without a server."""

import asyncio
from types import SimpleNamespace

import gradio as gr
import pytest
from fastapi import HTTPException
from gradio.data_classes import PredictBodyInternal
from gradio.server_messages import ProcessCompletedMessage

from alignzeg.web.jobs import OF_ONE_CLIENT, UNREAD, UNREAD_OF_ONE_CLIENT, UNREAD_SECONDS, WAITING, FairQueue


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def queue():
    with gr.Blocks(analytics_enabled=False) as blocks:
        button = gr.Button()
        button.click(lambda: None, None, None, api_name='do')
    return FairQueue(blocks, clock=Clock())


def push(queue, client='10.0.0.1', session=None):
    """The event of a request that was taken."""
    body = PredictBodyInternal(data=[], fn_index=next(iter(queue.blocks.fns)), session_hash=session)
    request = SimpleNamespace(client=SimpleNamespace(host=client))
    success, event, _ = asyncio.run(queue.push(body, request, None))
    assert success
    return event


def finish(queue, event):
    """What gradio does when a request is done."""
    job = queue.event_ids_to_events.pop(event)
    next(iter(queue.event_queue_per_concurrency_id.values())).queue.remove(job)
    queue.send_message(job, ProcessCompletedMessage(output={'data': ['x' * 1000]}, success=True))


def refused(queue, *arguments):
    with pytest.raises(HTTPException) as error:
        push(queue, *arguments)
    return error.value.status_code


def test_one_client_cannot_take_the_queue(queue):
    for _ in range(OF_ONE_CLIENT):
        push(queue)
    assert refused(queue) == 429
    for i in range(WAITING - OF_ONE_CLIENT):
        push(queue, f'10.0.1.{i}')
    assert refused(queue, '10.0.2.1') == 429


def test_answers_that_nobody_fetches_are_limited_and_dropped(queue):
    for _ in range(UNREAD_OF_ONE_CLIENT):
        finish(queue, push(queue, session='one'))
    assert refused(queue) == 429
    for i in range(UNREAD - UNREAD_OF_ONE_CLIENT):
        finish(queue, push(queue, f'10.0.1.{i}'))
    assert refused(queue, '10.0.2.1') == 429
    queue.look()
    queue.clock.now += UNREAD_SECONDS + 1
    live = push_after_look(queue)
    messages = queue.pending_messages_per_session['one']
    kinds = [messages.get_nowait() for _ in range(messages.qsize())]
    assert not any(isinstance(message, ProcessCompletedMessage) for message in kinds)
    assert set(queue.jobs) == {live} and set(queue.pending_event_ids_session) == {'one'}
    assert list(queue.pending_messages_per_session) == ['one']


def push_after_look(queue):
    """A request in the same session as the old ones, which keeps it alive."""
    return push(queue, '10.0.3.1', 'one')


def test_what_was_fetched_leaves_nothing(queue):
    for i in range(3 * UNREAD):
        event = push(queue, session=f's{i}')
        finish(queue, event)
        queue.pending_event_ids_session[f's{i}'].remove(event)  # as gradio does when the browser has it
    queue.look()
    assert not queue.jobs and not queue.pending_event_ids_session and not queue.pending_messages_per_session
    assert len(queue.event_analytics) <= 100


@pytest.mark.parametrize('session', ['', 'x' * 65, 'a b', '../a', 'ä'])
def test_names_of_sessions(queue, session):
    assert refused(queue, '10.0.0.1', session) == 400
