"""The process of the device as front ends hear it: which engine serves, and what is wrong with the store."""

from __future__ import annotations

import gc
import socket
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from mass_serve.engine import AnyQuery, BatchReport, Query, ServingEngine
from mass_serve.model_store.errors import ManifestError, StoreError
from mass_serve.server.fronts.answer_form import loads
from mass_serve.server.fronts.beginning import Beginning
from mass_serve.server.fronts.device import Batch, Device
from mass_serve.server.fronts.frames import Channel, Frame, Kind
from mass_serve.server.fronts.link import Link
from mass_serve.server.fronts.remote_engine import RemoteEngine, RemoteSource
from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.settings import load_settings
from tests.server.fakes import FAIL, FakeEngine
from tests.server_processes import PATIENCE, wait_for


class ChangingSource:
    """A store whose revision changes, is broken, or hangs."""

    def __init__(self) -> None:
        self.newest = "r1"
        self.is_broken = False
        self.answers = threading.Event()
        self.answers.set()

    def revision(self) -> str:
        self.answers.wait()
        return self.newest

    def load(self, without: frozenset[str], previous: ServingEngine | None) -> FakeEngine:  # noqa: ARG002 - the fake is always the same
        if self.is_broken:
            raise ManifestError(f"{self.newest} is broken")
        self.engine = FakeEngine(store_revision=self.newest)
        return self.engine

    def next(self) -> ChangingSource:
        return self


class FallingBack(FakeEngine):
    """One image of each batch has no task above the threshold."""

    def classify_batch(self, queries: Sequence[AnyQuery]) -> BatchReport:
        return replace(super().classify_batch(queries), fallbacks=1)


class Front:
    """A front end's side of a channel."""

    def __init__(self, device: Device, name: str) -> None:
        ours, theirs = socket.socketpair()
        self.desk = device.open_desk(Channel(ours), Beginning(name, load_settings({}), joins=False))
        self.said: list[tuple[Kind, int, Any]] = []
        self._channel = Channel(theirs)
        self._link = Link(self._channel)
        self._source = RemoteSource(self._link, prefetches=False)
        self._link.start(self._hear)
        self.engine: RemoteEngine = self._source.load(frozenset(), None)
        self.revision = self.engine.store_revision
        self._link.tell(Kind.SERVES, self.engine.described.number)

    def _hear(self, frame: Frame) -> None:
        self.said.append((frame.kind, frame.number, loads(frame.body)))

    def news(self) -> list[tuple[int, str | None]]:
        return [(number, trouble) for kind, number, trouble in self.said if kind is Kind.NEWS]

    def close(self) -> None:
        self.desk.close()
        wait_for(lambda: self._link.is_lost)
        self._channel.close()

    def follow(self) -> None:
        """Takes what serves, as when it is told of news."""
        self._source.told()
        self.engine = self._source.load(frozenset(), self.engine)
        self.revision = self.engine.store_revision


@contextmanager
def ticking(source: ChangingSource, **settings: object) -> Iterator[Device]:
    """A device whose process keeps time."""
    device = Device(load_settings({"front_ends": 2, "store_poll_seconds": 0.01, **settings}), source)
    device.start()
    ended = threading.Event()

    def tick() -> None:
        while not ended.is_set():
            device.check()
            time.sleep(0.01)

    ticks = threading.Thread(target=tick)
    ticks.start()
    try:
        yield device
    finally:
        ended.set()
        ticks.join()
        source.answers.set()
        for desk in device.desks.copy():
            device.close_desk(desk)
        device.close()


def test_a_front_end_takes_what_serves_though_the_revision_after_it_is_broken() -> None:
    source = ChangingSource()
    with ticking(source) as device, closing(Front(device, "front_end_1")) as front:
        assert front.revision == "r1"
        source.newest = "r2"
        wait_for(lambda: (2, None) in front.news())
        source.is_broken, source.newest = True, "r3"
        wait_for(lambda: (2, "r3 is broken") in front.news())
        front.follow()
        assert front.revision == "r2"
        with pytest.raises(StoreError, match="r3 is broken"):
            front.follow()


def test_a_store_that_hangs_is_news_once() -> None:
    source = ChangingSource()
    with ticking(source, load_timeout=0.2) as device, closing(Front(device, "front_end_1")) as front:
        source.answers.clear()
        wait_for(lambda: len(front.news()) > 0 and front.news()[-1][1] is not None)
        told = len(front.news())
        time.sleep(1.2)  # another second than the one before, whichever unit the words have
        assert len(front.news()) == told
        source.answers.set()
        wait_for(lambda: front.news()[-1][1] is None)


