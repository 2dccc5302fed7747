"""The queue's promises: bounded, fair, nobody left waiting, nothing computed for nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from functools import partial

import pytest
import torch

from mass_serve.engine import AnyAnswer, AnyQuery, BatchReport, Classification, Pool, Query
from mass_serve.server.errors import (
    BatchFailedError,
    DeadlineError,
    DrainingError,
    NoMemoryError,
    NotFiniteError,
    QueueFullError,
    WorkerDiedError,
)
from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.serving import batcher
from mass_serve.server.serving.admission import FIRST_SECONDS, Ledger, Ledgers
from mass_serve.server.serving.batcher import Batcher
from mass_serve.server.serving.caller import Caller
from mass_serve.server.serving.fair_queue import ORDINARY_PRIORITY, Turn
from mass_serve.server.serving.ticket import Ticket
from tests.server.fakes import DIE, FAIL, LARGE, NOT_FINITE, UNREADABLE, FakeEngine

WAIT = 10.0


def queries(*reds: int, green: int = 0, pool: Pool | None = None) -> list[Query]:
    pixels = [torch.tensor([red, green, 0], dtype=torch.uint8).view(3, 1, 1) for red in reds]
    return [Query(one, pool=pool) for one in pixels]


def turn(caller: str = "a") -> Turn:
    return Turn(caller, ORDINARY_PRIORITY)


class Bench:
    """A batcher in front of a fake engine whose batches wait for `gate`."""

    def __init__(
        self,
        max_batch_images: int = 4,
        max_batch_tokens: int = 100,
        queue_images: int = 8,
        queue_tokens: int = 200,
        max_batch_seconds: float = 0.5,
        batch_delay: float = 0.0,
        engine: FakeEngine | None = None,
    ) -> None:
        self.engine = engine or FakeEngine(gate=threading.Event())
        self.ledger = Ledger(queue_images)
        self.of_texts = Ledger(queue_tokens, unit="tokens")
        self.batcher = Batcher(
            Metrics({}),
            Ledgers(self.ledger, self.of_texts),
            max_batch_images=max_batch_images,
            max_batch_tokens=max_batch_tokens,
            max_batch_seconds=max_batch_seconds,
            batch_delay=batch_delay,
        )

    def send(
        self,
        *reds: int,
        green: int = 0,
        seconds: float = WAIT,
        priority: int = ORDINARY_PRIORITY,
        engine: FakeEngine | None = None,
        caller: str = "a",
        share: float = 1.0,
        pool: Pool | None = None,
    ) -> Ticket:
        deadline = time.monotonic() + seconds
        turn = Turn(caller, priority, share)
        ticket = self.batcher.admit(engine or self.engine, len(reds), deadline, turn)
        self.batcher.submit(ticket, queries(*reds, green=green, pool=pool))
        return ticket

    def admit_one(self) -> Ticket:
        """A ticket whose image is still being decoded."""
        return self.batcher.admit(self.engine, 1, time.monotonic() + WAIT, turn())

    def occupy(self) -> Ticket:
        """A batch of one that is on the device and stays there until the gate opens."""
        ticket = self.send(99)
        while not self.engine.batches:
            time.sleep(0.001)
        return ticket

    def open(self) -> None:
        assert self.engine.gate is not None
        self.engine.gate.set()


def reds(ticket: Ticket) -> list[int]:
    return reds_of(ticket.future.result(WAIT))


def reds_of(answers: Sequence[AnyAnswer]) -> list[int]:
    return [int(answer.logits.argmax()) for answer in answers if isinstance(answer, Classification)]


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.open()
    made.batcher.close(WAIT)


def test_requests_share_a_batch_and_get_their_own_answers(bench: Bench) -> None:
    bench.occupy()
    first, second = bench.send(1, 2), bench.send(3)
    bench.open()
    assert (reds(first), reds(second)) == ([1, 2], [3])
    assert bench.engine.batches == [1, 3]


def test_a_request_larger_than_a_batch_is_split(bench: Bench) -> None:
    bench.occupy()
    ticket = bench.send(*range(7))
    bench.open()
    assert reds(ticket) == list(range(7))
    assert bench.engine.batches == [1, 4, 3]
    assert ticket.stage_seconds["second_pass"] == pytest.approx(0.004)  # of both batches


def test_a_pool_goes_into_one_batch_and_waits_for_one_with_room(bench: Bench) -> None:
    bench.occupy()
    first, second = bench.send(1, 2, 3, pool=Pool()), bench.send(4, 5, 6, pool=Pool())
    single = bench.send(7)
    bench.open()
    assert [reds(ticket) for ticket in (first, second, single)] == [[1, 2, 3], [4, 5, 6], [7]]
    assert bench.engine.batches == [1, 3, 4], "the single image does not pass the second pool"


def test_a_pool_is_not_cut_where_batches_are_kept_short_for_a_slow_device(bench: Bench) -> None:
    bench.ledger.device_took(1, 30.0)
    bench.occupy()
    first, pool = bench.send(1, seconds=3600), bench.send(2, 3, 4, 5, pool=Pool(), seconds=3600)
    bench.open()
    assert (reds(first), reds(pool)) == ([1], [2, 3, 4, 5])
    assert 4 in bench.engine.batches


def test_a_pool_counts_as_many_images_as_it_has_where_a_batch_waits_to_be_full() -> None:
    bench = Bench(batch_delay=WAIT)
    bench.open()
    assert reds(bench.send(1, 2, 3, 4, pool=Pool())) == [1, 2, 3, 4]
    assert bench.batcher.close(WAIT)


def test_callers_take_turns_with_one_whose_images_are_pooled(bench: Bench) -> None:
    """A pool costs what its images do, so that it is no way to have more than others."""
    bench.occupy()
    order: list[str] = []
    for _ in range(2):
        for caller, reds_, pool in (("pooling", (1, 2, 3), Pool()), ("single", (4,), None)):
            ticket = bench.send(*reds_, caller=caller, pool=pool)
            ticket.future.add_done_callback(partial(lambda name, _: order.append(name), caller))
    bench.open()
    assert bench.batcher.close(WAIT)
    assert order == ["pooling", "single", "single", "pooling"]


def test_the_time_in_the_queue_is_told(bench: Bench) -> None:
    bench.occupy()
    ticket = bench.send(*range(7))
    time.sleep(0.05)
    bench.open()
    reds(ticket)
    assert 0.05 <= ticket.stage_seconds["queue"] < WAIT


def test_urgent_requests_come_first_and_equals_in_their_order(bench: Bench) -> None:
    bench.occupy()
    order: list[int] = []
    for red, priority in ((1, 2), (2, 3), (3, 1), (4, 2), (5, 1), (6, 3)):
        ticket = bench.send(red, priority=priority)
        ticket.future.add_done_callback(lambda future: order.extend(reds_of(future.result())))
    bench.open()
    bench.batcher.close(WAIT)
    assert order == [3, 5, 1, 4, 2, 6]
    assert bench.engine.batches == [1, 4, 2]


def test_admission_is_all_or_nothing_and_bounded_in_images(bench: Bench) -> None:
    bench.occupy()
    bench.send(1, 2, 3, 4, 5)
    with pytest.raises(QueueFullError):
        bench.send(6, 7, 8, 9)
    assert reds_after_opening(bench, bench.send(6, 7, 8)) == [6, 7, 8]


def reds_after_opening(bench: Bench, ticket: Ticket) -> list[int]:
    bench.open()
    return reds(ticket)


def test_a_place_is_held_while_decoding_and_given_back_when_that_fails(bench: Bench) -> None:
    ticket = bench.batcher.admit(bench.engine, 8, time.monotonic() + WAIT, turn())
    with pytest.raises(QueueFullError):
        bench.send(1)
    ticket.future.cancel()
    assert reds_after_opening(bench, bench.send(1)) == [1]


def test_abandoned_work_gives_its_place_back_and_never_runs(bench: Bench) -> None:
    bench.occupy()
    abandoned = bench.send(1, 2, 3, 4, 5, 6, 7, 8)
    abandoned.future.cancel()
    kept = bench.send(9)
    assert reds_after_opening(bench, kept) == [9]
    assert bench.engine.batches == [1, 1]
    with pytest.raises(CancelledError):
        abandoned.future.result(WAIT)


def test_the_rest_of_a_large_request_is_dropped_when_it_is_abandoned(bench: Bench) -> None:
    large = bench.send(*range(8))
    while not bench.engine.batches:
        time.sleep(0.001)
    large.future.cancel()
    assert reds_after_opening(bench, bench.send(9)) == [9]
    assert bench.engine.batches == [4, 1]


def test_expired_work_never_runs(bench: Bench) -> None:
    bench.occupy()
    late = bench.send(1, seconds=0.01)
    time.sleep(0.02)
    bench.open()
    with pytest.raises(DeadlineError):
        late.future.result(WAIT)
    assert reds(bench.send(2)) == [2]
    assert bench.engine.batches == [1, 1]


def test_a_failed_batch_fails_all_of_it_and_nothing_else(bench: Bench) -> None:
    bench.occupy()
    good, bad = bench.send(1), bench.send(2, green=FAIL)
    later = bench.send(3, 4, 5)
    bench.open()
    for ticket in (good, bad):
        with pytest.raises(BatchFailedError) as caught:
            ticket.future.result(WAIT)
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert "asked to fail" not in str(caught.value)
    # `later` shared the failed batch by two of its images.
    with pytest.raises(BatchFailedError):
        later.future.result(WAIT)
    assert reds(bench.send(6)) == [6]
    assert not bench.batcher.died


def test_an_image_without_a_finite_answer_fails_alone(bench: Bench) -> None:
    bench.occupy()
    good, bad = bench.send(1, 2), bench.send(3, green=NOT_FINITE)
    bench.open()
    assert reds(good) == [1, 2]
    with pytest.raises(NotFiniteError):
        bad.future.result(WAIT)
    assert bench.engine.batches == [1, 3]


def test_a_batch_without_memory_is_answered_in_halves(bench: Bench) -> None:
    bench.engine.large_images = 2
    bench.occupy()
    tickets = [bench.send(1, green=LARGE), bench.send(2, 3, green=LARGE), bench.send(4)]
    bench.open()
    assert [reds(ticket) for ticket in tickets] == [[1], [2, 3], [4]]
    assert bench.engine.batches == [1, 4, 2, 2]


def test_a_request_whose_task_cannot_be_read_again_fails_alone(bench: Bench) -> None:
    bench.occupy()
    good, unreadable, other = bench.send(1), bench.send(2, green=UNREADABLE), bench.send(3, 4)
    bench.open()
    assert (reds(good), reds(other)) == ([1], [3, 4])
    with pytest.raises(BatchFailedError):
        unreadable.future.result(WAIT)
    assert not bench.batcher.died


def test_an_image_that_never_fits_the_memory_fails_alone(bench: Bench) -> None:
    bench.engine.large_images = 0
    bench.occupy()
    good, large, other = bench.send(1), bench.send(2, green=LARGE), bench.send(3, 4)
    bench.open()
    assert (reds(good), reds(other)) == ([1], [3, 4])
    with pytest.raises(NoMemoryError):
        large.future.result(WAIT)
    assert not bench.batcher.died


def test_a_pool_that_does_not_fit_the_memory_fails_alone_and_whole(bench: Bench) -> None:
    bench.engine.large_images = 1
    bench.occupy()
    good, pool = bench.send(1), bench.send(2, 3, green=LARGE, pool=Pool())
    bench.open()
    assert reds(good) == [1]
    with pytest.raises(NoMemoryError, match="2 inputs of the same_task at once; send fewer"):
        pool.future.result(WAIT)
    assert bench.engine.batches == [1, 3, 1, 2]


def test_another_engine_gets_batches_of_its_own(bench: Bench) -> None:
    newer = FakeEngine()
    bench.occupy()
    tickets = [bench.send(1), bench.send(2, engine=newer), bench.send(3, engine=newer), bench.send(4)]
    bench.open()
    assert [reds(ticket) for ticket in tickets] == [[1], [2], [3], [4]]
    assert (bench.engine.batches, newer.batches) == ([1, 2], [2])


def test_callers_take_turns_image_by_image(bench: Bench) -> None:
    bench.occupy()
    order: list[int] = []
    flood = bench.send(1, 2, 3, 4, 5, caller="flood")
    neighbours = [bench.send(6, caller="b"), bench.send(7, caller="b"), bench.send(8, caller="c")]
    for ticket in (flood, *neighbours):
        ticket.future.add_done_callback(lambda future: order.extend(reds_of(future.result())))
    bench.open()
    bench.batcher.close(WAIT)
    assert reds(flood) == [1, 2, 3, 4, 5]
    assert [reds(ticket) for ticket in neighbours] == [[6], [7], [8]]
    assert bench.engine.batches == [1, 4, 4]
    assert order == [6, 8, 7, 1, 2, 3, 4, 5], (
        "the first batch has an image of the flood and one of each, and more"
    )


@pytest.mark.parametrize(("seconds", "images"), [(1500.0, 3), (2500.0, 5)])
def test_a_batch_has_no_more_than_the_device_answers_in_time(seconds: float, images: int) -> None:
    bench = Bench(max_batch_images=8, queue_images=100, max_batch_seconds=seconds)
    bench.ledger.device_took(1, 1000.0)
    bench.occupy()  # with an image that takes no time: 444 seconds an image are expected from here on
    tickets = [bench.send(n, seconds=1e6) for n in range(8)]
    bench.open()
    assert [reds(ticket) for ticket in tickets] == [[n] for n in range(8)]
    assert bench.engine.batches[:2] == [1, images]
    assert bench.batcher.close(WAIT)


def test_batches_are_large_again_soon_after_one_slow_image() -> None:
    bench = Bench(max_batch_images=8, queue_images=100)
    bench.ledger.device_took(1, 30.0)
    bench.occupy()
    tickets = [bench.send(n, seconds=3600) for n in range(30)]
    bench.open()
    assert [reds(ticket) for ticket in tickets] == [[n] for n in range(30)]
    assert bench.engine.batches[0] == 1
    assert 8 in bench.engine.batches
    assert bench.batcher.close(WAIT)


def test_a_share_of_two_has_two_images_of_three() -> None:
    bench = Bench(max_batch_images=3, queue_images=100)
    bench.occupy()
    order: list[str] = []
    for _ in range(6):
        for caller, share in (("large", 2.0), ("small", 1.0)):
            ticket = bench.send(1, caller=caller, share=share)
            ticket.future.add_done_callback(partial(lambda name, _: order.append(name), caller))
    bench.open()
    assert bench.batcher.close(WAIT)
    assert [order[:9].count(name) for name in ("large", "small")] == [6, 3]


def test_who_holds_the_queue_makes_room(bench: Bench) -> None:
    bench.occupy()
    flood = [bench.send(n, n, caller="flood") for n in range(4)]
    neighbour = bench.send(9, caller="neighbour")
    with pytest.raises(QueueFullError, match="others have less of it"):
        flood[3].future.result(0)
    bench.batcher.refuse_when_full(Caller("neighbour"), None)
    bench.open()
    assert [reds(ticket) for ticket in (*flood[:3], neighbour)] == [[0, 0], [1, 1], [2, 2], [9]]
    assert sum(bench.engine.batches) == 1 + 6 + 1


def test_a_request_that_is_still_decoded_makes_room_too(bench: Bench) -> None:
    decoding = bench.batcher.admit(bench.engine, 8, time.monotonic() + WAIT, turn("flood"), 8.0)
    neighbour = bench.send(9, caller="neighbour")
    with pytest.raises(QueueFullError):
        decoding.future.result(0)
    bench.batcher.submit(decoding, queries(*range(8)))
    assert reds_after_opening(bench, neighbour) == [9]
    assert bench.engine.batches == [1], "what nobody waits for does not run"


def test_a_full_queue_is_told_before_a_body_is_read(bench: Bench) -> None:
    bench.occupy()
    bench.send(*range(8), caller="flood")
    with pytest.raises(QueueFullError):
        bench.batcher.refuse_when_full(Caller("flood"), None)
    bench.batcher.refuse_when_full(Caller("neighbour"), None)


def test_abandoned_work_leaves_at_once(bench: Bench) -> None:
    bench.occupy()
    abandoned = bench.send(1, 2)
    assert (len(bench.batcher._queue), bench.ledger.waiting) == (2, 2)
    abandoned.future.cancel()
    assert (len(bench.batcher._queue), bench.ledger.waiting) == (0, 0)
    assert bench.batcher.oldest_seconds == 0.0


def test_the_ages_of_the_queue_and_of_the_batch(bench: Bench) -> None:
    assert (bench.batcher.oldest_seconds, bench.batcher.batch_seconds) == (0.0, 0.0)
    running = bench.occupy()
    decoding = bench.admit_one()
    assert bench.batcher.oldest_seconds == 0.0, "what is being decoded does not wait for the device"
    waiting = bench.send(1)
    time.sleep(0.05)
    bench.send(2)
    assert 0.05 <= bench.batcher.oldest_seconds < WAIT
    assert 0.05 <= bench.batcher.batch_seconds < WAIT
    decoding.future.cancel()
    bench.open()
    assert (reds(running), reds(waiting)) == ([99], [1])
    assert bench.batcher.close(WAIT)
    assert (bench.batcher.oldest_seconds, bench.batcher.batch_seconds) == (0.0, 0.0)


def test_work_is_decoded_when_it_is_handed_over(bench: Bench) -> None:
    bench.occupy()
    ticket = bench.batcher.admit(bench.engine, 2, time.monotonic() + WAIT, turn(), 5.0)
    assert ticket.decode_cost == 5.0
    bench.batcher.submit(ticket, queries(1, 2))
    assert ticket.decode_cost == 0.0


def test_a_hung_worker_is_given_up(bench: Bench) -> None:
    hung, waiting, decoding = bench.occupy(), bench.send(1), bench.admit_one()
    bench.batcher.fail_if_hung(WAIT)
    assert not bench.batcher.died
    time.sleep(0.02)
    bench.batcher.fail_if_hung(0.01)
    for ticket in (hung, waiting, decoding):
        with pytest.raises(WorkerDiedError):
            ticket.future.result(WAIT)
    assert bench.batcher.died


def test_an_idle_worker_is_not_hung(bench: Bench) -> None:
    bench.open()
    assert reds(bench.send(1)) == [1]
    time.sleep(0.02)
    bench.batcher.fail_if_hung(0.01)
    assert not bench.batcher.died


def test_too_few_answers_are_a_failed_batch() -> None:
    class Forgetful(FakeEngine):
        def classify_batch(self, queries: Sequence[AnyQuery]) -> BatchReport:  # noqa: ARG002
            return BatchReport([], {}, [], 0)

    bench = Bench(engine=Forgetful())
    with pytest.raises(BatchFailedError):
        bench.send(1).future.result(WAIT)
    assert bench.batcher.close(WAIT)


def test_too_many_answers_are_a_failed_batch() -> None:
    class Generous(FakeEngine):
        def classify_batch(self, queries: Sequence[AnyQuery]) -> BatchReport:
            return super().classify_batch([*queries, *queries])

    bench = Bench(engine=Generous())
    with pytest.raises(BatchFailedError):
        bench.send(1).future.result(WAIT)
    assert bench.batcher.close(WAIT)


@pytest.mark.parametrize("decoded", [True, False])
def test_a_dead_worker_fails_everything_at_once(bench: Bench, decoded: bool) -> None:
    bench.occupy()
    fatal = bench.send(1, 2, 3, 4, green=DIE)
    waiting = bench.send(5) if decoded else bench.admit_one()
    bench.open()
    for ticket in (fatal, waiting):
        with pytest.raises(WorkerDiedError):
            ticket.future.result(WAIT)
    assert bench.batcher.died
    with pytest.raises(WorkerDiedError):
        bench.send(6)


def test_a_lost_device_ends_the_worker() -> None:
    class Lost(FakeEngine):
        def classify_batch(self, queries: Sequence[AnyQuery]) -> BatchReport:  # noqa: ARG002
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    bench = Bench(engine=Lost())
    with pytest.raises(BatchFailedError):
        bench.send(1).future.result(WAIT)
    assert bench.batcher.close(WAIT)
    assert bench.batcher.died


def test_closing_answers_what_was_admitted_and_takes_no_more(bench: Bench) -> None:
    bench.occupy()
    waiting = bench.send(1, 2)
    decoding = bench.admit_one()
    closing = threading.Thread(target=bench.batcher.close, args=(WAIT,))
    closing.start()
    while True:
        try:
            bench.send(3, seconds=0)
        except DrainingError:
            break
        time.sleep(0.001)
    bench.open()
    assert reds(waiting) == [1, 2]
    closing.join(0.05)
    assert closing.is_alive()  # the queue is empty, but an admitted request is still being decoded
    bench.batcher.submit(decoding, queries(4))
    assert reds(decoding) == [4]
    closing.join(WAIT)
    assert not closing.is_alive()


def test_the_delay_fills_batches_and_a_full_one_does_not_wait() -> None:
    bench = Bench(max_batch_images=4, batch_delay=5.0)
    bench.open()
    started = time.monotonic()
    tickets = [bench.send(n) for n in range(4)]
    assert [reds(ticket) for ticket in tickets] == [[0], [1], [2], [3]]
    assert time.monotonic() - started < 4.0
    assert bench.engine.batches == [4]
    bench.send(5)
    assert bench.batcher.close(WAIT)  # a closing batcher does not wait either
    assert time.monotonic() - started < 4.0


def test_the_delay_ends() -> None:
    bench = Bench(batch_delay=0.05)
    bench.open()
    assert reds(bench.send(5)) == [5]
    assert bench.batcher.close(WAIT)


def test_an_idle_device_waits_for_those_who_are_about_to_be_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "COMPANY_SECONDS", 2 * WAIT)
    bench = Bench()
    bench.open()
    first, second = bench.admit_one(), bench.admit_one()
    bench.batcher.submit(first, queries(1))
    time.sleep(0.05)
    assert bench.engine.batches == []
    bench.batcher.submit(second, queries(2))
    assert (reds(first), reds(second), bench.engine.batches) == ([1], [2], [2])
    assert bench.batcher.close(WAIT)


def test_the_device_does_not_wait_for_those_that_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "COMPANY_SECONDS", 2 * WAIT)
    bench = Bench()
    bench.open()
    ready, *decoding = (bench.admit_one() for _ in range(3))
    bench.batcher.submit(ready, queries(1))
    time.sleep(0.05)  # the device has set its clock
    for one in decoding:
        one.future.cancel()
    assert reds(ready) == [1]
    assert bench.batcher.close(WAIT)


def test_the_device_waits_once_for_one_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "COMPANY_SECONDS", 1.0)
    bench = Bench()
    bench.open()
    hung, began = bench.admit_one(), time.monotonic()
    assert [reds(bench.send(n)) for n in range(5)] == [[0], [1], [2], [3], [4]]
    assert 1.0 <= time.monotonic() - began < 4.0, "the first has waited, and no other, or it were 5 seconds"
    hung.future.cancel()
    assert bench.batcher.close(WAIT)


def test_the_device_does_not_wait_for_ever(bench: Bench) -> None:
    bench.open()
    for _ in range(3):
        bench.admit_one()
    assert reds(bench.send(1)) == [1]


def test_many_threads_lose_nothing() -> None:
    bench = Bench(max_batch_images=8, queue_images=100_000)
    bench.open()
    tickets: dict[int, Ticket] = {}

    def client(start: int) -> None:
        for n in range(start, start + 50):
            # With time enough: on a busy machine so long a queue would else be refused as too slow.
            tickets[n] = bench.send(*([n % 256] * (n % 5 + 1)), seconds=3600)

    threads = [threading.Thread(target=client, args=(50 * k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(reds(ticket) == [n % 256] * (n % 5 + 1) for n, ticket in tickets.items())
    assert max(bench.engine.batches) <= 8
    assert bench.batcher.close(WAIT)


def _slow_and_occupied() -> Bench:
    """A batcher with an image on the device, that knows one to take 0.2 seconds (more on a busy machine)."""
    bench = Bench(max_batch_images=1)
    assert bench.engine.gate is not None
    first = bench.send(1)
    time.sleep(0.2)
    bench.open()
    first.future.result(WAIT)
    for _ in range(int(FIRST_SECONDS / 0.2)):  # as if it had gone on so until its pace counts
        bench.ledger.device_took(1, bench.ledger._device_pace.per_unit)
    bench.engine.gate.clear()
    bench.engine.batches.clear()
    bench.occupy()
    return bench


def test_a_request_that_cannot_be_answered_in_time_is_refused_at_once() -> None:
    bench = _slow_and_occupied()
    waiting = [bench.send(2), bench.send(3), bench.send(4)]
    with pytest.raises(QueueFullError, match="3 images are ahead"):
        bench.send(5, seconds=0.3)
    patient, urgent = bench.send(6), bench.send(7, seconds=0.3, priority=ORDINARY_PRIORITY - 1)
    bench.open()
    for ticket in (*waiting, patient, urgent):
        assert len(ticket.future.result(WAIT)) == 1


def test_the_batch_on_the_device_and_the_request_itself_take_time_too() -> None:
    bench = _slow_and_occupied()
    bench.send(2)
    pace = bench.ledger._device_pace.per_unit
    with pytest.raises(QueueFullError, match="1 images are ahead"):
        bench.send(3, seconds=2.5 * pace)  # one waits, one is on the device, and it would be the third
    bench.open()
    assert bench.send(4).future.result(WAIT)


def test_nobody_is_refused_while_nobody_waits() -> None:
    bench = Bench()
    first = bench.send(1)
    time.sleep(1.0)
    bench.open()
    first.future.result(WAIT)
    # Less than an image has taken of late, and long enough for a busy machine.
    assert bench.send(2, seconds=0.9).future.result(WAIT)
