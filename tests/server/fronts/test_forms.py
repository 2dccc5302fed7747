"""What front ends and the device's process say to each other: queries, answers, frames, shares."""

from __future__ import annotations

import json
import socket
from dataclasses import replace

import pytest
import torch

from mass_serve.engine import (
    AnyQuery,
    BatchReport,
    Classification,
    DeviceLostError,
    Embedding,
    Pool,
    Priors,
    Query,
    TextQuery,
)
from mass_serve.model_store.errors import IntegrityError
from mass_serve.server.errors import NotFoundError
from mass_serve.server.fronts.answer_form import dumps, loads
from mass_serve.server.fronts.frames import HEAD, MAGIC, Channel, Kind, WrongFrameError
from mass_serve.server.fronts.listening import listen_together
from mass_serve.server.fronts.query_form import LENGTH, packed, unpacked
from mass_serve.server.fronts.remote_engine import Description
from mass_serve.server.fronts.share import check_front_ends, share_of
from mass_serve.server.settings import SettingsError, load_settings
from tests.server.fakes import FakeEngine


def sent(queries: list[AnyQuery]) -> list[AnyQuery]:
    handle, found = unpacked(bytearray(b"".join(packed(queries, 7))))
    assert handle == 7
    return found


def test_queries_arrive_as_they_were() -> None:
    pixels = torch.arange(27, dtype=torch.uint8).view(3, 3, 3)
    normalised = torch.randn(3, 5, 5)
    pool, other = Pool(), Pool()
    queries: list[AnyQuery] = [
        Query(pixels),
        Query(pixels, ("digits",), embeds=True),
        Query(normalised, ("digits", "signs"), pool, mode="fast", priors=Priors((("digits", 0.25),))),
        Query(pixels, pool=pool),
        Query(pixels, pool=other),
        TextQuery(torch.tensor([[1, 0], [5, 1], [2, 0]]), ("names",)),
    ]
    found = sent(queries)
    for query, one in zip(queries, found, strict=True):
        assert type(one) is type(query)
        assert (one.candidates, one.embeds, one.mode, one.priors) == (
            query.candidates,
            query.embeds,
            query.mode,
            query.priors,
        )
    assert [
        one.pixels.equal(q.pixels)
        for one, q in zip(found, queries, strict=True)
        if isinstance(one, Query) and isinstance(q, Query)
    ] == [True] * 5
    assert isinstance(found[5], TextQuery)
    assert found[5].words.tolist() == [[1, 0], [5, 1], [2, 0]]
    assert found[2].pool is found[3].pool is not found[4].pool
    assert found[0].pool is None


def head(**changed: object) -> bytearray:
    said = {"handle": 1, "tensors": [["uint8", [3, 1, 1]]], "queries": [{"pixels": 0}]} | changed
    content = json.dumps(said).encode()
    room = -(LENGTH.size + len(content)) % 16
    return bytearray(LENGTH.pack(len(content)) + content + bytes(room + 16))


def test_a_plain_one_is_read() -> None:
    assert len(unpacked(head())[1]) == 1


@pytest.mark.parametrize(
    "body",
    [
        bytearray(),
        bytearray(b"\xff" * 40),
        bytearray(LENGTH.pack(3) + b"[1]"),
        bytearray(LENGTH.pack(1 << 60) + b"{}"),
        head(handle="one"),
        head(tensors=[["uint8", [3, 1000, 1000]]]),
        head(tensors=[["uint8", [-1, -1]]]),
        head(tensors=[["uint8", [1 << 62, 1 << 62]]]),
        head(tensors=[["object", [3]]]),
        head(queries=[{"pixels": 4}]),
        head(queries=[{"words": 0}]),
        head(queries=[{}]),
        head(queries=[{"pixels": 0, "mode": "slow"}]),
        head(queries=[{"pixels": 0, "priors": [["digits", 7]]}]),
        head(queries=[{"pixels": 0, "candidates": 1}]),
        head(queries=7),
    ],
)
def test_what_is_no_question_is_refused(body: bytearray) -> None:
    with pytest.raises(ValueError, match=r"."):
        unpacked(body)


