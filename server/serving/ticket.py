"""One request in the queue, and the parts of requests that make up a batch."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter

from mass_serve.engine import AnyAnswer, AnyQuery, ServingEngine, TextQuery, unsplit
from mass_serve.server.errors import NotFiniteError, ServiceError
from mass_serve.server.serving.fair_queue import Turn
from mass_serve.server.serving.request_context import Batch


@dataclass(eq=False)
class Ticket:
    """One request's places in the queue. Times are of `time.monotonic`."""

    engine: ServingEngine
    size: int  # in places of the queue; an input that several tasks answer counts as often
    deadline: float
    turn: Turn
    decode_cost: float = 0.0  # the seconds of decoders that its inputs are expected to take still
    waiting: int = field(init=False)  # places of what was not yet taken to the device
    awaited: int = 0  # how many answers complete it
    future: Future[list[AnyAnswer]] = field(default_factory=Future)
    submitted: float = 0.0
    answers: list[AnyAnswer] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    stage_seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.waiting = self.size

    @property
    def is_submitted(self) -> bool:
        """Tells whether its size is known."""
        return self.awaited > 0

    def submit(self, queries: int, size: int) -> None:
        """Takes the size that it has, for what was guessed, and what it is to be answered with."""
        self.decode_cost = 0.0
        self.awaited = queries
        self.size = self.waiting = size

    def fail(self, error: ServiceError) -> None:
        """Answers with an error, unless there is an answer or nobody waits any more."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)

    def extend(
        self, answers: Sequence[AnyAnswer | None], batch: Batch, stage_seconds: dict[str, float]
    ) -> None:
        """Takes the answers to the next inputs; the last ones complete the request, one of None fails it."""
        self.batches.append(batch)
        finite = [answer for answer in answers if answer is not None]
        if len(finite) < len(answers):
            self.fail(NotFiniteError("The model's output for an input is not finite; send another one."))
        self.answers.extend(finite)
        for stage, seconds in stage_seconds.items():
            self.stage_seconds[stage] = self.stage_seconds.get(stage, 0.0) + seconds
        if len(self.answers) == self.awaited:
            with suppress(InvalidStateError):
                self.future.set_result(self.answers)


@dataclass(frozen=True)
class Share:
    """The part of a ticket that goes into one batch."""

    ticket: Ticket
    queries: Sequence[AnyQuery]


def tokens_of(queries: Sequence[AnyQuery]) -> int:
    """Returns the tokens that texts have together; images have none."""
    return sum(len(query.words) for query in queries if isinstance(query, TextQuery))


def size_of(queries: Sequence[AnyQuery]) -> int:
    """Returns the places that queries take: one for an image, one for each token of a text."""
    return sum(len(query.words) if isinstance(query, TextQuery) else 1 for query in queries)


def halves(shares: Sequence[Share]) -> list[list[Share]]:
    """Splits a batch into two with the same inputs in the same order; into one where it cannot be split."""
    runs = [(share.ticket, run) for share in shares for run in unsplit(share.queries)]
    middle = len(runs) // 2
    return [_regrouped(half) for half in (runs[:middle], runs[middle:]) if half]


def _regrouped(runs: Sequence[tuple[Ticket, Sequence[AnyQuery]]]) -> list[Share]:
    of_tickets = groupby(runs, key=itemgetter(0))
    return [
        Share(ticket, [query for _, run in of_ticket for query in run]) for ticket, of_ticket in of_tickets
    ]
