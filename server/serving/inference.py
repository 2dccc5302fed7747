"""One request's way through the service: places in the queue, decoding, the device, and its answers.

answers, ready = await inference.run(EncodedImages([data]), Question(), context, ORDINARY, engine)
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from mass_serve.engine import AnyAnswer, AnyQuestion, Question, ServingEngine
from mass_serve.server.errors import DeadlineError
from mass_serve.server.serving.answer_cache import AnswerCache
from mass_serve.server.serving.batcher import Batcher
from mass_serve.server.serving.handover import Handover
from mass_serve.server.serving.observer import ServingObserver
from mass_serve.server.serving.preparing import Prepared, Preparer, refuse_other_inputs
from mass_serve.server.serving.rates import Rates
from mass_serve.server.serving.request_context import EncodedImages, Inputs, RequestContext, Urgency
from mass_serve.server.serving.sizes import check_known_size, checked_size
from mass_serve.server.serving.ticket import Ticket, size_of
from mass_serve.server.serving.token_tasks import asks_of_tokens
from mass_serve.server.settings import Settings

T = TypeVar("T")


class Inference:
    """Takes requests through the parts of a service, on its event loop."""

    def __init__(
        self,
        settings: Settings,
        observer: ServingObserver,
        preparer: Preparer,
        batcher: Batcher,
        cache: AnswerCache,
        rates: Rates,
        hold: Callable[[int, RequestContext], None],
    ) -> None:
        """`hold` counts the bytes that a request is about to take."""
        self._settings = settings
        self._observer = observer
        self._preparer = preparer
        self._batcher = batcher
        self._cache = cache
        self._rates = rates
        self._hold = hold
        self._handover = Handover()

    async def run(
        self,
        inputs: Inputs,
        question: AnyQuestion,
        context: RequestContext,
        urgency: Urgency,
        engine: ServingEngine,
        tells_entities: bool = False,
    ) -> tuple[list[AnyAnswer], Prepared]:
        """Returns the engine's answers to all inputs, and what the inputs have become.

        Places in the queue come first, one for every answer, so that an overloaded server refuses before it
        decodes anything, and no small body asks for much. Raises the errors of `server.errors`.
        """
        context.images = len(inputs)
        refuse_other_inputs(inputs, engine)
        size = checked_size(question, inputs, engine, self._settings)
        placed = isinstance(question, Question) and asks_of_tokens(question, engine, tells_entities)
        self._hold(_copied_bytes(inputs, context), context)
        deadline = min(context.deadline, context.since + (urgency.timeout or math.inf))
        turn = context.caller.turn(urgency.priority)
        files = inputs.files if isinstance(inputs, EncodedImages) else ()
        async with _in_time(context, urgency):
            surveys = await self._preparer.surveys(files, turn)
            cost = self._preparer.cost(inputs, surveys, engine)
            ticket = self._batcher.admit(engine, size, deadline, turn, cost)
            answered = self._handover.future_of(ticket.future)
            try:
                self._rates.take(context.caller, question.answers(len(inputs), engine.tasks))
                self._observer.question_admitted(question)
                engine.prefetch(question.tasks_in_use)
                started = time.monotonic()
                ready = await _unless_refused(
                    self._preparer.prepared(inputs, surveys, engine, turn, placed=placed), answered
                )
                context.stage_seconds["decode"] = time.monotonic() - started
                queries = question.queries(ready.inputs, engine.tasks)
                check_known_size(question, queries, inputs, self._settings)
                recalled = await self._cache.recall(queries, engine, context.caller)
                context.recalled = recalled.count
                found: list[AnyAnswer] = []
                if missing := recalled.missing:
                    self._batcher.submit(ticket, missing, spared=size_of(recalled.spared))
                    found = await answered
                return recalled.completed(found), ready
            finally:
                ticket.future.cancel()  # gives the places back if decoding failed or the caller left
                answered.cancel()  # or an error that nobody awaits any more would be logged
                self._record_stages(ticket, context)

    def _record_stages(self, ticket: Ticket, context: RequestContext) -> None:
        context.stage_seconds.update(ticket.stage_seconds)
        context.batches = ticket.batches
        per_request = ("decode", "queue")  # the batcher counts the other stages once per batch
        spent = context.stage_seconds.items()
        self._observer.stages_took({stage: seconds for stage, seconds in spent if stage in per_request})


@asynccontextmanager
async def _in_time(context: RequestContext, urgency: Urgency) -> AsyncIterator[None]:
    """Raises DeadlineError where the caller's own limit passes; `while_awaited` looks after the server's.

    Parsing, and waiting for it, has taken some of that time.
    """
    if urgency.timeout is None:
        yield
        return
    try:
        async with asyncio.timeout(context.since + urgency.timeout - time.monotonic()):
            yield
    except TimeoutError as error:
        raise DeadlineError.after(urgency.timeout) from error


def _copied_bytes(inputs: Inputs, context: RequestContext) -> int:
    """Returns the memory that inputs take beside the body that they came in, which is counted already."""
    alone = isinstance(inputs, EncodedImages) and len(inputs) == 1
    return 0 if alone and inputs.nbytes == context.body_bytes else inputs.nbytes


async def _unless_refused(work: Coroutine[Any, Any, T], answered: asyncio.Future[Any]) -> T:
    """Returns the result of `work`, or raises at once what the request is answered with meanwhile."""
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait((working, answered), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            answered.result()
        return working.result()
    finally:
        working.cancel()