def test_an_answer_has_the_same_bits_and_none_of_its_batch() -> None:
    batch = torch.randn(1000, 256)
    answer = Classification(
        "digits", "r1", ("0", "1"), batch[3], ("digits",), {"digits": 0.9}, {}, 0.1, False, 2.0
    )
    report = BatchReport([answer, None, Embedding(None, None, batch[5])], {"heads": 0.1}, [("digits",)], 0)
    written = dumps(report)
    assert len(written) < 5 * batch[3].nbytes
    found: BatchReport = loads(bytearray(written))
    assert found.answers[1] is None
    assert isinstance(found.answers[0], Classification)
    assert isinstance(found.answers[2], Embedding)
    assert found.answers[0].logits.equal(batch[3])
    assert found.answers[2].values.equal(batch[5])
    assert replace(found.answers[0], logits=answer.logits) == answer


class OddError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (IntegrityError("a file is damaged"), IntegrityError, "a file is damaged"),
        (NotFoundError("no task"), NotFoundError, "no task"),
        (torch.OutOfMemoryError("full"), MemoryError, "full"),
        (json.JSONDecodeError("bad", "x", 0), ValueError, "bad"),
        (DeviceLostError("gone"), DeviceLostError, "gone"),
        (FloatingPointError("not finite"), FloatingPointError, "not finite"),
        (ZeroDivisionError("by zero"), ArithmeticError, "by zero"),
        (OddError("a", "b"), RuntimeError, "OddError: a b"),
        (SystemExit("end"), RuntimeError, "SystemExit: end"),
    ],
)
def test_errors_are_raised_where_they_are_read(
    error: BaseException, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text) as raised:
        loads(bytearray(dumps(error)))
    assert type(raised.value) is kind


def test_frames_arrive_whole_and_others_are_refused() -> None:
    one, other = socket.socketpair()
    with one, other:
        ours, theirs = Channel(one), Channel(other)
        ours.send(Kind.BATCH, 3, b"ab", b"", bytearray(b"c"))
        ours.send(Kind.STOP)
        found = theirs.receive()
        assert found is not None
        assert (found.kind, found.number, bytes(found.body)) == (Kind.BATCH, 3, b"abc")
        assert theirs.receive() is not None
        one.sendall(HEAD.pack(MAGIC, Kind.BATCH, 1, 1 << 40))
        with pytest.raises(WrongFrameError):
            theirs.receive()
        ours.hang_up()
        assert theirs.receive() is None


def test_a_port_is_shared_by_these_sockets_alone() -> None:
    sockets = listen_together("127.0.0.1", 0, 3)
    port = sockets[0].getsockname()[1]
    assert [one.getsockname()[1] for one in sockets] == [port] * 3
    for count in (1, 2):
        with pytest.raises(OSError, match="in use"):
            listen_together("127.0.0.1", port, count)
    for one in sockets:
        one.close()


def test_front_ends_together_have_what_one_has() -> None:
    settings = load_settings({"front_ends": 4, "queue_images": 1000, "decode_workers": 6})
    share = share_of(settings)
    assert (share.queue_images, share.decode_workers) == (250, 2)
    small = share_of(load_settings({"front_ends": 8, "queue_images": 64, "max_images_per_request": 64}))
    assert small.queue_images == 64, "a request of any size is admitted"
    many = share_of(load_settings({"front_ends": 64}))
    assert many.queue_tokens > many.max_text_characters
    assert many.max_held_bytes >= 4 * many.max_body_bytes
    assert share_of(load_settings({"front_ends": 2, "queue_tokens": 1000})).queue_tokens == 1000


@pytest.mark.parametrize("setting", [{"max_streams": 5}, {"priors_half_life": 100}, {"shadow_share": 0.5}])
def test_what_one_process_must_remember_is_refused(setting: dict[str, object]) -> None:
    check_front_ends(load_settings({"front_ends": 2}))
    with pytest.raises(SettingsError, match=f"front_ends.*{next(iter(setting))}"):
        check_front_ends(load_settings({"front_ends": 2} | setting))


def test_an_engine_is_described_whole() -> None:
    engine = FakeEngine(left_out=("gone",), groups={"all": ("digits",)})
    described = loads(bytearray(dumps(Description.of(engine, handle=1, number=2))))
    assert described == Description.of(engine, handle=1, number=2)
    assert list(described.tasks) == ["digits", "signs"]
