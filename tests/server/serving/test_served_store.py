"""Loading beside, taking over, failing without harm, and trying again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import structlog

from mass_serve.engine import ServingEngine
from mass_serve.model_store.errors import IntegrityError
from mass_serve.server.errors import (
    BadRequestError,
    DrainingError,
    LoadHangsError,
    LoadTimeoutError,
    NotFoundError,
)
from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.serving import failed_load
from mass_serve.server.serving.served_store import ServedStore
from tests.server.fakes import FakeEngine
from tests.server_processes import wait_for

WAIT = 10.0


@dataclass
class Source:
    """A store whose revision and health a test changes."""

    current: str = "r1"
    damage: Exception | None = None
    loads: list[tuple[frozenset[str], str | None]] = field(default_factory=list)

    unreadable: Exception | None = None
    gate: threading.Event = field(default_factory=threading.Event)  # loads wait for it

    def __post_init__(self) -> None:
        self.gate.set()

    def revision(self) -> str:
        if self.unreadable is not None:
            raise self.unreadable
        return self.current

    def load(self, without: frozenset[str], previous: ServingEngine | None) -> FakeEngine:
        self.loads.append((without, None if previous is None else previous.store_revision))
        assert self.gate.wait(WAIT)
        if self.damage is not None:
            raise self.damage
        engine = FakeEngine(store_revision=self.current)
        engine.left_out = tuple(sorted(without & engine.tasks.keys()))
        engine.tasks = {name: task for name, task in engine.tasks.items() if name not in without}
        return engine

    def next(self) -> Source:
        return self


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Failures are provoked here; their tracebacks would fill the screen."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics({})


def value(metrics: Metrics, name: str) -> float:
    found = metrics.registry.get_sample_value(name)
    assert found is not None
    return found


@pytest.fixture
def store(source: Source, metrics: Metrics) -> Iterator[ServedStore]:
    """Watches every few milliseconds, and has loaded."""
    made = ServedStore(source, metrics, poll_seconds=0.01, load_timeout=WAIT)
    made.start()
    wait_for(lambda: made.engine is not None)
    yield made
    made.close()


def serving(store: ServedStore) -> str:
    assert store.engine is not None
    return store.engine.store_revision


def test_a_new_revision_takes_over_once(store: ServedStore, source: Source, metrics: Metrics) -> None:
    time.sleep(0.05)
    assert len(source.loads) == 1, "nothing has changed"
    source.current = "r2"
    wait_for(lambda: serving(store) == "r2")
    time.sleep(0.05)
    assert source.loads == [(frozenset(), None), (frozenset(), "r1")]
    assert value(metrics, "mass_task_load_duration_seconds_count") == 2
    assert value(metrics, "mass_task_load_failures_total") == 0


def test_a_failed_load_changes_nothing_and_is_told(
    store: ServedStore, source: Source, metrics: Metrics
) -> None:
    source.damage = IntegrityError("experts.safetensors is damaged")
    source.current = "r2"
    wait_for(lambda: store.failure is not None)
    assert serving(store) == "r1"
    assert value(metrics, "mass_task_load_failures_total") == 1
    time.sleep(0.05)
    assert len(source.loads) == 2, "the same revision is not tried again at once"
    source.damage = None
    source.current = "r3"
    wait_for(lambda: serving(store) == "r3")
    assert store.failure is None


def test_a_failed_load_is_tried_again_and_ever_later(
    store: ServedStore, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failed_load, "FIRST_RETRY_SECONDS", 0.05)
    source.damage = OSError("the disk is full")
    source.current = "r2"
    wait_for(lambda: len(source.loads) == 4)
    assert store.failure is not None
    assert store.failure.attempts >= 2
    source.damage = None
    wait_for(lambda: serving(store) == "r2")


def test_a_store_that_stays_unreadable_fails_ever_later(
    store: ServedStore, source: Source, metrics: Metrics
) -> None:
    source.unreadable = OSError("gone")
    wait_for(lambda: store.failure is not None)
    time.sleep(0.1)
    assert value(metrics, "mass_task_load_failures_total") == 1
    source.unreadable = OSError("gone for another reason")
    wait_for(lambda: value(metrics, "mass_task_load_failures_total") == 2)
    source.unreadable = None
    wait_for(lambda: store.failure is None)


def test_looks_that_wait_are_one(store: ServedStore, source: Source) -> None:
    source.gate.clear()
    first = store.reload()
    wait_for(lambda: len(source.loads) == 2)
    waiting = [store.reload() for _ in range(50)]
    source.gate.set()
    engines = [future.result(WAIT) for future in waiting]
    assert all(engine is store.engine for engine in engines)
    assert first.result(WAIT) is not store.engine
    assert len(source.loads) == 3


def test_a_store_that_came_back_as_it_was_is_no_failure(store: ServedStore, source: Source) -> None:
    source.damage = IntegrityError("damaged")
    source.current = "r2"
    wait_for(lambda: store.failure is not None)
    source.current = "r1"
    wait_for(lambda: store.failure is None)
    assert len(source.loads) == 2


def test_tasks_are_unloaded_and_loaded(store: ServedStore, source: Source) -> None:
    engine = store.unload_task("signs").result(WAIT)
    assert list(engine.tasks) == ["digits"]
    assert store.engine is engine
    source.current = "r2"
    wait_for(lambda: serving(store) == "r2")
    assert store.engine is not None
    assert list(store.engine.tasks) == ["digits"], "a new revision does not bring it back"
    assert list(store.load_task("signs").result(WAIT).tasks) == ["digits", "signs"]
    assert store.unloaded == frozenset()


def test_what_cannot_be_unloaded(store: ServedStore) -> None:
    with pytest.raises(NotFoundError, match="no task 'cars'"):
        store.unload_task("cars")
    store.unload_task("digits").result(WAIT)
    with pytest.raises(BadRequestError, match="the only task"):
        store.unload_task("signs")


def test_a_failed_unload_leaves_the_task(store: ServedStore, source: Source) -> None:
    source.damage = IntegrityError("damaged")
    with pytest.raises(IntegrityError):
        store.unload_task("signs").result(WAIT)
    assert store.engine is not None
    assert "signs" in store.engine.tasks
    assert store.unloaded == frozenset()


def test_without_polling_it_looks_when_told(source: Source, metrics: Metrics) -> None:
    store = ServedStore(source, metrics, poll_seconds=0, load_timeout=WAIT)
    store.start()
    wait_for(lambda: store.engine is not None)
    source.current = "r2"
    time.sleep(0.05)
    assert serving(store) == "r1"
    assert store.reload().result(WAIT).store_revision == "r2"
    store.close()


def test_the_first_load_that_fails_is_the_last(source: Source, metrics: Metrics) -> None:
    source.damage = IntegrityError("damaged")
    store = ServedStore(source, metrics, poll_seconds=0.01, load_timeout=WAIT)
    store.start()
    wait_for(lambda: not store.running)
    assert store.engine is None
    assert store.failure is not None
    assert store.failure.error is source.damage
    with pytest.raises(DrainingError):
        store.reload().result(WAIT)


def test_nobody_waits_for_a_closed_store(store: ServedStore) -> None:
    store.close()
    with pytest.raises(DrainingError):
        store.reload().result(WAIT)


@pytest.fixture
def hanging(source: Source, metrics: Metrics) -> Iterator[ServedStore]:
    """Has loaded, and since then reads of its source hang, longer than a load may."""
    made = ServedStore(source, metrics, poll_seconds=0, load_timeout=0.1)
    made.start()
    wait_for(lambda: made.engine is not None)
    source.gate.clear()
    yield made
    source.gate.set()
    made.close()


def test_a_load_that_hangs_is_told_to_all_who_wait_and_goes_on(
    hanging: ServedStore, source: Source, metrics: Metrics
) -> None:
    source.current = "r2"
    begun, behind = hanging.load_task("digits"), hanging.unload_task("signs")
    wait_for(lambda: hanging.hangs)
    assert hanging.oldest_asked_seconds > 0.1
    hanging.check()
    for waited in (begun, behind):
        assert isinstance(waited.exception(0), LoadTimeoutError)
    assert hanging.oldest_asked_seconds == 0
    assert serving(hanging) == "r1"
    assert hanging.trouble is not None
    assert "not answered" in hanging.trouble
    assert value(metrics, "mass_task_load_failures_total") == 1
    for refused in (hanging.reload(), hanging.load_task("digits"), hanging.unload_task("signs")):
        assert isinstance(refused.exception(0), LoadHangsError)
    hanging.check()
    assert value(metrics, "mass_task_load_failures_total") == 1, "it is told once"
    source.gate.set()
    wait_for(lambda: serving(hanging) == "r2")
    wait_for(lambda: hanging.load_seconds == 0)
    assert hanging.trouble is None
    assert hanging.reload().result(WAIT).store_revision == "r2"
    assert [without for without, _ in source.loads] == [frozenset()] * 3, (
        "what was given up is not done later"
    )


def test_the_next_load_that_hangs_is_told_again(
    hanging: ServedStore, source: Source, metrics: Metrics
) -> None:
    for times in (1, 2):
        source.gate.clear()
        asked = hanging.reload()
        wait_for(lambda: hanging.hangs)
        hanging.check()
        assert isinstance(asked.exception(0), LoadTimeoutError)
        source.gate.set()
        wait_for(lambda: hanging.load_seconds == 0)
        hanging.check()
        assert value(metrics, "mass_task_load_failures_total") == times
