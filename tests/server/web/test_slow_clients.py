"""Clients that are slow, silent or speak something else cannot hold a connection, nor anybody else up."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from select import select

import pytest

from tests.pictures import picture
from tests.server_processes import PATIENCE, RunningServer, running

CLIENT_TIMEOUT, IDLE_TIMEOUT = 0.5, 1.0
REQUEST = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    limits: dict[str, object] = {"client_timeout": CLIENT_TIMEOUT, "idle_timeout": IDLE_TIMEOUT}
    with running(0.0, limits) as made:
        made.wait_until_ready()
        yield made


@pytest.fixture
def connection(server: RunningServer) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as made:
        yield made


def everything(connection: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def one_answer(connection: socket.socket) -> tuple[bytes, bytes]:
    """Head and body of the next answer."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(1)
    head = received.lower()
    length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
    body = b""
    while len(body) < length:
        body += connection.recv(length - len(body))
    return received, body


def trickle(connection: socket.socket, data: bytes) -> None:
    for byte in data:
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


def push(connection: socket.socket, data: bytes) -> None:
    """Sends the same again and again, and waits where nothing more fits."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(TimeoutError):
            connection.sendall(data)


def test_a_silent_connection_is_closed(connection: socket.socket) -> None:
    started = time.monotonic()
    assert everything(connection) == b""
    assert CLIENT_TIMEOUT * 0.9 < time.monotonic() - started < 10


def test_headers_that_trickle_are_cut_off(connection: socket.socket) -> None:
    started = time.monotonic()
    with pytest.raises(ConnectionError):
        trickle(connection, b"GET /livez HTTP/1.1\r\nX-Slow: " + b"a" * 10_000)
    assert time.monotonic() - started < 10


def test_headers_that_trickle_after_an_answer_are_cut_off(connection: socket.socket) -> None:
    connection.sendall(REQUEST)
    assert b"200 OK" in one_answer(connection)[0]
    started = time.monotonic()
    connection.sendall(b"G")
    assert everything(connection) == b""
    assert time.monotonic() - started < 10


def test_an_idle_connection_is_kept_for_a_while(connection: socket.socket) -> None:
    connection.sendall(REQUEST)
    assert b"200 OK" in one_answer(connection)[0]
    time.sleep(IDLE_TIMEOUT * 0.7)  # longer than the time for headers, which has not begun
    connection.sendall(REQUEST)
    assert b"200 OK" in one_answer(connection)[0]
    started = time.monotonic()
    assert everything(connection) == b""
    assert time.monotonic() - started >= IDLE_TIMEOUT * 0.9


@pytest.mark.parametrize("pause", [0.1, 100.0])
def test_a_body_that_trickles_gets_an_answer(
    server: RunningServer, connection: socket.socket, pause: float
) -> None:
    before = server.metric('mass_rejected_total{reason="client_slow"}')
    connection.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
    while not select([connection], [], [], pause)[0]:
        connection.sendall(b"x")
    head, body = one_answer(connection)
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in head.lower()
    assert "bytes of the body came in time" in json.loads(body)["error"]
    assert server.metric('mass_rejected_total{reason="client_slow"}') == before + 1


def test_a_long_body_that_keeps_coming_is_read(connection: socket.socket) -> None:
    """It takes longer than the timeout, but is fast enough."""
    body = picture(9) + b"\0" * 40_000  # image files may have something behind them
    head = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode())
    for start in range(0, len(body), 4000):
        connection.sendall(body[start : start + 4000])
        time.sleep(2 * CLIENT_TIMEOUT * 4000 / len(body))
    assert b'"label":"9"' in one_answer(connection)[1]


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01", b"SSH-2.0-OpenSSH_9.2\r\n", b"GET\r\n\r\n"])
def test_what_is_not_http_gets_an_error_of_the_usual_shape(connection: socket.socket, garbage: bytes) -> None:
    connection.sendall(garbage + b"\r\n\r\n")
    head, _, body = everything(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"x-request-id" in head.lower()
    assert "HTTP/1.1" in json.loads(body)["error"]


def test_an_answer_that_nobody_reads_is_dropped(server: RunningServer) -> None:
    """Pipelined requests whose answers fill every buffer; the connection does not stay."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.settimeout(0.2)
        request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        started = time.monotonic()
        with pytest.raises(ConnectionError):
            push(connection, request)
        assert time.monotonic() - started < PATIENCE
    assert server.client.get("/livez").status_code == 200