def test_how_it_begins_is_the_first_that_a_front_end_is_told_and_trouble_the_next() -> None:
    source = ChangingSource()
    with ticking(source) as device, closing(Front(device, "front_end_1")) as first:
        source.is_broken, source.newest = True, "r2"
        wait_for(lambda: (1, "r2 is broken") in first.news())
        for _ in range(20):
            ours, theirs = socket.socketpair()
            scrape = threading.Thread(target=device.exposition)
            scrape.start()
            desk = device.open_desk(Channel(ours), Beginning("front_end_2", load_settings({}), joins=False))
            channel = Channel(theirs)
            frames = [channel.receive() for _ in range(2)]
            assert [frame.kind for frame in frames if frame is not None] == [Kind.BEGIN, Kind.NEWS]
            device.close_desk(desk)
            scrape.join()
            channel.close()


def query(red: int, green: int = 0) -> Query:
    pixels = torch.zeros(3, 8, 8, dtype=torch.uint8)
    pixels[0], pixels[1] = red, green
    return Query(pixels)


def asked_together(*asked: list[Query], **settings: object) -> tuple[list[list[object]], list[int]]:
    """What each front end gets for what it asks while the device is busy, and the batches behind that."""
    source = ChangingSource()
    with ticking(source, front_ends=len(asked), **settings) as device, ExitStack() as stack:
        fronts = [stack.enter_context(closing(Front(device, f"front_end_{i}"))) for i in range(len(asked))]
        engine = source.engine
        engine.gate = threading.Event()
        pool = stack.enter_context(ThreadPoolExecutor(len(asked) + 1))
        before = len(engine.batches)
        busy = pool.submit(fronts[0].engine.classify_batch, [query(1)])
        wait_for(lambda: len(engine.batches) > before)
        found = []
        for front, queries in zip(fronts, asked, strict=True):
            found.append(pool.submit(front.engine.classify_batch, queries))
            wait_for(lambda: device._batches.qsize() == len(found))
        engine.gate.set()
        assert labels(busy) == [1]
        return [labels(one) for one in found], engine.batches[before + 1 :]


def labels(found: Future[BatchReport]) -> list[object]:
    """The answers, or what the front end is told instead."""
    if (error := found.exception()) is not None:
        return [type(error)]
    return [int(answer.probabilities.argmax()) for answer in found.result().all_answers()]


def test_what_several_front_ends_ask_meanwhile_is_one_batch() -> None:
    asked = [query(2), query(3)], [query(4)], [query(5), query(6)]
    assert asked_together(*asked) == ([[2, 3], [4], [5, 6]], [5])


def test_no_more_than_one_batch_may_have_is_answered_together() -> None:
    asked = [query(2), query(3)], [query(4)], [query(5), query(6)]
    assert asked_together(*asked, max_batch_images=4) == ([[2, 3], [4], [5, 6]], [3, 2])


def test_a_batch_that_fails_harms_the_front_end_alone_that_asked_it() -> None:
    found, batches = asked_together([query(2)], [query(3, FAIL)], [query(4)])
    assert found == [[2], [RuntimeError], [4]]
    assert batches == [3, 1, 1, 1]


def test_a_front_end_counts_what_its_own_answers_are_of() -> None:
    """Batches, and the sets in each, are counted by front ends; a sum over them counts a fallback once."""
    source = ChangingSource()
    with ticking(source) as device:
        engine, told = FallingBack(), list[BatchReport]()

        class Desk:
            def answer(self, _: int, found: BatchReport) -> None:
                told.append(found)

        batches = [Batch(Desk(), number, engine, [query(number)]) for number in range(2)]  # type: ignore[arg-type]
        device._answer(batches)
    assert [len(report.answers) for report in told] == [1, 1]
    assert [report.expert_sets for report in told] == [[("digits",)], [("digits",)]]
    assert [report.fallbacks for report in told] == [1, 0]
    metrics = Metrics({})
    for report in told:
        metrics.batch_ran(report, 0)
    value = metrics.registry.get_sample_value
    assert value("mass_batch_segments_count") == value("mass_batch_segments_sum") == 2
    assert value("mass_routing_fallback_total") == 1


def test_an_idle_device_keeps_nothing_of_what_it_has_answered() -> None:
    """A replaced engine would stay in memory until somebody asks again."""

    class Desk:
        def answer(self, _number: int, _found: BatchReport) -> None:
            answered.set()

    answered = threading.Event()
    with ticking(ChangingSource()) as device:
        engine = FakeEngine()
        still = weakref.ref(engine)
        device.submit(Desk(), 1, engine, [query(1)])  # type: ignore[arg-type]
        del engine
        assert answered.wait(PATIENCE)
        wait_for(lambda: gc.collect() >= 0 and still() is None)


def test_what_another_engine_is_asked_is_another_batch() -> None:
    """A front end may be slower than another to take a new revision."""
    device, engines = Device(load_settings({"front_ends": 3}), ChangingSource()), [FakeEngine(), FakeEngine()]
    batches = [Batch(None, number, engines[number // 2], [query(1)]) for number in range(3)]  # type: ignore[arg-type]
    for batch in (*batches, None):
        device._batches.put(batch)
    assert device._take() == batches[:2]
    assert device._take() == batches[2:]
    assert device._take() == []
