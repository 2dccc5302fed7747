"""The parser: refusals, turns, and good requests that look like bad ones."""

from __future__ import annotations

import h11
import pytest

from mass_serve.server.web.metered_parser import (
    FREE_CHUNKS,
    MOST_HEADER_LINES,
    SMALLEST_MEAN_CHUNK_BYTES,
    Event,
    MeteredParser,
    RefusedError,
    SmallChunksError,
)

POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def events(parser: MeteredParser) -> list[Event]:
    """All events that it has, up to those that say that there are no more."""
    found: list[Event] = []
    while True:
        parser.allow(10)
        event = parser.next_event()
        if event in (h11.NEED_DATA, h11.PAUSED):
            return found
        found.append(event)


def parsed(data: bytes, *, piece: int = 1 << 18) -> list[Event]:
    parser = MeteredParser()
    found = []
    for start in range(0, len(data), piece):
        parser.receive_data(data[start : start + piece])
        found += events(parser)
    return found


def body(found: list[Event]) -> bytes:
    return b"".join(bytes(event.data) for event in found if isinstance(event, h11.Data))


def chunks(sizes: list[int]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (size, b"x" * size) for size in sizes) + b"0\r\n\r\n"


def test_no_more_events_than_allowed_come_at_once_and_none_is_lost() -> None:
    parser = MeteredParser()
    parser.receive_data(CHUNKED + chunks([1] * 500))
    found: list[Event] = []
    turns = 0
    while not found or not isinstance(found[-1], h11.EndOfMessage):
        parser.allow(10)
        turn = [parser.next_event() for _ in range(11)]
        assert turn.index(h11.NEED_DATA) <= 10
        found += [event for event in turn if event is not h11.NEED_DATA]
        turns += 1
    assert turns == 51  # a request, 500 chunks and the end
    assert body(found) == b"x" * 500


def test_it_tells_being_held_back_from_having_no_more() -> None:
    parser = MeteredParser()
    parser.receive_data(POST + b"\r\n")
    parser.allow(1)
    assert isinstance(parser.next_event(), h11.Request)
    assert not parser.held_back
    parser.next_event()
    assert parser.held_back
    parser.allow(2)
    parser.next_event()
    parser.next_event()
    assert not parser.held_back


@pytest.mark.parametrize("piece", [7, 1 << 18])
def test_many_tiny_chunks_are_refused(piece: int) -> None:
    with pytest.raises(SmallChunksError, match=f"{SMALLEST_MEAN_CHUNK_BYTES} bytes") as caught:
        parsed(CHUNKED + chunks([1] * (FREE_CHUNKS + 1)), piece=piece)
    assert caught.value.reason == "small_chunks"


@pytest.mark.parametrize(
    "sizes",
    [
        [1] * FREE_CHUNKS,
        [SMALLEST_MEAN_CHUNK_BYTES] * 4 * FREE_CHUNKS,
        [40_000, *[32] * FREE_CHUNKS],
        [100_000] * 10,
    ],
)
@pytest.mark.parametrize("piece", [1 << 10, 1 << 18])
def test_good_chunks_are_taken_however_they_are_cut(sizes: list[int], piece: int) -> None:
    found = parsed(CHUNKED + chunks(sizes), piece=piece)
    assert body(found) == b"x" * sum(sizes)
    assert isinstance(found[-1], h11.EndOfMessage)


def test_a_slow_sender_of_large_chunks_is_not_taken_for_one_of_small_ones() -> None:
    """One byte a segment: a segment is no chunk."""
    sizes = [2 * FREE_CHUNKS, 2 * FREE_CHUNKS]
    assert body(parsed(CHUNKED + chunks(sizes), piece=1)) == b"x" * sum(sizes)


def test_a_length_may_come_in_any_segments() -> None:
    size = 3 * FREE_CHUNKS
    data = POST + b"Content-Length: %d\r\n\r\n" % size + b"x" * size
    assert body(parsed(data, piece=1)) == b"x" * size


