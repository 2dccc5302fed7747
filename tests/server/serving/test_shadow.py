"""The next revision beside the one in service: what it is asked, and how it is compared."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
import structlog
import torch

from mass_serve.engine import AnyQuery, BatchReport, Pool, Query, ServingEngine
from mass_serve.model_store.errors import IntegrityError
from mass_serve.router import Remembered
from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.serving import failed_load
from mass_serve.server.serving.shadow import MOST_WAITING, Shadow
from tests.server.fakes import FAIL, STRANGE, FakeEngine
from tests.server_processes import wait_for

WAIT = 10.0


class Following(FakeEngine):
    """Says of red 1 that it is 2, of red 3 that it is of signs, and of red 5 that no task is believed."""

    def classify_batch(self, queries: Sequence[AnyQuery]) -> BatchReport:
        return super().classify_batch([_otherwise(query) for query in queries])


def _otherwise(query: AnyQuery) -> AnyQuery:
    assert isinstance(query, Query)
    red = int(query.pixels[0, 0, 0])
    if red == 1:
        return image(2, pool=query.pool)
    if red == 3:
        return image(3, candidates=("signs",))
    return image(5, green=STRANGE) if red == 5 else query


def image(
    red: int, green: int = 0, candidates: tuple[str, ...] | None = None, pool: Pool | None = None
) -> Query:
    return Query(torch.tensor([red, green, 0], dtype=torch.uint8).view(3, 1, 1), candidates, pool)


@dataclass
class Source:
    """A store whose next revision and health a test changes."""

    current: str = "r1"
    following: str | None = "r2"  # None: there is none
    engine: FakeEngine = field(default_factory=Following)
    damage: Exception | None = None
    loading: Callable[[], object] = lambda: None  # is called in each load
    polls: int = 0
    loads: list[tuple[str, frozenset[str]]] = field(default_factory=list)

    def revision(self) -> str:
        return self.current

    def load(self, without: frozenset[str], previous: ServingEngine | None) -> ServingEngine:  # noqa: ARG002
        raise AssertionError("the store itself is loaded by others")

    def next(self) -> Next:
        return Next(self)


@dataclass
class Next:
    """The next revision of that store."""

    of: Source

    def revision(self) -> str:
        self.of.polls += 1
        return self.of.following or self.of.current

    def load(self, without: frozenset[str], previous: ServingEngine | None) -> ServingEngine:
        assert self.of.following is not None
        self.of.loads.append((self.of.following, without))
        self.of.loading()
        if self.of.damage is not None:
            raise self.of.damage
        self.of.engine.store_revision = self.of.following
        assert previous is not None
        return self.of.engine

    def next(self) -> Next:
        return self


class Bench:
    """A shadow beside a fake engine."""

    def __init__(self, source: Source, share: float = 1.0) -> None:
        self.source = source
        self.active: FakeEngine | None = FakeEngine(store_revision="r1")
        self.has_room = True
        self.asked_for_room = 0
        self.metrics = Metrics({})
        self.metrics.engine_loaded(self.active, 0.1)
        self.shadow = Shadow(source, self.metrics, share, lambda: self.active, self._room)
        self.shadow.start()

    def _room(self) -> bool:
        self.asked_for_room += 1
        return self.has_room

    def poll(self) -> None:
        """Returns once the shadow has polled."""
        before = self.source.polls
        self.shadow.poll()
        wait_for(lambda: self.source.polls > before)

    def load(self) -> None:
        self.shadow.poll()
        wait_for(lambda: self.value("mass_shadow_loaded", revision=self.source.following or "") == 1)

    def ask(self, *queries: Query) -> None:
        """The active engine answers, and its answers are offered."""
        assert self.active is not None
        self.shadow.offer(self.active, queries, self.active.classify_batch(queries).answers)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    @property
    def compared(self) -> float:
        return sum(self.value("mass_shadow_compared_total", task=task) or 0.0 for task in ("digits", "signs"))


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
def bench(source: Source) -> Iterator[Bench]:
    made = Bench(source)
    yield made
    made.shadow.close()


def test_answers_are_compared_by_what_they_say(bench: Bench) -> None:
    bench.load()
    bench.ask(image(0), image(1), image(3), image(5), image(6, green=STRANGE))
    bench.ask(image(7, candidates=("signs",)))
    wait_for(lambda: bench.compared == 6)
    flips = {
        what: bench.value("mass_shadow_flips_total", what=what)
        for what in ("label", "task", "unrouted", "routed")
    }
    assert flips == {"label": 1, "task": 1, "unrouted": 1, "routed": 0}
    assert bench.value("mass_shadow_flipped_total", task="digits") == 3
    assert bench.value("mass_shadow_compared_total", task="signs") == 1
    assert bench.value("mass_shadow_flipped_total", task="signs") == 0


def test_a_share_is_chosen_evenly_and_always_the_same(source: Source) -> None:
    bench = Bench(source, share=0.25)
    bench.load()
    for red in range(40):
        bench.ask(image(red))
    wait_for(lambda: bench.compared == 10)
    bench.shadow.close()
    assert source.engine.batches == [1] * 10
    # Every fourth: of reds 1, 3 and 5, which flip, it takes red 3 alone.
    assert bench.value("mass_shadow_flipped_total", task="digits") == 1
    assert bench.value("mass_shadow_flips_total", what="task") == 1


def test_inputs_whose_evidence_is_pooled_are_asked_together(bench: Bench) -> None:
    bench.load()
    pool = Pool()
    bench.ask(image(0, pool=pool), image(7, pool=pool), image(8, pool=pool), image(9))
    wait_for(lambda: bench.compared == 4)
    assert bench.source.engine.batches == [3, 1]


def test_what_is_remembered_of_a_stream_is_not_asked_of_another_revision(bench: Bench) -> None:
    bench.load()
    remembered = Remembered(torch.zeros(1, 2), torch.ones(1))
    bench.ask(image(0, pool=Pool(remembered)), image(7, pool=Pool()), image(8))
    wait_for(lambda: bench.compared == 2)
    assert bench.source.engine.batches == [1, 1]


def test_a_hung_shadow_drops_what_its_queue_has_no_room_for(source: Source) -> None:
    source.engine.gate = threading.Event()
    bench = Bench(source)
    bench.load()
    bench.ask(image(0))
    wait_for(lambda: source.engine.batches == [1])
    for _ in range(MOST_WAITING + 5):
        bench.ask(image(0))
    assert bench.value("mass_shadow_dropped_total") == 5
    assert bench.compared == 0
    source.engine.gate.set()
    wait_for(lambda: bench.compared == MOST_WAITING + 1)
    bench.shadow.close()


def test_it_waits_until_the_device_has_nothing_else_to_do(bench: Bench) -> None:
    bench.load()
    bench.has_room = False
    bench.ask(image(0))
    wait_for(lambda: bench.asked_for_room > 2)
    assert bench.source.engine.batches == []
    bench.has_room = True
    wait_for(lambda: bench.compared == 1)


def test_its_failures_are_counted_and_it_goes_on(bench: Bench) -> None:
    bench.load()
    bench.source.engine.tasks.pop("signs")
    active = FakeEngine(store_revision="r1")
    answers = active.classify_batch([image(0)]).answers
    assert bench.active is not None
    bench.shadow.offer(bench.active, [image(0, green=FAIL)], answers)
    bench.ask(image(4, candidates=("signs",)), image(4))
    wait_for(lambda: bench.compared == 1)
    assert bench.value("mass_shadow_errors_total", what="answer") == 1
    assert bench.value("mass_shadow_errors_total", what="no_task") == 1


def test_without_a_next_revision_nothing_is_loaded_or_taken(bench: Bench) -> None:
    bench.source.following = None
    bench.poll()
    for _ in range(MOST_WAITING + 1):
        bench.ask(image(0))
    assert bench.source.loads == []
    assert bench.value("mass_shadow_dropped_total") == 0
    assert bench.value("mass_shadow_errors_total", what="load") == 0


def test_it_ends_with_its_revision_and_another_one_begins(bench: Bench) -> None:
    bench.load()
    bench.source.following = "r3"
    bench.load()
    assert bench.value("mass_shadow_loaded", revision="r2") is None
    bench.source.following = None
    bench.shadow.poll()
    wait_for(lambda: bench.value("mass_shadow_loaded", revision="r3") is None)
    assert [revision for revision, _ in bench.source.loads] == ["r2", "r3"]


def test_it_gives_way_to_another_active_engine_and_is_loaded_anew(bench: Bench, source: Source) -> None:
    bench.load()
    bench.has_room = False
    bench.ask(image(0))
    before = weakref.ref(source.engine)
    source.engine = Following()
    bench.shadow.give_way()
    bench.active = FakeEngine(store_revision="r1", left_out=("street",))
    bench.load()
    # Neither the queue nor the thread holds an engine that has given way.
    wait_for(lambda: gc.collect() >= 0 and before() is None)
    assert source.loads == [("r2", frozenset()), ("r2", frozenset({"street"}))]
    assert bench.compared == 0


def test_a_thread_that_waits_holds_no_engine(bench: Bench, source: Source) -> None:
    bench.load()
    bench.ask(image(0))
    wait_for(lambda: bench.compared == 1)
    before = weakref.ref(source.engine)
    source.engine = Following()
    bench.shadow.give_way()
    wait_for(lambda: gc.collect() >= 0 and before() is None)


def test_an_engine_is_not_kept_that_was_to_give_way_while_it_was_loaded(bench: Bench, source: Source) -> None:
    source.loading = bench.shadow.give_way
    bench.poll()
    wait_for(lambda: source.loads == [("r2", frozenset())])
    bench.shadow.close()
    wait_for(lambda: not bench.shadow.running)
    assert bench.value("mass_shadow_loaded", revision="r2") is None


def test_a_revision_that_cannot_be_loaded_is_tried_again_later(
    bench: Bench, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.damage = IntegrityError("experts.safetensors is damaged")
    for _ in range(3):
        bench.poll()
    assert [revision for revision, _ in source.loads] == ["r2"]
    assert bench.value("mass_shadow_errors_total", what="load") == 1
    source.damage = None
    monkeypatch.setattr(failed_load, "FIRST_RETRY_SECONDS", 0.0)
    bench.load()
    assert len(source.loads) == 2
    bench.ask(image(0))
    wait_for(lambda: bench.compared == 1)
