"""The queue before the device, and the one thread that owns it.

    ticket = batcher.admit(engine, size=2, deadline=time.monotonic() + 30, turn=caller.turn())
    batcher.submit(ticket, [Query(first), Query(second)])
    answers = ticket.future.result()

A request takes its places in the ledger before its inputs are decoded (`admit`), hands the decoded ones over
(`submit`) and waits on the ticket's future. An image has one place, a text one for each of its tokens, which
are guessed until they are known. Batches are filled in the fair order, input by input, so that large and
small requests share them, whatever their tasks, because they share the backbone. An input that several tasks
answer counts as one for each; inputs whose evidence is pooled stay together. Batches are not shared across
engines: a request is answered by the engine it was admitted for, also when another has taken its place.
Nothing that is expired or abandoned reaches the device. A batch that does not fit the memory is tried again
in halves; one that fails otherwise fails every ticket in it, at once; a dead or hung worker fails every
ticket there is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import structlog
import torch

from mass_serve.engine import (
    AnyAnswer,
    AnyQuery,
    BatchReport,
    DeviceLostError,
    ServingEngine,
    release_cached_memory,
    unsplit,
)
from mass_serve.model_store.errors import StoreError
from mass_serve.server.errors import (
    BatchFailedError,
    DeadlineError,
    DrainingError,
    NoMemoryError,
    QueueFullError,
    WorkerDiedError,
)
from mass_serve.server.serving.admission import Ledger, Ledgers
from mass_serve.server.serving.caller import Caller
from mass_serve.server.serving.fair_queue import FairQueue, Turn
from mass_serve.server.serving.observer import ServingObserver
from mass_serve.server.serving.request_context import Batch
from mass_serve.server.serving.ticket import Share, Ticket, halves, size_of, tokens_of

# An idle device waits so long for those who are about to be ready: what a batch takes, however small, is paid
# once then, and its thread takes the interpreter from the loop, which makes them ready, less often.
COMPANY_SECONDS = 0.01

# Takes an engine, what it was asked in one batch, and what it has answered.
Answered = Callable[[ServingEngine, Sequence[AnyQuery], Sequence[AnyAnswer | None]], None]

log = structlog.get_logger(__name__)


class Batcher:
    """Owns the queue and the worker thread. Every method may be called from any thread."""

    def __init__(
        self,
        observer: ServingObserver,
        ledgers: Ledgers,
        *,
        max_batch_images: int,
        max_batch_tokens: int,
        max_batch_seconds: float,
        batch_delay: float = 0.0,
        answered: Answered | None = None,
    ) -> None:
        """`answered` is told of each batch on the device's thread, once its callers have their answers."""
        self._observer = observer
        self._answered = answered
        self._ledgers = ledgers
        self._max_batch_images = max_batch_images
        self._max_batch_tokens = max_batch_tokens
        self._max_batch_seconds = max_batch_seconds
        self._batch_delay = batch_delay
        self._changed = threading.Condition(threading.RLock())
        self._queue = FairQueue[list[AnyQuery]](time.monotonic)  # in runs that no batch splits
        self._queued: dict[Turn, Ticket] = {}  # those in the queue, in the order in which they came
        # Those that are being made ready and that an idle device waits for, which it does once.
        self._coming: set[Ticket] = set()
        self._closing = False
        self._died: BaseException | None = None
        self._batch_began: float | None = None  # None while the device is idle
        self._worker = threading.Thread(target=self._run, name="device", daemon=True)
        self._worker.start()

    @property
    def died(self) -> bool:
        """Tells whether the worker is gone for good."""
        return self._died is not None

    @property
    def running(self) -> bool:
        """Tells whether the worker has not ended yet."""
        return self._worker.is_alive()

    @property
    def is_idle(self) -> bool:
        """Tells whether nothing is on the device and nothing waits for it; asked without the lock."""
        return self._batch_began is None and not self._queued

    @property
    def oldest_seconds(self) -> float:
        """For how long the oldest request has waited for the device; 0 where none does."""
        with self._changed:
            since = min((ticket.submitted for ticket in self._queued.values()), default=None)
        return 0.0 if since is None else time.monotonic() - since

    @property
    def batch_seconds(self) -> float:
        """For how long the batch on the device has been running; 0 where there is none."""
        began = self._batch_began
        return 0.0 if began is None else time.monotonic() - began

    def refuse_when_full(self, caller: Caller, engine: ServingEngine | None) -> None:
        """Raises QueueFullError when nothing of this caller would be admitted for that engine now."""
        with self._changed:
            self._ledgers.of(engine).refuse_when_full(caller)

    def places(self, engine: ServingEngine | None) -> tuple[int, int]:
        """How many places of what an engine reads are taken, and how many there are."""
        with self._changed:
            ledger = self._ledgers.of(engine)
            return ledger.waiting, ledger.places

    def admit(
        self, engine: ServingEngine, size: int, deadline: float, turn: Turn, decode_cost: float = 0.0
    ) -> Ticket:
        """Takes places for all inputs of a request, or none; decoding them should take `decode_cost` seconds.

        Raises QueueFullError, DrainingError or WorkerDiedError. Cancelling the future gives the places back.
        """
        ticket = Ticket(engine, size, deadline, turn, decode_cost)
        with self._changed:
            if self._died is not None:
                raise WorkerDiedError("The server has lost its device and is restarting; try again.")
            if self._closing:
                raise DrainingError("The server is shutting down; send the request to another one.")
            for leaving in self._ledgers.of(engine).admit(ticket):
                leaving.fail(
                    QueueFullError("The queue is full and others have less of it than you; try again.")
                )
            self._coming.add(ticket)
        ticket.future.add_done_callback(lambda _: self._forget(ticket))
        return ticket

    def submit(self, ticket: Ticket, queries: Sequence[AnyQuery], spared: int = 0) -> None:
        """Hands over the inputs of an admitted ticket, whose size is known by now.

        Others of its inputs, of `spared` places, are answered already.
        """
        size = size_of(queries)
        with self._changed:
            self._ledgers.of(ticket.engine).size_was(ticket.size, size + spared)
            ticket.submit(len(queries), size)
            self._coming.discard(ticket)
            if ticket.future.done():
                return
            ticket.submitted = time.monotonic()
            self._queued[ticket.turn] = ticket
            for run in unsplit(queries):
                self._queue.push(ticket.turn, run, cost=float(size_of(run)))
            self._wake()

    def decode_took(self, ledger: Ledger, cost: float, seconds: float) -> None:
        """Learns how long an input took to be ready, of which `cost` seconds were expected."""
        with self._changed:
            ledger.decode_took(cost, seconds)

    def fail_if_hung(self, limit_seconds: float) -> None:
        """Gives the worker up, and all that wait, when one batch has taken longer than the limit."""
        began = self._batch_began
        if not self.died and began is not None and time.monotonic() - began > limit_seconds:
            self._die(TimeoutError(f"a batch has not ended in {limit_seconds:g} seconds"))

    def give_up(self, error: BaseException) -> None:
        """Fails all that wait, where it is known elsewhere that the device will not answer again."""
        if not self.died:
            self._die(error)

    def close(self, timeout: float) -> bool:
        """Admits no more, answers what was admitted, and ends the worker; False if that took too long."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if not self.died:  # a hung one would use up all of the timeout
            self._worker.join(timeout)
        return not self._worker.is_alive()

    def _forget(self, ticket: Ticket) -> None:
        """Gives back what a ticket holds, once it is answered or abandoned."""
        with self._changed:
            self._ledgers.of(ticket.engine).forget(ticket)
            self._queue.discard(ticket.turn)
            self._queued.pop(ticket.turn, None)
            self._coming.discard(ticket)
            self._wake()

    def _wake(self) -> None:
        """Wakes the worker where it has something to do, which takes the interpreter from all others."""
        # The first that waits sets its clock.
        if self._closing or len(self._queued) == 1 or (self._queued and self._fill_delay() <= 0):
            self._changed.notify_all()

    def _run(self) -> None:
        """Works batch after batch, until closed and empty; the worker's thread runs this."""
        torch.get_num_threads()  # settles this thread's share before a load lowers it for a moment
        try:
            while shares := self._next_batch():
                self._answer(shares)
        # Even SystemExit must not leave anyone waiting.
        except BaseException as error:
            self._die(error)

    def _next_batch(self) -> list[Share]:
        """Waits for work and takes as much as fits a batch; empty when closed and all is answered."""
        with self._changed:
            while True:
                self._drop_expired()
                if self._queued and (delay := self._fill_delay()) <= 0:
                    self._coming.clear()  # a decode that takes long holds nobody up again
                    return self._take()
                if not self._ledgers.open and self._closing:
                    return []
                self._changed.wait(delay if self._queued else None)

    def _drop_expired(self) -> None:
        """Fails tickets that are past their deadline; those that are abandoned have left by themselves."""
        now = time.monotonic()
        for ticket in list(self._queued.values()):
            if ticket.deadline <= now:
                ticket.fail(DeadlineError("The answer took too long; send fewer inputs or try again later."))

    def _fill_delay(self) -> float:
        """Returns how long the oldest ticket may still wait for company, in seconds."""
        patience = max(self._batch_delay, COMPANY_SECONDS if self._coming else 0.0)
        delay = next(iter(self._queued.values())).submitted + patience - time.monotonic()
        if delay <= 0 or self._closing:
            return 0.0
        filled = sum(one.waiting / self._max_batch(one.engine) for one in self._queued.values())
        return delay if filled < 1.0 else 0.0

    def _max_batch(self, engine: ServingEngine) -> int:
        return self._max_batch_images if engine.tokenizer is None else self._max_batch_tokens

    def _take(self) -> list[Share]:
        """Takes a batch in the fair order, of all that the engine of the first ticket answers."""
        first = self._queue.first()
        assert first is not None
        engine = self._queued[first].engine
        # Whoever comes while a batch runs waits for all of it.
        in_time = self._ledgers.of(engine).places_within(self._max_batch_seconds)
        most = int(min(self._max_batch(engine), max(1, in_time)))
        taken: dict[Ticket, list[AnyQuery]] = {}
        for turn, run in self._queue.take(most, lambda turn: self._queued[turn].engine is engine, size_of):
            taken.setdefault(self._queued[turn], []).extend(run)
        for ticket, queries in taken.items():
            if ticket.waiting == ticket.size:
                ticket.stage_seconds["queue"] = time.monotonic() - ticket.submitted
            ticket.waiting -= size_of(queries)
            if not ticket.waiting:
                del self._queued[ticket.turn]
        return [Share(ticket, queries) for ticket, queries in taken.items()]

    def _answer(self, shares: Sequence[Share]) -> None:
        """Runs one batch, in halves where it cannot run as a whole, and hands every ticket its part."""
        pending = [list(shares)]
        while pending:
            part = pending.pop()
            if self._run_batch(part):
                continue
            release_cached_memory()  # in pieces of other sizes than a smaller batch has
            smaller = halves(part)
            if len(smaller) > 1:
                pending.extend(reversed(smaller))
            else:
                part[0].ticket.fail(_no_memory(len(part[0].queries)))

    def _run_batch(self, shares: Sequence[Share]) -> bool:
        """Runs the shares as one batch and answers their tickets, with errors where the engine raised.

        Returns False where the device ran out of memory, and where a task that one of several requests needs
        cannot be read from the store again: then no ticket is answered. Raises what the engine
        raised where the device is lost for every later batch too.
        """
        queries = [query for share in shares for query in share.queries]
        try:
            report = self._on_the_device(shares[0].ticket.engine, queries)
        except DeviceLostError:
            raise  # no batch is to blame
        except Exception as error:
            if is_out_of_memory(error):
                log.warning("out of memory", inputs=len(queries))
                return False
            if isinstance(error, StoreError) and len(shares) > 1:
                log.exception("a task cannot be read: the batch runs in halves", inputs=len(queries))
                return False
            log.exception("batch failed", inputs=len(queries))
            for share in shares:
                share.ticket.fail(_batch_failed(error))
            if is_device_lost(error):
                raise
            return True
        self._observer.batch_ran(report, tokens_of(queries))
        answers, batch = iter(report.answers), Batch()
        for share in shares:
            share.ticket.extend([next(answers) for _ in share.queries], batch, report.stage_seconds)
        if self._answered is not None:
            self._answered(shares[0].ticket.engine, queries, report.answers)
        return True

    def _on_the_device(self, engine: ServingEngine, queries: Sequence[AnyQuery]) -> BatchReport:
        """Runs the engine, and meanwhile shows since when and with how much it is busy."""
        ledger, size = self._ledgers.of(engine), size_of(queries)
        with self._changed:
            ledger.on_device = size
        self._batch_began = began = time.monotonic()
        try:
            report = engine.classify_batch(queries)
            if len(report.answers) != len(queries):
                raise ValueError(f"{len(queries)} queries gave {len(report.answers)} answers")
        finally:
            self._batch_began = None
            with self._changed:
                ledger.on_device = 0
        with self._changed:
            ledger.device_took(size, time.monotonic() - began)
        return report

    def _die(self, error: BaseException) -> None:
        """Fails everything that waits, decoded or not."""
        log.error("worker died", error=repr(error))
        with self._changed:
            self._died = error
            tickets = self._ledgers.open
        for ticket in tickets:
            ticket.fail(
                WorkerDiedError("The server lost its device on this request and is restarting; try again.")
            )


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether the device had no memory for a batch."""
    # On a CPU torch has no type of its own for it, only the words of its allocator.
    cpu_allocator_failed = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or cpu_allocator_failed


def _no_memory(inputs: int) -> NoMemoryError:
    """Returns the error for inputs that do not fit the memory and cannot be split."""
    if inputs == 1:
        return NoMemoryError("The server has no memory left for this input; try again later.")
    return NoMemoryError(
        f"The server has no memory left for {inputs} inputs of the same_task at once; send fewer."
    )


def _batch_failed(error: Exception) -> BatchFailedError:
    """Makes a fresh exception for each ticket, because raising one changes it."""
    said = "The engine failed on this request's batch; try again."
    if isinstance(error, StoreError):  # another try reads the same file
        said = "A task of this request cannot be read from its store any more: tell whoever runs the server."
    failure = BatchFailedError(said)
    failure.__cause__ = error
    return failure


def is_device_lost(error: BaseException) -> bool:
    """Tells whether every later batch would fail too: CUDA words lasting errors so, but not out-of-memory."""
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)
