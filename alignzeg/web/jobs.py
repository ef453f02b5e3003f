"""The queue of prediction requests, with a limit per client."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException
from gradio.blocks import Blocks
from gradio.queueing import Queue
from gradio.utils import run_coro_in_background

from .limits import client_of

WAITING = 8  # requests; further ones are refused
OF_ONE_CLIENT = 3  # waiting or running
UNREAD, UNREAD_OF_ONE_CLIENT = 24, 8  # answers that nobody has fetched; each contains a picture
UNREAD_SECONDS = 120  # until such answers are dropped
EVERY = 20  # seconds between two clean-ups
SESSION = re.compile(r'[\w-]{1,64}', re.ASCII)
RECORDS = 100  # requests for which gradio keeps statistics


@dataclass
class Job:
    """A request, from its acceptance until its answer is fetched.

    Attributes:
        client: The client that sent it.
        session: gradio's name for the browser tab.
        done: When it was first found to be done, by the queue's clock; None before.
    """

    client: str
    session: str
    done: float | None = None


class FairQueue(Queue):
    """gradio's queue with limits per client, and with unread answers dropped after a time.

    gradio's own queue has one limit for all clients, and keeps answers until somebody fetches them.

    Args:
        blocks: The page.
        also: Called with every periodic clean-up.
        clock: Returns the time in seconds.
    """

    def __init__(
        self, blocks: Blocks, also: Callable[[], None] = lambda: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(
            live_updates=True,
            concurrency_count=blocks.max_threads,
            update_intervals=1,
            max_size=WAITING,
            blocks=blocks,
            default_concurrency_limit=1,
        )
        self.also, self.clock = also, clock
        self.jobs: dict[str, Job] = {}  # by event
        self.ANALYTICS_MAX_EVENTS = RECORDS

    def start(self) -> None:
        """Start the queue and the periodic clean-up."""
        super().start()
        run_coro_in_background(self._keep_looking)

    async def push(self, body: Any, request: Any, username: str | None) -> Any:
        """Accept a request; arguments and result are gradio's.

        Raises:
            HTTPException: 400 for an invalid session name, 429 if the client, or all together, exceed a limit.
        """
        if body.session_hash is not None and not SESSION.fullmatch(body.session_hash):
            raise HTTPException(400, 'The name of the session is not valid: at most 64 letters and digits.')
        client = client_of(request.client.host if request.client else None)
        self.look()
        self._check_room(client)
        if len(self) >= WAITING:
            raise HTTPException(429, 'Too many requests are waiting: try again in a minute.')
        success, event, state = await super().push(body, request, username)
        if success and isinstance(event, str):
            self.jobs[event] = Job(client, body.session_hash)
        return success, event, state

    def _check_room(self, client: str) -> None:
        own = [job for job in self.jobs.values() if job.client == client]
        if sum(job.done is None for job in own) >= OF_ONE_CLIENT:
            raise HTTPException(429, f'{OF_ONE_CLIENT} of your requests are waiting: wait for their answers.')
        if len(own) >= UNREAD_OF_ONE_CLIENT:
            raise HTTPException(429, f'{len(own)} answers wait for you: fetch them first.')
        if len(self.jobs) >= UNREAD:
            raise HTTPException(429, 'This page holds too many answers: try again in a few minutes.')

    def look(self) -> None:
        """Remove jobs whose answers were fetched, answers that nobody fetched in time, and empty sessions."""
        now = self.clock()
        for event, job in list(self.jobs.items()):
            waiting = self.pending_event_ids_session.get(job.session, set())
            if event not in waiting:
                del self.jobs[event]
            elif event not in self.event_ids_to_events:
                job.done = now if job.done is None else job.done
                if now - job.done > UNREAD_SECONDS:
                    waiting.discard(event)
                    del self.jobs[event]
                    self._drop_answer(job.session, event)
        for session in [session for session, events in self.pending_event_ids_session.items() if not events]:
            del self.pending_event_ids_session[session]
            self.pending_messages_per_session.pop(session, None)

    def _drop_answer(self, session: str, event: str) -> None:
        if session in self.pending_messages_per_session:
            messages = self.pending_messages_per_session[session]
            for _ in range(messages.qsize()):
                message = messages.get_nowait()
                if message.event_id != event:
                    messages.put_nowait(message)

    async def _keep_looking(self) -> None:
        while not self.stopped:
            await asyncio.sleep(EVERY)
            self.look()
            self.also()
