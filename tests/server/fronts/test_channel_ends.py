"""The two ends of a channel: nobody waits for who does not read, and nonsense harms only who says it."""

from __future__ import annotations

import gc
import json
import queue
import socket
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from mass_serve.engine import AnyQuery, Query, ServingEngine
from mass_serve.inputs.texts import TextTokenizer
from mass_serve.model_store.format.file_names import TOKENIZER_FILE
from mass_serve.server.fronts.answer_form import dumps, loads
from mass_serve.server.fronts.desk import Desk
from mass_serve.server.fronts.expositions import exposition_of_all
from mass_serve.server.fronts.frames import Channel, Kind
from mass_serve.server.fronts.link import Link
from mass_serve.server.fronts.query_form import packed
from mass_serve.server.fronts.remote_engine import Description, RemoteEngine
from mass_serve.server.operation.metrics import Metrics
from tests.server.fakes import FakeEngine
from tests.server_processes import wait_for

QUERIES: list[AnyQuery] = [Query(torch.zeros(3, 2, 2, dtype=torch.uint8))]


class NothingBehind:
    """What a desk has behind it that nobody asks anything but batches, which stay unanswered."""

    def __init__(self) -> None:
        self.numbers: queue.SimpleQueue[int] = queue.SimpleQueue()

    def submit(self, *batch: Any) -> None:
        _, number, *_ = batch
        self.numbers.put(number)

    def description(self, *_: object) -> Description:
        raise AssertionError

    def exposition(self) -> bytes:
        raise AssertionError


@contextmanager
def open_desk(
    name: str = "front_end_1", behind: NothingBehind | None = None
) -> Iterator[tuple[Desk, Channel]]:
    """A desk, and a front end's end of its channel."""
    ours, theirs = socket.socketpair()
    with theirs:
        desk = Desk(Channel(ours), name, behind or NothingBehind())
        desk.start()
        yield desk, Channel(theirs)
        desk.close()


def answer_of(channel: Channel) -> Any:
    """What the next message says, where there is one."""
    frame = channel.receive()
    assert frame is not None
    return loads(frame.body)


def test_a_front_end_that_reads_nothing_holds_nobody_up() -> None:
    with open_desk() as (desk, channel):
        large = torch.zeros(1 << 20)
        for number in range(10):  # returns, though no socket takes so much
            desk.answer(number, large)
        assert answer_of(channel).equal(large)


def test_a_front_end_that_says_nonsense_is_cut_off() -> None:
    with open_desk() as (_, channel):
        channel.send(Kind.BATCH, 3, b"no queries")
        frame = channel.receive()
        assert frame is not None
        assert frame.number == 3
        with pytest.raises(ValueError, match="cannot be read"):
            loads(frame.body)
        channel.send(Kind.STOP)  # is not for a front end to say
        assert channel.receive() is None


def test_what_breaks_its_reader_is_cut_off_too() -> None:
    with open_desk() as (desk, channel):
        handle = desk.hold(FakeEngine())
        channel.send(Kind.PREFETCH, handle, b"[" * 200_000)
        assert channel.receive() is None


def test_an_answer_that_cannot_be_sent_is_an_error_and_the_next_is_sent() -> None:
    with open_desk() as (desk, channel):
        desk.answer(1, threading.Lock())
        with pytest.raises(RuntimeError, match="cannot be sent"):
            answer_of(channel)
        desk.answer(2, "well")
        assert answer_of(channel) == "well"


def test_more_batches_than_a_front_end_needs_cut_it_off() -> None:
    behind = NothingBehind()
    with open_desk(behind=behind) as (desk, channel):
        asked = packed(QUERIES, desk.hold(FakeEngine()))
        channel.send(Kind.BATCH, 1, *asked)
        for number in range(2, 11):
            channel.send(Kind.BATCH, number, *asked)  # while the one before waits
            desk.answer(behind.numbers.get(), number)
            assert answer_of(channel) == number
        channel.send(Kind.BATCH, 11, *asked)
        channel.send(Kind.BATCH, 12, *asked)
        assert channel.receive() is None