def test_the_count_begins_anew_with_each_request() -> None:
    parser = MeteredParser()
    for _ in range(3):
        parser.receive_data(CHUNKED + chunks([1] * (FREE_CHUNKS - 1)))
        assert isinstance(events(parser)[-1], h11.EndOfMessage)
        for event in (h11.Response(status_code=204, headers=[]), h11.EndOfMessage()):
            parser.send(event)
        parser.start_next_cycle()


@pytest.mark.parametrize("piece", [100, 1 << 18])
def test_many_header_lines_are_refused_before_they_are_parsed(piece: int) -> None:
    lines = b"".join(b"x%d: y\r\n" % number for number in range(MOST_HEADER_LINES))
    with pytest.raises(RefusedError, match=str(MOST_HEADER_LINES)):
        parsed(POST + lines + b"\r\n", piece=piece)


def test_as_many_as_that_are_taken() -> None:
    lines = b"".join(b"x%d: y\r\n" % number for number in range(MOST_HEADER_LINES - 2))
    (request, _) = parsed(POST + lines + b"\r\n")
    assert isinstance(request, h11.Request)
    assert len(request.headers) == MOST_HEADER_LINES - 1


@pytest.mark.parametrize(
    "data",
    [
        POST + b"X: " + b"y" * 300_000 + b"\r\n\r\n",
        POST + b"x: y\r\n" * 100_000,
        CHUNKED + b"1;" + b"y" * 300_000 + b"\r\nx\r\n0\r\n\r\n",
    ],
    ids=["a long line", "no end", "a chunk's extension"],
)
def test_long_heads_and_tails_are_refused(data: bytes) -> None:
    with pytest.raises(h11.RemoteProtocolError):
        parsed(data)


@pytest.mark.parametrize(
    "data",
    [
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
        POST + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_two_ways_to_see_the_end_of_a_body_are_refused(data: bytes) -> None:
    with pytest.raises(RefusedError, match="two ways"):
        parsed(data + b"0\r\n\r\n")


@pytest.mark.parametrize(
    "line",
    [
        b"Content-Length: 4\r\nContent-Length: 5",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Content-Length: +4",
        b"Content-Length : 4",
        b"Host: y",
    ],
)
def test_what_is_ambiguous_stays_refused(line: bytes) -> None:
    with pytest.raises(h11.RemoteProtocolError):
        parsed(POST + line + b"\r\n\r\nabcd")


def test_many_lines_behind_a_body_are_refused() -> None:
    with pytest.raises(RefusedError, match="follow the body"):
        parsed(CHUNKED + b"0\r\n" + b"x: y\r\n" * 5000 + b"\r\n")


def test_a_few_are_taken() -> None:
    (*_, end) = parsed(CHUNKED + b"1\r\nx\r\n0\r\n" + b"x: y\r\n" * 10 + b"\r\n")
    assert isinstance(end, h11.EndOfMessage)


def test_endless_paths_are_refused() -> None:
    with pytest.raises(RefusedError, match="path"):
        parsed(b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")


def test_an_answers_head_comes_with_what_follows_it_in_one_piece() -> None:
    parser = MeteredParser()
    parser.receive_data(POST + b"Content-Length: 0\r\n\r\n")
    events(parser)
    answer = (
        h11.Response(status_code=200, headers=[(b"content-length", b"2")], reason=b"OK"),
        h11.Data(data=b"ok"),
        h11.EndOfMessage(),
    )
    written = [parser.send(event) for event in answer]
    assert written == [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", b""]


def test_an_answer_without_a_body_has_its_head() -> None:
    parser = MeteredParser()
    parser.receive_data(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    events(parser)
    assert parser.send(h11.Response(status_code=200, headers=[(b"content-length", b"2")])) == b""
    assert (parser.send(h11.EndOfMessage()) or b"").startswith(b"HTTP/1.1 200")
