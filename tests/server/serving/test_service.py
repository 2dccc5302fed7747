"""One service for many callers: ceilings, room for those who have little, bytes by what they become."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from mass_serve.engine import Question, ServingEngine
from mass_serve.sandbox.image_jobs import predicted_seconds
from mass_serve.server.errors import (
    BadRequestError,
    DeadlineError,
    MemoryFullError,
    NotFoundError,
    QueueFullError,
)
from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.serving import freed_memory, service
from mass_serve.server.serving.admission import Ledger
from mass_serve.server.serving.caller import Caller
from mass_serve.server.serving.decoders import LARGE, SMALL, survey_files
from mass_serve.server.serving.request_context import Answers, EncodedImages, RequestContext, Urgency
from mass_serve.server.serving.service import Service
from mass_serve.server.settings import Settings, load_settings
from tests.pictures import picture
from tests.server.fakes import LABELS, FakeEngine, task_entry

PATIENCE = 60.0


@dataclass(frozen=True)
class FakeSource:
    engine: FakeEngine

    def revision(self) -> str:
        return "fake-1"

    def load(self, without: frozenset[str], previous: ServingEngine | None) -> FakeEngine:  # noqa: ARG002
        return self.engine

    def next(self) -> FakeSource:
        return self


@dataclass
class Bench:
    """A service whose engine waits for `gate`."""

    settings: Settings
    gate: threading.Event = field(default_factory=threading.Event)
    service: Service = field(init=False)
    engine: FakeEngine = field(init=False)

    def __post_init__(self) -> None:
        self.engine = FakeEngine(gate=self.gate)
        self.service = Service(self.settings, FakeSource(self.engine), Metrics({}))

    def context(self, caller: str, **known: object) -> RequestContext:
        deadline = time.monotonic() + PATIENCE
        return RequestContext("r", Caller(caller), deadline=deadline, **known)  # type: ignore[arg-type]

    async def ask(self, caller: str, *reds: int, priority: int = 2) -> list[int]:
        """The answers to images of these colours."""
        answers = await self.service.classify(
            EncodedImages([picture(red) for red in reds]),
            Question(),
            self.context(caller),
            Urgency(None, priority),
        )
        return reds_of(answers)

    async def until(self, happened: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)


def reds_of(answers: Answers) -> list[int]:
    return [int(answer.logits.argmax()) for answer in answers.classifications]


def with_service(test: Callable[[Bench], Awaitable[None]], **settings: object) -> None:
    async def run() -> None:
        bench = Bench(load_settings({"decode_workers": 1, "store_poll_seconds": 0, **settings}))
        bench.service.start()
        bench.gate.set()  # loading runs an image through the engine
        try:
            await bench.until(lambda: bench.service.ready)
            bench.gate.clear()
            bench.engine.batches.clear()
            await asyncio.wait_for(test(bench), PATIENCE)
        finally:
            bench.gate.set()
            await bench.service.close()

    asyncio.run(run())


def test_a_priority_beyond_the_ceiling_is_served_at_the_ceiling() -> None:
    """Strangers who say 1 do not go before those who say nothing."""

    async def test(bench: Bench) -> None:
        order: list[str] = []

        async def ask(caller: str, red: int, priority: int) -> None:
            await bench.ask(caller, red, priority=priority)
            order.append(caller)

        first = asyncio.ensure_future(bench.ask("first", 1))
        await bench.until(lambda: bench.engine.batches)
        tasks = [asyncio.ensure_future(ask("polite", 2, 2))]
        await bench.until(lambda: bench.service.batcher.oldest_seconds)
        tasks += [asyncio.ensure_future(ask("pushy", red, 1)) for red in (3, 4)]
        await bench.until(lambda: len(bench.service.batcher._queue) == 3)
        bench.gate.set()
        await asyncio.gather(first, *tasks)
        assert order == ["polite", "pushy", "pushy"]

    with_service(test, max_batch_images=1)


def test_a_key_with_a_higher_ceiling_goes_first() -> None:
    async def test(bench: Bench) -> None:
        order: list[str] = []

        async def ask(caller: Caller) -> None:
            context = RequestContext("r", caller, deadline=time.monotonic() + PATIENCE)
            await bench.service.classify(EncodedImages([picture(1)]), Question(), context, Urgency(None, 1))
            order.append(caller.name)

        first = asyncio.ensure_future(bench.ask("first", 1))
        await bench.until(lambda: bench.engine.batches)
        tasks = [asyncio.ensure_future(ask(Caller("ordinary")))]
        await bench.until(lambda: len(bench.service.batcher._queue) == 1)
        tasks.append(asyncio.ensure_future(ask(Caller("urgent", top_priority=1))))
        await bench.until(lambda: len(bench.service.batcher._queue) == 2)
        bench.gate.set()
        await asyncio.gather(first, *tasks)
        assert order == ["urgent", "ordinary"]

    with_service(test, max_batch_images=1)


def test_a_request_that_makes_room_is_decoded_no_further() -> None:
    async def test(bench: Bench) -> None:
        flood = asyncio.ensure_future(bench.ask("flood", *range(8)))
        while not bench.service.ledgers.images.open:  # at once: what is on the device makes no room
            await asyncio.sleep(0)
        bench.gate.set()
        assert await bench.ask("neighbour", 9) == [9]
        with pytest.raises(QueueFullError, match="others have less of it"):
            await flood
        assert bench.service.sandbox.oldest_seconds((SMALL, LARGE)) == 0
        assert not bench.service.ledgers.images.open

    with_service(test, queue_images=8, max_images_per_request=8)


def test_what_decoding_should_take_is_admitted_and_learnt_from() -> None:
    async def test(bench: Bench) -> None:
        files = [picture(1, size=(2000, 2000))] * 3
        asking = asyncio.ensure_future(
            bench.service.classify(EncodedImages(files), Question(), bench.context("a"))
        )
        await bench.until(lambda: bench.service.ledgers.images.open)
        [ticket] = bench.service.ledgers.images.open
        [surveyed] = survey_files(files[:1], bench.settings.image_limits)
        assert ticket.decode_cost == pytest.approx(3 * predicted_seconds(files[0], surveyed))
        bench.gate.set()
        await asking
        assert bench.service.ledgers.images._decode_pace.per_unit != 1.0

    with_service(test)


class GuardedLedger(Ledger):
    """Remembers what is asked and told of it by a thread that has not the batcher's lock."""

    guard: threading.Condition | None = None

    def __init__(self, places: int, decoders: int, unit: str = "images") -> None:
        super().__init__(places, decoders, unit=unit)
        self.reached: set[str] = set()
        self.unguarded: set[str] = set()

    def __getattribute__(self, name: str) -> Any:
        if name in OF_THE_LEDGER:
            self._note(name)
        return super().__getattribute__(name)

    def __setattr__(self, name: str, value: object) -> None:
        if name in OF_THE_LEDGER and self.guard is not None:
            self._note(name)
        super().__setattr__(name, value)

    def _note(self, name: str) -> None:
        self.reached.add(name)
        if self.guard is not None and not self.guard._is_owned():  # type: ignore[attr-defined]
            self.unguarded.add(name)


