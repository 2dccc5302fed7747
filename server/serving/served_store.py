"""The engine in service: loaded in the background, watched for new revisions, replaced without a pause.

One thread does all loading, one load at a time. A new engine is loaded beside the old one and runs an image
before it takes over; requests that were admitted for the old one are still answered by it, and it goes
when the last of them does. A load that fails changes nothing but what readiness, metrics and the log say.
One that hangs (a network file system may do so for ever) cannot be stopped: whoever waits for it is told so,
and when it comes back all goes on.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

import structlog
import torch

from mass_serve.engine import AnyQuery, EngineSource, Query, ServingEngine, TextQuery
from mass_serve.model_store.errors import StoreError
from mass_serve.server.errors import (
    BadRequestError,
    DrainingError,
    LoadHangsError,
    LoadTimeoutError,
    NotFoundError,
    ServiceError,
)
from mass_serve.server.serving.failed_load import FailedLoad
from mass_serve.server.serving.observer import ServingObserver
from mass_serve.server.serving.standing_back import stand_back

# Of hundreds the log names the first.
MOST_TASKS_LOGGED = 20

log = structlog.get_logger(__name__)


@dataclass(frozen=True, eq=False)
class Reload:
    """A load that somebody asked for and may wait for."""

    # From the tasks that are unloaded now to those that shall be.
    without: Callable[[frozenset[str]], frozenset[str]] = lambda unloaded: unloaded
    done: Future[ServingEngine] = field(default_factory=Future)
    asked: float = field(default_factory=time.monotonic)

    def succeed(self, engine: ServingEngine) -> None:
        """Tells who asked of the engine that now serves, unless it was told before that the load hangs."""
        with suppress(InvalidStateError):
            self.done.set_result(engine)

    def fail(self, error: Exception) -> None:
        """Tells who asked that there will be no engine."""
        with suppress(InvalidStateError):
            self.done.set_exception(error)


class Beside(Protocol):
    """What lives beside the engine in service, of the same store."""

    def give_way(self) -> None:
        """Another engine is about to be loaded."""

    def poll(self) -> None:
        """The store was read, and may have changed in other ways, too."""


class ServedStore:
    """The engine in service and the thread that replaces it. Every method may be called from any thread."""

    def __init__(
        self,
        source: EngineSource,
        observer: ServingObserver,
        poll_seconds: float,
        load_timeout: float,
        beside: Beside | None = None,
    ) -> None:
        """`beside` is told of polls and loads, on the loading thread."""
        self.engine: ServingEngine | None = None
        self.unloaded: frozenset[str] = frozenset()
        self.failure: FailedLoad | None = None
        self._source = source
        self._observer = observer
        self._poll_seconds = poll_seconds or None
        self._load_timeout = load_timeout
        self._beside = beside
        self._told_of_hanging = False
        self._poll_waits: Reload | None = None  # among those asked for, not yet begun
        self._busy_since: float | None = None  # None while the store is not read
        self.is_loading = False  # an engine is made, and more than a revision read
        self._open: set[Reload] = set()  # asked for, and not yet done
        self._asked: queue.SimpleQueue[Reload | None] = queue.SimpleQueue()
        self._ended = False
        self._ending = threading.RLock()  # a signal's handler may ask while its own thread does
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    @property
    def running(self) -> bool:
        """Tells whether the loading thread has not ended."""
        return self._thread.is_alive()

    @property
    def load_seconds(self) -> float:
        """For how long the store has been read, by a load or a poll; 0 where it is not."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def oldest_asked_seconds(self) -> float:
        """For how long somebody has waited for a load; 0 where nobody does."""
        since = min((change.asked for change in self._open.copy()), default=None)
        return 0.0 if since is None else time.monotonic() - since

    def start(self) -> None:
        """Begins to load, and then to watch."""
        self._thread.start()

    @property
    def hangs(self) -> bool:
        """Tells whether the store has been read for longer than `load_timeout`."""
        return self.load_seconds > self._load_timeout

    @property
    def trouble(self) -> str | None:
        """Why the newest revision is not the one that serves, in words; None where it is."""
        if self.hangs:
            # The same words for as long as it lasts: whoever follows this sees nothing new in it.
            seconds = f"{self._load_timeout:g} seconds"
            return f"The store has not answered for more than {seconds}; check where it lies."
        return None if self.failure is None else str(self.failure.error)

    def check(self) -> None:
        """Notices a load that hangs; whoever keeps time calls this now and then."""
        if not self.hangs:
            self._told_of_hanging = False
        elif not self._told_of_hanging:
            self._told_of_hanging = True
            self._give_up_waiting()

    def _give_up_waiting(self) -> None:
        """Says that a load hangs, to the log and to all who wait for one."""
        if self.engine is not None:
            log.error("loading hangs, the old revision serves on", seconds=round(self.load_seconds))
            self._observer.load_failed()
        with self._ending:
            self._poll_waits = None
            waiting = self._open.copy()
        for change in waiting:
            change.fail(LoadTimeoutError.after(self._load_timeout))

    def close(self) -> None:
        """Tells the thread to end, and does not wait for it: a load that is under way cannot be stopped."""
        self._asked.put(None)

    def reload(self) -> Future[ServingEngine]:
        """Polls the store now. The future gives the engine that then serves, or what went wrong.

        Whoever asks while a poll waits to begin gets that one.
        """
        with self._ending:
            if self._poll_waits is None:
                asked = Reload()
                self._ask(asked)
                if asked.done.done():  # refused
                    return asked.done
                self._poll_waits = asked
            return self._poll_waits.done

    def load_task(self, name: str) -> Future[ServingEngine]:
        """Takes a task back that was unloaded, from the store's newest revision."""
        return self._ask(Reload(lambda unloaded: unloaded - {name}))

    def unload_task(self, name: str) -> Future[ServingEngine]:
        """Serves without a task, which stays in the store. Raises NotFoundError and BadRequestError."""
        engine = self.engine
        if engine is None or name not in engine.tasks:
            raise NotFoundError(f"There is no task {name[:80]!a} in service.")
        if len(engine.tasks) == 1:
            raise BadRequestError(f"{name!r} is the only task in service; load another one first.")
        return self._ask(Reload(lambda unloaded: unloaded | {name}))

    def _ask(self, change: Reload) -> Future[ServingEngine]:
        with self._ending:
            refusal = self._refusal()
            if refusal is not None:
                change.fail(refusal)
            else:
                self._open.add(change)
                change.done.add_done_callback(lambda _: self._open.discard(change))
                self._asked.put(change)
        return change.done

    def _refusal(self) -> ServiceError | None:
        """Returns why nothing can be asked for now; None where it can."""
        if self._ended:
            return DrainingError("The server is shutting down.")
        if self.hangs:
            return LoadHangsError(
                f"{self.trouble} The old revision serves on, and nothing is loaded until then."
            )
        return None

    def _run(self) -> None:
        with self._reading():
            self._load(Reload())
        stand_back()
        while self.engine is not None:
            try:
                change = self._asked.get(timeout=self._poll_seconds)
            except queue.Empty:
                with self._reading():
                    self._poll()
            else:
                if change is None:
                    break
                with self._ending:
                    if change is self._poll_waits:
                        self._poll_waits = None
                if change.done.done():  # it has waited for a load that hung, and was told so
                    continue
                with self._reading():
                    self._load(change)
        self._refuse_the_rest()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Shows since when the store is being read, and tells of it afterwards."""
        self._busy_since = time.monotonic()
        try:
            yield
        finally:
            self._busy_since = None
        if self._beside is not None:
            self._beside.poll()

    def _refuse_the_rest(self) -> None:
        """Answers everything asked for but not begun, as nobody shall wait for a thread that has ended."""
        with self._ending:
            self._ended = True
        while not self._asked.empty():
            change = self._asked.get()
            if change is not None:
                change.fail(DrainingError("The server is shutting down."))

    def _poll(self) -> None:
        """Loads what is new, unless that has failed a moment ago."""
        assert self.engine is not None
        try:
            revision = self._source.revision()
        except Exception as error:
            # Polling costs nothing, so it goes on; the same failure again is counted only once in a while.
            before = self.failure
            if before is None or not before.is_of(None, error) or before.is_due():
                self._fail(None, error)
            return
        if revision == self.engine.store_revision:
            self.failure = None
        elif self.failure is None or self.failure.revision != revision or self.failure.is_due():
            self._load(Reload())

    def _load(self, change: Reload) -> None:
        """Loads once, from reading to taking over."""
        started = time.monotonic()
        revision = None
        try:
            revision = self._source.revision()
            if self._beside is not None:
                self._beside.give_way()
            self.is_loading = True
            engine = self._source.load(change.without(self.unloaded), self.engine)
            _warm_up(engine)
        except Exception as error:
            self._fail(revision, error)
            change.fail(error)
            return
        finally:
            self.is_loading = False
        seconds = time.monotonic() - started
        self.unloaded = frozenset(engine.left_out)
        self._observer.engine_loaded(engine, seconds)
        self.failure = None
        event = "ready" if self.engine is None else "reloaded"
        self.engine = engine
        log.info(
            event,
            store_revision=engine.store_revision,
            num_tasks=len(engine.tasks),
            tasks=list(engine.tasks)[:MOST_TASKS_LOGGED],
            seconds=round(seconds, 3),
        )
        change.succeed(engine)

    def _fail(self, revision: str | None, error: Exception) -> None:
        """Keeps what serves and says so; the same failure again is counted, and not told again."""
        before = self.failure
        again = before is not None and before.is_of(revision, error)
        self.failure = FailedLoad.after(before, revision, error)
        self._observer.load_failed()
        if self.engine is not None and not again:
            log.error(
                "loading failed, the old revision serves on",
                error=str(error),
                store_revision=self.engine.store_revision,
                # A store's error tells all by itself.
                exc_info=None if isinstance(error, StoreError) else error,
            )


def _warm_up(engine: ServingEngine) -> None:
    """Runs a blank image or one token: no caller pays for the first pass. Raises FloatingPointError."""
    if engine.tokenizer is not None:
        query: AnyQuery = TextQuery(torch.zeros(1, 2, dtype=torch.int64))
    else:
        crop = engine.preprocessing.crop
        query = Query(torch.zeros(3, crop, crop, dtype=torch.uint8))
    engine.classify_batch([query]).all_answers()
