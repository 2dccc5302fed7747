"""Texts count by their tokens: in the queue, in batches, in the fair order and in the pace of the device."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from tokenizers import Tokenizer, models

from mass_serve.engine import AnyQuery, BatchReport, Pool, TextQuery
from mass_serve.inputs.texts import TextTokenizer
from mass_serve.server.errors import QueueFullError
from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.serving.admission import Ledger, Ledgers
from mass_serve.server.serving.batcher import Batcher
from mass_serve.server.serving.caller import Caller
from mass_serve.server.serving.ticket import Ticket
from tests.server.fakes import FakeEngine
from tests.server.serving.test_batcher import WAIT, queries, reds, turn

TOKENIZER = TextTokenizer(Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).to_str().encode(), 50)


def text(label: int, tokens: int, pool: Pool | None = None) -> TextQuery:
    """A text of so many tokens, which the fake engine gives that label."""
    words = torch.zeros(tokens, 2, dtype=torch.int64)
    words[1, 0] = label
    return TextQuery(words, pool=pool)


@dataclass
class Reader(FakeEngine):
    """A fake engine of texts that remembers how many tokens its batches had."""

    tokens: list[list[int]] = field(default_factory=list)

    def classify_batch(self, queries: Sequence[AnyQuery]) -> BatchReport:
        self.tokens.append([len(query.words) for query in queries if isinstance(query, TextQuery)])
        return super().classify_batch(queries)


@dataclass
class Bench:
    """A batcher with 100 tokens in a batch and room for 200, before an engine that waits for `gate`."""

    engine: Reader = field(default_factory=lambda: Reader(threading.Event(), tokenizer=TOKENIZER))
    images: Ledger = field(default_factory=lambda: Ledger(8))
    tokens: Ledger = field(default_factory=lambda: Ledger(200, unit="tokens"))
    batcher: Batcher = field(init=False)

    def __post_init__(self) -> None:
        ledgers = Ledgers(self.images, self.tokens)
        # Batches are as large as they may be, however long the one before them was held at the gate.
        self.batcher = Batcher(
            Metrics({}), ledgers, max_batch_images=4, max_batch_tokens=100, max_batch_seconds=1e9
        )

    def admit(self, size: int, caller: str = "a") -> Ticket:
        return self.batcher.admit(self.engine, size, time.monotonic() + WAIT, turn(caller))

    def send(self, *texts: TextQuery, caller: str = "a") -> Ticket:
        ticket = self.admit(sum(len(one.words) for one in texts), caller)
        self.batcher.submit(ticket, texts)
        return ticket

    def occupy(self) -> Ticket:
        """A batch of one text that stays on the device until the gate opens."""
        ticket = self.send(text(99, 2))
        while not self.engine.tokens:
            time.sleep(0.001)
        self.engine.tokens.clear()
        return ticket

    def open(self) -> None:
        assert self.engine.gate is not None
        self.engine.gate.set()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.open()
    made.batcher.close(WAIT)


def test_a_batch_has_as_many_texts_as_their_tokens_allow(bench: Bench) -> None:
    bench.occupy()
    long = bench.send(text(1, 50), text(2, 40))
    short = bench.send(*(text(label, 3) for label in range(20)))
    bench.open()
    assert reds(long) == [1, 2]
    assert reds(short) == list(range(20))
    # In the fair order, in which long and short ones are mixed.
    assert bench.engine.tokens == [[50, *[3] * 16], [3] * 4 + [40]]


def test_texts_of_one_pool_stay_together_also_where_they_are_too_many(bench: Bench) -> None:
    bench.occupy()
    pool = Pool()
    pooled = bench.send(*(text(label, 40, pool) for label in range(3)))
    bench.open()
    assert reds(pooled) == [0, 1, 2]
    assert bench.engine.tokens == [[40, 40, 40]]


def test_the_queue_has_room_for_so_many_tokens(bench: Bench) -> None:
    bench.occupy()
    whole = bench.send(*(text(1, 50) for _ in range(4)))
    assert bench.batcher.places(bench.engine) == (200, 200)
    with pytest.raises(QueueFullError, match=r"200 of 200 tokens"):
        bench.send(text(2, 2))
    with pytest.raises(QueueFullError, match="200 of 200 tokens"):
        bench.batcher.refuse_when_full(Caller("a"), bench.engine)
    bench.open()
    assert reds(whole) == [1] * 4
    assert bench.batcher.places(bench.engine) == (0, 200)


def test_a_request_gets_all_of_its_places_or_none(bench: Bench) -> None:
    bench.occupy()
    bench.send(text(1, 50), text(1, 50), text(1, 50))
    with pytest.raises(QueueFullError, match="150 of 200 tokens"):
        bench.send(text(2, 2), text(2, 49))
    assert bench.batcher.places(bench.engine) == (150, 200)
    assert bench.send(text(3, 50)).waiting == 50


def test_a_caller_of_few_tokens_takes_places_of_one_that_has_many(bench: Bench) -> None:
    bench.occupy()
    flood = [bench.send(text(1, 50), caller="flood") for _ in range(4)]
    neighbour = bench.send(text(2, 3), caller="neighbour")
    with pytest.raises(QueueFullError, match="others have less of it"):
        flood[-1].future.result(WAIT)
    bench.open()
    assert reds(neighbour) == [2]


def test_what_was_guessed_is_corrected_when_it_is_known(bench: Bench) -> None:
    bench.occupy()
    guessed = bench.admit(180)
    with pytest.raises(QueueFullError):
        bench.admit(50)
    bench.batcher.submit(guessed, [text(1, 3), text(2, 7)])
    assert bench.batcher.places(bench.engine) == (10, 200)
    other = bench.send(text(3, 50), caller="b")
    bench.open()
    assert reds(guessed) == [1, 2]
    assert reds(other) == [3]
    assert bench.batcher.places(bench.engine) == (0, 200)


def test_callers_take_turns_by_tokens(bench: Bench) -> None:
    """Who sends long texts gets fewer of them into a batch than who sends short ones."""
    bench.occupy()
    long = bench.send(*(text(1, 30) for _ in range(4)), caller="long")
    short = bench.send(*(text(2, 5) for _ in range(10)), caller="short")
    bench.open()
    assert (reds(long), reds(short)) == ([1] * 4, [2] * 10)
    first = bench.engine.tokens[0]
    assert abs(first.count(30) * 30 - first.count(5) * 5) <= 30


def test_the_pace_of_images_tells_nothing_of_texts(bench: Bench) -> None:
    """A store of the other kind may have been here before."""
    bench.images.device_took(1, 30.0)
    bench.occupy()
    waiting = bench.send(text(1, 50))
    bench.open()
    assert reds(waiting) == [1]
    assert bench.tokens._device_pace.per_unit < 1.0


def test_images_do_not_fill_the_queue_of_texts(bench: Bench) -> None:
    bench.occupy()
    of_images = FakeEngine()
    ticket = bench.batcher.admit(of_images, 8, time.monotonic() + WAIT, turn())
    assert bench.batcher.places(of_images) == (8, 8)
    assert bench.batcher.places(bench.engine) == (0, 200)
    assert bench.send(text(1, 50)).waiting == 50
    bench.batcher.submit(ticket, queries(*range(8)))
    bench.open()
    assert reds(ticket) == list(range(8))
    assert max(of_images.batches) <= 4