OF_THE_LEDGER = frozenset(
    (
        *("admit", "forget", "decode_took", "device_took", "places_within", "on_device", "waiting", "open"),
        "size_was",
    )
)


def test_threads_take_turns_at_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoders tell the event loop of their pace, and the device's thread has one of its own."""
    monkeypatch.setattr(service, "Ledger", GuardedLedger)

    async def test(bench: Bench) -> None:
        ledger = bench.service.ledgers.images
        assert isinstance(ledger, GuardedLedger)
        ledger.guard = bench.service.batcher._changed
        bench.gate.set()
        assert await bench.ask("a", 1, 2) == [1, 2]
        # The device's thread goes on after it has answered.
        await bench.until(lambda: {"device_took", "decode_took"} <= ledger.reached)
        assert ledger.reached == OF_THE_LEDGER
        assert ledger.unguarded == set()

    with_service(test)


def test_files_count_as_held_beside_the_body_that_they_came_in() -> None:
    async def test(bench: Bench) -> None:
        file = picture(7)
        coded = bench.context("a", body_bytes=2 * len(file))
        alone = bench.context("a", body_bytes=len(file))
        bench.gate.set()
        for context in (coded, alone):
            await bench.service.classify(EncodedImages([file]), Question(), context)
        assert (coded.held_bytes, alone.held_bytes) == (len(file), 0)
        assert bench.service.held_bytes == len(file)
        bench.service.release(coded)
        assert bench.service.held_bytes == 0

    with_service(test)


def test_files_that_fill_the_memory_are_refused_before_they_are_decoded() -> None:
    async def test(bench: Bench) -> None:
        bench.service.hold(870, bench.context("b"))
        large = bench.context("a")
        with pytest.raises(MemoryFullError):
            await bench.service.classify(EncodedImages([b"x" * 150]), Question(), large)
        assert large.held_bytes == 0

    with_service(test, max_held_bytes=1000, max_body_bytes=200)


def test_each_answer_takes_a_place_in_the_queue() -> None:
    async def test(bench: Bench) -> None:
        each = bench.service.classify(
            EncodedImages([picture(1), picture(2)]), Question(answer="each"), bench.context("a")
        )
        asking = asyncio.ensure_future(each)
        await bench.until(lambda: bench.engine.batches)
        assert bench.engine.batches == [4], "two images for two tasks"
        [ticket] = bench.service.ledgers.images.open
        assert ticket.size == 4
        bench.gate.set()
        answers = await asking
        assert reds_of(answers) == [1, 1, 2, 2]
        assert [one.task for one in answers.classifications] == ["digits", "signs"] * 2

    with_service(test)


