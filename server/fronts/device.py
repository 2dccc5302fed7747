"""The process of the device: it has the store, loads and watches it, and answers the batches of front ends.

device = Device(settings, source)
device.start()
desk = device.open_desk(channel, beginning)  # for each front end

Batches are answered in the order in which they come, those that wait for the same engine together, as far as
one batch may have so much. A front end sends one at a time, so that none waits for more than one of each
other. What a front end sends is data, and what is wrong in it harms only itself: where a batch of several
fails, each is answered alone.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import structlog
import torch

from mass_serve.engine import (
    AnyQuery,
    BatchReport,
    Classification,
    EngineSource,
    ServingEngine,
    release_cached_memory,
)
from mass_serve.model_store.errors import StoreError
from mass_serve.server.errors import DrainingError
from mass_serve.server.fronts.beginning import Beginning
from mass_serve.server.fronts.desk import Desk
from mass_serve.server.fronts.expositions import exposition_of_all
from mass_serve.server.fronts.frames import Channel, Kind
from mass_serve.server.fronts.remote_engine import Description
from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.serving.batcher import is_device_lost, is_out_of_memory
from mass_serve.server.serving.freed_memory import WORTH_GIVING_BACK, FreedMemory
from mass_serve.server.serving.served_store import ServedStore
from mass_serve.server.serving.ticket import size_of
from mass_serve.server.settings import Settings

POLL_SECONDS = 0.02
# For front ends that are told of another engine to have it.
OTHERS_SECONDS = 10.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Batch:
    """What one front end asks at once."""

    desk: Desk
    number: int
    engine: ServingEngine
    queries: Sequence[AnyQuery]


class Device:
    """Any thread may call every method."""

    def __init__(self, settings: Settings, source: EngineSource) -> None:
        self.metrics = Metrics(settings.engine_options.labels, settings.max_task_labels)
        self.store = ServedStore(source, self.metrics, settings.store_poll_seconds, settings.load_timeout)
        self.metrics.watch_readiness(lambda: self.store.engine is not None and not self.is_lost)
        self.desks: list[Desk] = []
        self.is_lost = False
        self.all_serve = False  # every front end has had an engine
        self._front_ends = settings.front_ends
        self._source = source
        self._hang_timeout = settings.hang_timeout
        self._most_images, self._most_tokens = settings.max_batch_images, settings.max_batch_tokens
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._left_over: Batch | None = None  # came, and did not go with those before it
        self._batch_began: float | None = None
        self._closing = False
        self._current: tuple[int, ServingEngine | None] = 0, None
        self._told: tuple[int, str | None] = 0, None
        self._numbering = threading.Lock()
        self._freed_memory = FreedMemory(lambda: WORTH_GIVING_BACK if self.store.is_loading else 0)
        self._worker = threading.Thread(target=self._run, name="device", daemon=True)

    def start(self) -> None:
        """Loads the first engine, and answers from then on."""
        self._worker.start()
        self.store.start()

    @property
    def running(self) -> bool:
        """Tells whether a thread is still at work; none can be interrupted."""
        return self.store.running or self._worker.is_alive()

    def open_desk(self, channel: Channel, beginning: Beginning) -> Desk:
        """Listens to a front end, until its channel is closed; how it begins is the first that it is told."""
        desk = Desk(channel, beginning.name, self)
        desk.tell(Kind.BEGIN, 0, beginning)
        with self._numbering:
            number, trouble = self._told
            if number:
                desk.tell(Kind.NEWS, number, trouble)
            self.desks.append(desk)
        desk.start()
        return desk

    def close_desk(self, desk: Desk) -> None:
        """Forgets a front end that has ended."""
        desk.close()
        self.desks.remove(desk)

    def check(self) -> None:
        """Gives up what hangs, and tells front ends what is new; whoever keeps time calls this."""
        self.store.check()
        self._freed_memory.check()
        began = self._batch_began
        if not self.is_lost and began is not None and time.monotonic() - began > self._hang_timeout:
            log.error("worker died", error=f"a batch has not ended in {self._hang_timeout:g} seconds")
            self.is_lost = True
        self.tell_news()
        if not self.all_serve and sum(desk.serves > 0 for desk in self.desks) == self._front_ends:
            self.all_serve = True
            for desk in self.desks:
                desk.tell(Kind.ALL_SERVE)

    def tell_news(self) -> None:
        """Tells front ends of an engine that has taken over, and of why a newer one cannot."""
        number, _ = self.current()
        news = number, self.store.trouble
        with self._numbering:
            is_new, self._told = news != self._told, news
            if is_new and number:
                for desk in self.desks:
                    desk.tell(Kind.NEWS, number, news[1])

    def close(self) -> None:
        """Ends the threads, as far as they can be."""
        self._closing = True
        self._batches.put(None)
        self.store.close()
        self._freed_memory.close()

    def current(self) -> tuple[int, ServingEngine | None]:
        """The engine in service, and its number among all that were: 0 where there is none yet."""
        with self._numbering:
            number, engine = self._current
            if self.store.engine is not engine:
                self._current = number + 1, self.store.engine
            return self._current

    def submit(self, desk: Desk, number: int, engine: ServingEngine, queries: list[AnyQuery]) -> None:
        """Answers a batch as soon as those before it are."""
        self._batches.put(Batch(desk, number, engine, queries))

    def description(self, desk: Desk, wanted: dict[str, Any]) -> Description:
        """Describes the engine in service to a front end, once there is one.

        What is `wanted` may be that it has other tasks before ("load", "unload"), or that a newer revision is
        looked for ("polls"). Raises NotFoundError and BadRequestError for tasks, what a load has raised, and
        StoreError where a newer revision than the front end "has" already does not serve.
        """
        before = self._first()
        for name in wanted["unload"]:
            self.store.unload_task(name).result()
        for name in wanted["load"]:
            self.store.load_task(name).result()
        if wanted["polls"] and self._may_differ(before):
            self.store.reload().result()
        number, engine = self.current()
        assert engine is not None
        if wanted["has"] == number and (trouble := self.store.trouble) is not None:
            raise StoreError(trouble)
        self.tell_news()
        if wanted["polls"] or wanted["load"] or wanted["unload"]:
            self._wait_for_others(desk, number)
        return Description.of(engine, desk.hold(engine), number)

    def exposition(self) -> bytes:
        """Returns the metrics of all processes."""
        return exposition_of_all(self.metrics, self.desks.copy())

    def _first(self) -> ServingEngine:
        while (engine := self.store.engine) is None:
            if self.store.failure is not None:
                raise self.store.failure.error
            if self._closing:
                raise DrainingError("The server is shutting down.")
            time.sleep(POLL_SECONDS)
        return engine

    def _may_differ(self, served: ServingEngine) -> bool:
        """Tells whether a load may change something: the engine, or why there is no newer one."""
        return self.store.trouble is not None or self._source.revision() != served.store_revision

    def _wait_for_others(self, desk: Desk, number: int) -> None:
        """Returns when the other front ends have that engine, too: then whoever asks any of them gets it.

        One that asks for another itself has it with the answer.
        """
        deadline = time.monotonic() + OTHERS_SECONDS
        others = [other for other in self.desks.copy() if other is not desk]
        while time.monotonic() < deadline and any(other.lags_behind(number) for other in others):
            time.sleep(POLL_SECONDS)

    def _run(self) -> None:
        torch.get_num_threads()  # settles this thread's share before a load lowers it for a moment
        while not self.is_lost and self._answer_next():
            pass

    def _answer_next(self) -> bool:
        """Answers what comes next, and keeps nothing of it; tells whether there was anything."""
        batches = self._take()
        if batches:
            self._answer(batches)
        return bool(batches)

    def _answer(self, batches: Sequence[Batch]) -> None:
        found = self._found(batches)
        if isinstance(found, BatchReport):
            _hand_out(found, batches)
        elif self.is_lost:
            return  # all are told at once
        elif len(batches) == 1:
            batches[0].desk.answer(batches[0].number, found)
        else:
            log.warning("a batch of several front ends failed", batches=len(batches), error=repr(found))
            for batch in batches:
                if not self.is_lost:
                    self._answer([batch])

    def _take(self) -> list[Batch]:
        """Waits for a batch, and returns it with those that may go with it; none once all is over."""
        first = self._left_over or self._batches.get()
        self._left_over = None
        if first is None:
            return []
        taken, size = [first], size_of(first.queries)
        most = self._most_images if first.engine.tokenizer is None else self._most_tokens
        with suppress(queue.Empty):
            while (after := self._batches.get_nowait()) is not None:
                size += size_of(after.queries)
                if after.engine is not first.engine or size > most:
                    self._left_over = after
                    return taken
                taken.append(after)
            self._batches.put(None)  # the end comes behind these
        return taken

    def _found(self, batches: Sequence[Batch]) -> BatchReport | BaseException:
        """Runs them as one batch, and returns the engine's report, or what it raised."""
        queries = [query for batch in batches for query in batch.queries]
        self._batch_began = time.monotonic()
        try:
            report = batches[0].engine.classify_batch(queries)
            if len(report.answers) != len(queries):
                raise ValueError(f"{len(queries)} queries gave {len(report.answers)} answers")
            return report
        # Even SystemExit must not leave a front end waiting.
        except BaseException as error:
            if is_out_of_memory(error):
                release_cached_memory()  # in pieces of other sizes than a smaller batch has
            elif not isinstance(error, Exception) or is_device_lost(error):
                log.error("worker died", error=repr(error))
                self.is_lost = True
            return error
        finally:
            self._batch_began = None


def _hand_out(report: BatchReport, batches: Sequence[Batch]) -> None:
    """Answers each batch with its part of a report; what is not of some answers is told to the first one."""
    place = 0
    for batch in batches:
        end = place + len(batch.queries)
        part = replace(report, answers=report.answers[place:end])
        if len(batches) > 1:
            part = replace(part, expert_sets=_sets_of(part), fallbacks=0 if place else report.fallbacks)
        batch.desk.answer(batch.number, part)
        place = end


def _sets_of(report: BatchReport) -> list[tuple[str, ...]]:
    """The different expert sets that its answers are of."""
    return list(dict.fromkeys(one.expert_set for one in report.answers if isinstance(one, Classification)))