HELP = b"# HELP mass_ready 1 while requests are served.\n# TYPE mass_ready gauge\n"


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\xff",
        b"# a remark",
        b"# TYPE mass_ready surprise",
        b"mass_ready",
        b"mass_ready one",
        b'mass_ready{task="a} 1',
        b'mass_ready{process="device"} 1',
        "mass_ready\u2028 1".encode(),
    ],
)
def test_metrics_that_are_none_are_left_out_and_all_others_told(nonsense: bytes) -> None:
    with open_desk() as (bad, bad_channel), open_desk("front_end_2") as (good, good_channel):
        with ThreadPoolExecutor(1) as pool:
            page = pool.submit(exposition_of_all, Metrics({}), [bad, good])
            for channel, told in ((bad_channel, nonsense), (good_channel, b"mass_ready 1.0")):
                frame = channel.receive()
                assert frame is not None
                assert frame.kind is Kind.RENDER
                channel.send(Kind.RENDERED, 0, HELP + told + b"\n")
        families = list(text_string_to_metric_families(page.result().decode()))
    ready = [one for family in families if family.name == "mass_ready" for one in family.samples]
    assert {one.labels["process"]: one.value for one in ready} == {"device": 0, "front_end_2": 1}


@contextmanager
def open_link() -> Iterator[tuple[Link, Channel]]:
    """A front end's link, and the device's end of its channel."""
    ours, theirs = socket.socketpair()
    with theirs, ours:
        link = Link(Channel(ours))
        link.start(lambda _: None)
        channel = Channel(theirs)
        yield link, channel
        channel.hang_up()
        wait_for(lambda: link.is_lost)


def test_a_front_end_does_not_wait_for_a_device_that_does_not_read() -> None:
    with open_link() as (link, channel):
        large = bytes(1 << 22)
        asked = [link.asked(Kind.BATCH, large) for _ in range(10)]  # returns, though no socket takes so much
        link.tell(Kind.PREFETCH, 1, json.dumps(["digits"]).encode())
        kinds = []
        for _ in range(len(asked) + 1):
            frame = channel.receive()
            assert frame is not None
            kinds.append(frame.kind)
            if frame.kind is Kind.BATCH:
                channel.send(Kind.ANSWER, frame.number, dumps(len(frame.body)))
        assert kinds[-1] is Kind.PREFETCH, "in its turn"
        assert [loads(one.result()) for one in asked] == [len(large)] * len(asked)


def test_an_engine_whose_batch_failed_is_forgotten_at_once() -> None:
    with open_link() as (link, channel), ThreadPoolExecutor(1) as pool:
        engine = RemoteEngine(Description.of(FakeEngine(), handle=5, number=1), link, prefetches=False)
        dropped = weakref.ref(engine)
        failing = pool.submit(_fail_next, channel)
        gc.disable()  # no collection shall be needed
        try:
            with pytest.raises(ValueError, match="bad batch"):
                engine.classify_batch(QUERIES)
            failing.result()
            del engine
            assert dropped() is None
        finally:
            gc.enable()
        frame = channel.receive()
        assert frame is not None
        assert (frame.kind, frame.number) == (Kind.FORGET, 5)


def _fail_next(channel: Channel) -> None:
    frame = channel.receive()
    assert frame is not None
    channel.send(Kind.ANSWER, frame.number, dumps(ValueError("bad batch")))


def test_an_equal_tokenizer_is_not_made_anew(text_store: Path) -> None:
    content = (text_store / TOKENIZER_FILE).read_bytes()
    first = FakeEngine(tokenizer=TextTokenizer(content, 16))
    with open_link() as (link, _):

        def remote(engine: ServingEngine, previous: ServingEngine | None) -> RemoteEngine:
            described = loads(bytearray(dumps(Description.of(engine, handle=1, number=1))))
            return RemoteEngine(described, link, prefetches=False, previous=previous)

        before = remote(first, None)
        assert remote(first, before).tokenizer is before.tokenizer
        shorter = remote(FakeEngine(tokenizer=TextTokenizer(content, 8)), before).tokenizer
        assert shorter is not None
        assert shorter.max_tokens == 8