def test_the_queue_is_full_for_many_answers_before_it_is_for_many_images() -> None:
    async def test(bench: Bench) -> None:
        images = EncodedImages([picture(1)] * 4)
        first = asyncio.ensure_future(bench.ask("a", 9))
        await bench.until(lambda: bench.engine.batches)
        waiting = asyncio.ensure_future(bench.ask("a", *range(3)))
        await bench.until(lambda: bench.service.ledgers.images.waiting == 3)
        with pytest.raises(QueueFullError):
            await bench.service.classify(images, Question(answer="each"), bench.context("a"))
        bench.gate.set()
        assert await first + await waiting == [9, 0, 1, 2]

    with_service(test, queue_images=8, max_images_per_request=8)


NO_IMAGE = EncodedImages([b"this is no image, and nobody finds out"] * 5)


@pytest.mark.parametrize(
    ("question", "error", "words"),
    [
        (
            Question(answer="each"),
            BadRequestError,
            "5 images times 2 tasks are 10 answers, and a request may",
        ),
        (Question(("digits", "cats"), "each"), NotFoundError, "no task 'cats'"),
        (Question(same_task=True), BadRequestError, r"one batch, which has 4 \(max_batch_images\), not 5"),
    ],
)
def test_what_asks_for_too_much_is_refused_before_any_work(
    question: Question, error: type[Exception], words: str
) -> None:
    async def test(bench: Bench) -> None:
        context = bench.context("a")
        with pytest.raises(error, match=words):
            await bench.service.classify(NO_IMAGE, question, context)
        assert context.held_bytes == 0
        assert not bench.service.ledgers.images.open
        assert bench.engine.batches == []

    with_service(test, max_images_per_request=8, max_batch_images=4)


def test_as_many_answers_as_a_request_may_have_are_given() -> None:
    async def test(bench: Bench) -> None:
        bench.gate.set()
        images = EncodedImages([picture(red) for red in range(4)])
        answers = await bench.service.classify(images, Question(answer="each"), bench.context("a"))
        assert reds_of(answers) == [0, 0, 1, 1, 2, 2, 3, 3]
        pooled = await bench.service.classify(images, Question(same_task=True), bench.context("a"))
        assert reds_of(pooled) == [0, 1, 2, 3]
        assert bench.engine.batches == [4, 4, 4]

    with_service(test, max_images_per_request=8, max_batch_images=4)


def test_each_is_answered_by_the_tasks_of_the_engine_that_it_was_admitted_for() -> None:
    """Another revision with other tasks takes over while the images are decoded."""

    async def test(bench: Bench) -> None:
        each = bench.service.classify(
            EncodedImages([picture(1)]), Question(answer="each"), bench.context("a")
        )
        asking = asyncio.ensure_future(each)
        await bench.until(lambda: bench.engine.batches)
        newer = FakeEngine(tasks={name: task_entry(name, LABELS) for name in ("digits", "signs", "cars")})
        bench.service.store.engine = newer
        later = asyncio.ensure_future(
            bench.service.classify(EncodedImages([picture(2)]), Question(answer="each"), bench.context("a"))
        )
        bench.gate.set()
        assert [one.task for one in (await asking).classifications] == ["digits", "signs"]
        assert [one.task for one in (await later).classifications] == ["digits", "signs", "cars"]

    with_service(test)


def test_a_limit_of_the_callers_own_counts_from_the_end_of_the_body() -> None:
    """What parsing took, and waiting for it, is not given once more."""

    async def test(bench: Bench) -> None:
        def ask(parsing: float) -> Awaitable[Answers]:
            context = bench.context("a", since=time.monotonic() - parsing)
            images = EncodedImages([picture(1)])
            return bench.service.classify(images, Question(), context, Urgency(timeout=PATIENCE / 2))

        started = time.monotonic()
        with pytest.raises(DeadlineError, match=r"within 30 seconds"):
            await ask(parsing=PATIENCE / 2 - 0.2)
        with pytest.raises(DeadlineError, match=r"within 30 seconds"):
            await ask(parsing=PATIENCE)
        assert time.monotonic() - started < PATIENCE / 4
        assert not bench.service.ledgers.images.open
        bench.gate.set()
        assert reds_of(await ask(parsing=0)) == [1]

    with_service(test)


def test_a_caller_who_leaves_leaves_nothing_behind() -> None:
    async def test(bench: Bench) -> None:
        asking = asyncio.ensure_future(bench.ask("a", *range(20)))
        await bench.until(lambda: bench.service.ledgers.images.open)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not bench.service.ledgers.images.open
        assert bench.service.ledgers.images.waiting == 0

    with_service(test)


def test_memory_that_a_load_leaves_behind_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back = threading.Event()
    monkeypatch.setattr(freed_memory, "_malloc_trim", lambda: given_back.set)

    async def test(bench: Bench) -> None:
        loading = asyncio.wrap_future(bench.service.store.reload())
        await bench.until(lambda: bench.engine.batches)  # the new engine is warmed up
        bench.service.check()
        assert not given_back.is_set()
        bench.gate.set()
        await loading

        def is_given_back() -> bool:
            bench.service.check()
            return given_back.is_set()

        await bench.until(is_given_back)

    with_service(test)