def test_slow_bodies_cannot_fill_the_memory() -> None:
    """Connections that each keep a part of a body: what they hold together is bounded, and given back."""
    limits: dict[str, object] = {"max_body_bytes": 200_000, "max_held_bytes": 500_000}
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n"
    with running(0.0, limits) as server, ExitStack() as stack:
        server.wait_until_ready()
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE))
            for _ in range(4)
        ]
        for connection in connections:
            connection.sendall(head + b"x" * 150_000)
        answered, _, _ = select(connections, [], [], PATIENCE)
        refused, body = one_answer(answered[0])
        assert refused.startswith(b"HTTP/1.1 429 ")
        assert "memory" in json.loads(body)["error"]
        stack.close()
        deadline = time.monotonic() + PATIENCE
        while server.client.post("/v1/classify", content=picture(1) + b"\0" * 190_000).status_code != 200:
            assert time.monotonic() < deadline


def test_connections_beyond_the_limit_are_closed_and_the_others_served() -> None:
    with running(0.0, {"max_connections": 20}) as server, ExitStack() as stack:
        server.wait_until_ready()
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE))
            for _ in range(40)
        ]
        kept = []
        for connection in connections:
            with suppress(ConnectionError, IndexError):
                connection.sendall(REQUEST)
                if select([connection], [], [], 1.0)[0] and connection.recv(1, socket.MSG_PEEK):
                    kept.append(one_answer(connection)[0])
        assert len(kept) >= 15
        assert all(b"200 OK" in head for head in kept)
        still_open = [connection for connection in connections if not select([connection], [], [], 0)[0]]
        assert 15 <= len(still_open) <= 20
        stack.close()
        assert server.client.get("/livez").status_code == 200


def test_a_new_connection_takes_the_place_of_the_one_idle_for_longest() -> None:
    """Whoever opens connections and says nothing cannot shut the probes out."""
    with running(0.0, {"max_connections": 5}) as server, ExitStack() as stack:
        server.wait_until_ready()
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE))
            for _ in range(10)
        ]
        answering = stack.enter_context(
            socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
        )
        head = (
            b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n"
        )
        answering.sendall(head)
        assert answering.recv(1000).startswith(b"HTTP/1.1 100 ")
        more = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE))
            for _ in range(10)
        ]
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as probe:
            probe.sendall(REQUEST)
            assert b"200 OK" in one_answer(probe)[0]
        assert all(everything(connection) == b"" for connection in [*silent, *more[:5]])
        assert not select([answering], [], [], 0.5)[0], "a request that has begun is not given up"


def test_an_address_that_takes_all_connections_keeps_nobody_else_out() -> None:
    """Bodies that drip are being answered, for hours: the latest of the address that has most goes."""
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n"
    with running(0.0, {"max_connections": 5}) as server, ExitStack() as stack:
        server.wait_until_ready()
        server.client.close()

        def connected(host: str) -> socket.socket:
            made = socket.create_connection(("127.0.0.1", server.port), PATIENCE, source_address=(host, 0))
            return stack.enter_context(made)

        dripping = [connected("127.0.0.2") for _ in range(5)]
        for connection in dripping:
            connection.sendall(head)
            assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        neighbours = [connected("127.0.0.1") for _ in range(2)]
        for connection in neighbours:
            connection.sendall(REQUEST)
            assert b"200 OK" in one_answer(connection)[0]
        assert [everything(connection) for connection in dripping[3:]] == [b"", b""], "the latest go"
        assert everything(connected("127.0.0.2")) == b"", "one more of the many goes itself"
        assert not select([*dripping[:3], *neighbours], [], [], 0.3)[0]


def test_a_slow_reader_that_goes_on_reading_gets_its_answers(server: RunningServer) -> None:
    """Their sum takes many times the timeout; the time without any reading never does."""
    requests = 150
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.settimeout(PATIENCE)
        closing = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        kept = closing.replace(b"Connection: close\r\n", b"")
        connection.sendall(kept * (requests - 1) + closing)
        received = b""
        end = time.monotonic() + 6 * CLIENT_TIMEOUT
        while time.monotonic() < end:
            received += connection.recv(2048)
            time.sleep(CLIENT_TIMEOUT / 10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        received += everything(connection)
    assert received.count(b"HTTP/1.1 200 OK") == requests
    assert received.endswith(b"}")
