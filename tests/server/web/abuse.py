"""What clients do to a server, well-meaning and not: a catalogue of acts, and a crowd that performs them."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.pictures import bomb, picture

RED = 7
PICTURE = picture(RED)
LABEL = f'"label":"{RED}"'.encode()
STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) ")
PATIENCE = 30.0

# Not a byte comes back: the server closed or reset the connection.
HUNG_UP: tuple[int, ...] = ()


@dataclass(frozen=True)
class Act:
    """What one client sends over one connection, and what may come back."""

    name: str
    pieces: tuple[bytes, ...]
    answers: tuple[tuple[int, ...], ...]  # any of these statuses, in order; none: the client does not wait
    pause: float = 0.0  # seconds between the pieces
    requests: int = 1


def post(path: str, body: bytes, *headers: str, version: str = "1.1") -> bytes:
    """A request after which the connection is closed."""
    lines = [f"POST {path} HTTP/{version}", "Host: test", f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body


def get(path: str, method: str = "GET") -> bytes:
    """A request without a body, after which the connection is closed."""
    return f"{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode("latin-1")


def chunked(body: bytes, size: int) -> bytes:
    """A body whose length is not announced."""
    cuts = [body[start : start + size] for start in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(cut), cut) for cut in cuts)
    head = (
        b"POST /v1/classify HTTP/1.1\r\nHost: test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    return head + chunks + b"0\r\n\r\n"


def form(files: Iterable[bytes]) -> bytes:
    """A multipart body."""
    disposition = b'Content-Disposition: form-data; name="images"; filename="a.png"'
    parts = b"".join(b"--cut\r\n%b\r\n\r\n%b\r\n" % (disposition, data) for data in files)
    return parts + b"--cut--\r\n"


def headers(*lines: bytes) -> bytes:
    """A well-formed request but for these header lines."""
    return b"\r\n".join([b"GET /v1/tasks HTTP/1.1", b"Host: test", b"Connection: close", *lines, b"", b""])


def _good() -> Iterator[Act]:
    """Requests in every form that is served."""
    text = b64encode(PICTURE).decode()
    infer = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}]}
    whole = post("/v1/classify", PICTURE)
    bodies = {
        "an image": whole,
        "a form": post(
            "/v1/classify", form([PICTURE, PICTURE]), "Content-Type: multipart/form-data; boundary=cut"
        ),
        "JSON": post("/v1/classify?top_k=3", json.dumps({"images": [{"b64": text}]}).encode()),
        "Hugging Face": post("/", PICTURE),
        "Open Inference": post("/v2/models/auto/infer", json.dumps(infer).encode()),
        "one task": post("/v1/classify?tasks=signs", PICTURE),
        "chunks": chunked(PICTURE, 20),
        "HTTP/1.0": post("/v1/classify", PICTURE, version="1.0"),
        "odd headers": post(
            "/v1/classify", PICTURE, "X-Odd: \xe4\xff", "x-request-id: ../../etc", "Cookie: " + "c" * 4000
        ),
    }
    for name, request in bodies.items():
        yield Act(name, (request,), ((200,),))
    yield Act("tasks", (get("/v1/tasks"),), ((200,),))
    yield Act(
        "slow sender", tuple(whole[i : i + 40] for i in range(0, len(whole), 40)), ((200,),), pause=0.02
    )
    kept = whole.replace(b"Connection: close\r\n", b"")
    yield Act("pipelined", (kept + kept + whole,), ((200, 200, 200),), requests=3)


def _bad() -> Iterator[Act]:
    """Requests that are refused one by one."""
    large = bytes(300_000)
    yield Act("truncated image", (post("/v1/classify", PICTURE[:50]),), ((400,),))
    yield Act("not an image", (post("/v1/classify", b"\xff\xd8hello" * 20),), ((400,), (415,)))
    yield Act(
        "bad JSON", (post("/v1/classify", b'{"images": [', "Content-Type: application/json"),), ((400,),)
    )
    yield Act("deep JSON", (post("/v2/models/auto/infer", b'{"inputs":' + b"[" * 5000),), ((400,),))
    yield Act("cut-off form", (post("/v1/classify", form([PICTURE])[:-9]),), ((400,),))
    yield Act("no body", (post("/v1/classify", b""),), ((400,),))
    yield Act("unknown task", (post("/v1/classify?tasks=nobody", PICTURE),), ((404,),))
    yield Act("unknown path", (get("/nothing/%00/%ff/../.."),), ((404,),))
    yield Act("wrong method", (get("/v1/classify", "DELETE"),), ((405,),))
    yield Act("too many pixels", (post("/v1/classify", bomb(2000, 2000)),), ((413,),))
    yield Act("too many images", (post("/v1/classify", form([PICTURE] * 9)),), ((413,),))
    yield Act("announced too large", (post("/v1/classify", large)[:200],), ((413,),))
    # The refusal may be lost: it comes while the body is still being sent.
    yield Act("too large", (chunked(large, 50_000),), ((413,), HUNG_UP))


def _garbled() -> Iterator[Act]:
    """What is not HTTP, or not quite."""
    garbled = {
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2,
        "SSH": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "zeros": bytes(100),
        "no length": b"POST /v1/classify HTTP/1.1\r\nHost: test\r\nContent-Length: -1\r\n\r\n",
        "two lengths": headers(b"Content-Length: 1", b"Content-Length: 2"),
        "unknown coding": headers(b"Transfer-Encoding: gzip"),
        "bad chunk": headers(b"Transfer-Encoding: chunked") + b"zz\r\n\r\n",
        "folded header": headers(b"X: a", b" b", b"\x00: c"),
        # Their end never comes.
        "huge header": headers(b"X: " + b"x" * 100_000)[:-4],
        "many headers": headers(*(b"X-%d: y" % n for n in range(9000)))[:-4],
        "endless line": b"GET /" + b"a" * 100_000,
        "no host": b"GET /v1/tasks HTTP/1.1\r\n\r\n",
    }
    for name, data in garbled.items():
        # What lies unread when the server closes makes the kernel reset, which may overtake the answer.
        yield Act(name, (data,), ((400,), HUNG_UP))
    # The parser takes any version for its own; the answer closes the connection before the next line is read.
    yield Act("HTTP/2", (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",), ((505,), HUNG_UP))


def _leaving() -> Iterator[Act]:
    """Clients that go before they are answered, some of them rudely."""
    whole = post("/v1/classify", PICTURE)
    yield Act("leaves at once", (), ())
    yield Act("leaves in the headers", (whole[:30],), ())
    yield Act("leaves in the body", (whole[:-30],), ())
    yield Act("leaves in a chunk", (chunked(PICTURE, 20)[:-40],), ())
    yield Act("leaves before the answer", (whole,), ())
    yield Act(
        "leaves a queue of requests", (whole.replace(b"Connection: close\r\n", b"") * 3,), (), requests=3
    )


def acts(count: int) -> list[Act]:
    """A mix of `count` requests in a fixed order: as many good ones as others, and every kind often."""
    good, others = [*_good()], [*_bad(), *_garbled(), *_leaving()]
    mixed: list[Act] = []
    requests = 0
    while requests < count:
        turn = len(mixed) // 2
        mixed.append(others[turn % len(others)] if len(mixed) % 2 else good[turn % len(good)])
        requests += mixed[-1].requests
    return mixed


class Crowd:
    """Clients of one server."""

    def __init__(self, port: int, clients: int) -> None:
        self._port = port
        self._clients = clients
        self.surprises: Counter[str] = Counter()

    async def perform(self, script: Iterable[Act]) -> None:
        """Performs all acts, each on a connection of its own, a bounded number at a time."""
        remaining = iter(script)

        async def client() -> None:
            for act in remaining:
                answers = await asyncio.wait_for(self._perform(act), PATIENCE)
                if act.answers and answers not in act.answers:
                    self.surprises[f"{act.name}: {answers}"] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(self._clients):
                group.create_task(client())

    async def _perform(self, act: Act) -> tuple[int, ...]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            for piece in act.pieces:
                writer.write(piece)
                await writer.drain()
                if act.pause:
                    await asyncio.sleep(act.pause)
            if not act.answers:
                _reset_on_close(writer)
                return ()
            answer = await reader.read(-1)
        except ConnectionError:
            return HUNG_UP
        finally:
            writer.close()
        statuses = tuple(int(status) for status in STATUS_LINE.findall(answer))
        if statuses == (200,) and b"/classify" in act.pieces[0] and LABEL not in answer:
            self.surprises[f"{act.name}: a wrong label"] += 1
        return statuses


@contextmanager
def idle_connections(port: int, count: int) -> Iterator[None]:
    """Connections that say nothing, nothing more after one request, or nothing more within a body."""
    said = (b"", b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n", post("/v1/classify", PICTURE)[:-9])
    with ExitStack() as stack:
        for number in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(said[number % len(said)])
        yield


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    """Half of those who leave do it without a goodbye."""
    connection: socket.socket = writer.get_extra_info("socket")
    if connection.getsockname()[1] % 2:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
