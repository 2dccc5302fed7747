"""The process of the device: it has the store, loads and watches it, and answers the batches of front ends.

device = Device(settings, source)
device.start()
desk = device.open_desk(channel, beginning)  # for each front end

Batches are answered in the order in which they come. A front end sends one at a time, so that none waits for
more than one of each other. What a front end sends is data, and what is wrong in it harms only itself.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
import torch

from mass_serve.engine import AnyQuery, EngineSource, ServingEngine, release_cached_memory
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
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
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
        while not self.is_lost and (batch := self._batches.get()) is not None:
            self._batch_began = time.monotonic()
            try:
                found: object = batch.engine.classify_batch(batch.queries)
            # Even SystemExit must not leave a front end waiting.
            except BaseException as error:
                found = error
                if is_out_of_memory(error):
                    release_cached_memory()  # in pieces of other sizes than a smaller batch has
                elif not isinstance(error, Exception) or is_device_lost(error):
                    log.error("worker died", error=repr(error))
                    self.is_lost = True
            finally:
                self._batch_began = None
            if not self.is_lost:  # else all are told at once
                batch.desk.answer(batch.number, found)
