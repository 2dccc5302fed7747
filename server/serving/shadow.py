"""The store's next revision, which answers a share of the traffic silently so that it can be compared.

    shadow = Shadow(source, observer, share=0.1, active=lambda: engine, has_room=lambda: True)
    shadow.start()
    shadow.poll()                           # there may be another next revision
    shadow.offer(engine, queries, answers)  # what the active engine has just answered

It has one thread, which loads what the store's next revision is, shares with the active engine whatever both
have, and then asks it input by input, each when the device has nothing else to do. Callers have their answers
before, and `offer` waits for no lock, so nothing of this can fail one. What finds the short queue full is
dropped and counted.
"""

from __future__ import annotations

import math
import queue
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
import torch

from mass_serve.engine import (
    AnyAnswer,
    AnyQuery,
    Classification,
    EngineSource,
    ServingEngine,
    flip,
    unsplit,
)
from mass_serve.server.serving.failed_load import FailedLoad
from mass_serve.server.serving.observer import ServingObserver

# Inputs; an image's pixels take 150 kB.
MOST_WAITING = 64
# How often an input that waits asks whether the device is free.
ROOM_SECONDS = 0.01

log = structlog.get_logger(__name__)


class EverySoOften:
    """Chooses a share of what comes, evenly, and of the same sequence always the same."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._seen = 0

    def chooses_next(self) -> bool:
        """Tells, of the n-th that is asked about, whether floor(n share) > floor((n - 1) share)."""
        before, self._seen = self._seen, self._seen + 1
        return math.floor(self._seen * self._share) > math.floor(before * self._share)


@dataclass(frozen=True, eq=False)
class Loaded:
    """An engine of the next revision."""

    engine: ServingEngine
    active: weakref.ref[ServingEngine]  # it was loaded beside this one, and is compared with it
    counts: Counter[str] = field(default_factory=Counter)  # for the log, at its end

    def is_of(self, revision: str, active: ServingEngine) -> bool:
        """Tells whether this is that revision, beside that engine."""
        return self.engine.store_revision == revision and self.active() is active


@dataclass(frozen=True)
class Sample:
    """Inputs that are answered together, one or those of a pool, and what the active engine said of them."""

    of: Loaded
    queries: Sequence[AnyQuery]
    answers: Sequence[Classification]


class Shadow:
    """The engine of the next revision, its queue and its thread. Any thread may call any method but `offer`.

    That one belongs to the thread of the active engine.
    """

    def __init__(
        self,
        source: EngineSource,
        observer: ServingObserver,
        share: float,
        active: Callable[[], ServingEngine | None],
        has_room: Callable[[], bool],
    ) -> None:
        """`source` is the store's, `active` the engine in service, and `has_room` tells of its device."""
        self._source, self._next = source, source.next()
        self._observer = observer
        self._active = active
        self._has_room = has_room
        self._chooser = EverySoOften(share)
        self._loaded: Loaded | None = None
        self._ending = threading.Lock()  # of what is loaded: two threads may let go of it
        self._num_ended = 0  # how often it was let go of
        self._failure: FailedLoad | None = None
        self._queue: queue.SimpleQueue[Sample | None] = queue.SimpleQueue()
        # Inputs. Each number is written by one thread alone.
        self._num_put = 0
        self._num_taken = 0
        self._polled = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)

    @property
    def running(self) -> bool:
        """Tells whether the thread is at work."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Starts the thread, which waits for the first poll."""
        self._thread.start()

    def poll(self) -> None:
        """Lets the thread find out whether the next revision is another one by now, or none."""
        self._polled = True
        self._queue.put(None)

    def give_way(self) -> None:
        """Lets go of the engine, so that another active one can be loaded and no more than two are there."""
        with self._ending:
            ended, self._loaded = self._loaded, None
            self._num_ended += 1
        if ended is not None:
            self._observer.shadow_serves(None)
            log.info("shadow ended", store_revision=ended.engine.store_revision, **ended.counts)

    def close(self) -> None:
        """Tells the thread to end, and does not wait for it: a batch that runs cannot be stopped."""
        self._closing = True
        self._queue.put(None)

    def offer(
        self, engine: ServingEngine, queries: Sequence[AnyQuery], answers: Sequence[AnyAnswer | None]
    ) -> None:
        """Takes a share of what `engine` was asked and has answered, as far as there is room for it."""
        loaded = self._loaded
        if loaded is None or engine is not loaded.active():
            return
        rest = iter(answers)
        for run in unsplit(queries):
            own = [next(rest) for _ in run]
            classified = [one for one in own if isinstance(one, Classification)]
            # What is remembered of a stream is evidence of the tasks of this revision alone.
            remembers = run[0].pool is not None and run[0].pool.remembered is not None
            if len(classified) == len(run) and not remembers and self._chooser.chooses_next():
                self._put(Sample(loaded, run, classified))

    def _put(self, sample: Sample) -> None:
        inputs = len(sample.queries)
        if self._num_put - self._num_taken + inputs > MOST_WAITING:
            self._observer.shadow_dropped(inputs)
            return
        self._num_put += inputs
        self._queue.put(sample)

    def _run(self) -> None:
        # One thread of torch's, and no lower priority: where other processes want the processor, one of the
        # least priority is stopped while it has the interpreter's lock, and callers waited for seconds.
        torch.set_num_threads(1)
        while not self._closing:
            sample = self._queue.get()  # None: something else has changed
            while not self._closing and (self._polled or not self._is_due(sample)):
                if self._polled:
                    self._polled = False
                    self._load_what_is_next()
                else:
                    time.sleep(ROOM_SECONDS)
            if sample is not None:
                self._num_taken += len(sample.queries)
                if sample.of is self._loaded and not self._closing:
                    self._compare(sample)
                sample = None  # it would hold its engine until the next one comes

    def _is_due(self, sample: Sample | None) -> bool:
        """Tells whether an input may be asked about now, or need not be at all."""
        return sample is None or sample.of is not self._loaded or self._has_room()

    def _load_what_is_next(self) -> None:
        """Loads the store's next revision, unless it is here already or has failed a moment ago."""
        active, revision = self._active(), None
        if active is None:
            return
        try:
            revision = self._next.revision()
            if revision in (active.store_revision, self._source.revision()):
                self._failure = None
                self.give_way()
                return
            if self._loaded is not None and self._loaded.is_of(revision, active):
                return
            if (failed := self._failure) and failed.revision == revision and not failed.is_due():
                return
            self.give_way()
            self._load(revision, active)
        except Exception as error:
            self._load_failed(revision, error)

    def _load(self, revision: str, active: ServingEngine) -> None:
        started, num_ended = time.monotonic(), self._num_ended
        engine = self._next.load(frozenset(active.left_out), active)
        self._failure = None
        with self._ending:
            # Where another active engine has come, or is being loaded, that polls afterwards.
            if num_ended != self._num_ended or active is not self._active():
                return
            self._loaded = Loaded(engine, weakref.ref(active))
        self._observer.shadow_serves(revision)
        log.info("shadow ready", store_revision=revision, seconds=round(time.monotonic() - started, 3))

    def _load_failed(self, revision: str | None, error: Exception) -> None:
        """Counts and tells why there is no shadow of what is next; the same again only now and then."""
        before = self._failure
        again = before is not None and before.is_of(revision, error)
        if before is not None and again and not before.is_due():
            return
        self._failure = FailedLoad.after(before, revision, error)
        self._observer.shadow_failed("load")
        if not again:
            log.error("the next revision cannot be loaded", store_revision=revision, error=str(error))

    def _compare(self, sample: Sample) -> None:
        """Asks the next revision what the active one was asked, and tells how the answers differ."""
        engine, counts = sample.of.engine, sample.of.counts
        if any(name not in engine.tasks for query in sample.queries for name in query.candidates or ()):
            self._failed(sample, "no_task", None)
            return
        try:
            answers = engine.classify_batch(sample.queries).all_answers()
            flips = [flip(*both) for both in zip(sample.answers, answers, strict=True)]
        except Exception as error:
            self._failed(sample, "answer", error)
            return
        for answer, found in zip(sample.answers, flips, strict=True):
            counts["compared"] += 1
            counts["flipped"] += found is not None
            self._observer.shadow_compared(answer.task, found)

    def _failed(self, sample: Sample, what: str, error: Exception | None) -> None:
        """Counts inputs that cannot be compared, and tells of the first of an engine."""
        if not sample.of.counts[what]:
            revision = sample.of.engine.store_revision
            log.warning("the next revision failed", store_revision=revision, what=what, exc_info=error)
        sample.of.counts[what] += 1
        self._observer.shadow_failed(what)
