"""Requests as bytes, and what comes back to one connection that sends some."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

STATUS_LINE = re.compile(rb"\AHTTP/1\.1 (\d{3}) ")
# In place of a status: the server closed the connection without a word, said nothing in time, or took none.
HUNG_UP, UNANSWERED, UNREACHABLE = 0, -1, -2


@dataclass(frozen=True)
class Answer:
    """Holds what came back until the connection was closed."""

    status: int
    body: bytes
    seconds: float


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    """A request after which the connection is closed."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def post(path: str, body: bytes, *headers: str) -> bytes:
    """A request with a body of announced length."""
    return request("POST", path, *headers, body=body)


def chunked(path: str, body: bytes, size: int) -> bytes:
    """A request whose body comes in chunks of `size` bytes."""
    cuts = [body[start : start + size] for start in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(cut), cut) for cut in cuts)
    return request("POST", path, "Transfer-Encoding: chunked") + chunks + b"0\r\n\r\n"


def form(path: str, files: Iterable[bytes]) -> bytes:
    """A multipart form of images."""
    disposition = b'Content-Disposition: form-data; name="images"'
    parts = b"".join(b"--cut\r\n%b\r\n\r\n%b\r\n" % (disposition, data) for data in files)
    return post(path, parts + b"--cut--\r\n", "Content-Type: multipart/form-data; boundary=cut")


def infer(files: Sequence[bytes], *headers: str, zipped: bool = False, **parameters: int) -> bytes:
    """A request of the Open Inference Protocol with binary tensors."""
    elements = b"".join(len(data).to_bytes(4, "little") + data for data in files)
    size = {"binary_data_size": len(elements)}
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(files)], "parameters": size}
    head = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
    body = head + elements
    length = f"Inference-Header-Content-Length: {len(head)}"
    if zipped:
        return post("/v2/models/auto/infer", gzip.compress(body), length, "Content-Encoding: gzip", *headers)
    return post("/v2/models/auto/infer", body, length, *headers)


async def ask(
    port: int,
    data: bytes,
    *,
    source: str = "127.0.0.1",
    timeout: float = 60.0,
    piece: int | None = None,
    pause: float = 0.0,
) -> Answer:
    """Sends bytes over a connection of their own, in pieces if need be, and reads until it is closed."""
    started = time.monotonic()
    received = bytearray()
    spoken = False
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
            except ConnectionError:
                return Answer(UNREACHABLE, b"", time.monotonic() - started)
            sending = asyncio.ensure_future(_send(writer, data, piece or len(data), pause))
            try:
                while part := await reader.read(1 << 16):
                    received += part
                spoken = True
            except ConnectionError:
                spoken = True
            finally:
                sending.cancel()
                writer.close()
    seconds = time.monotonic() - started
    found = STATUS_LINE.match(received)
    if found is None:
        return Answer(HUNG_UP if spoken else UNANSWERED, b"", seconds)
    return Answer(int(found[1]), bytes(received.partition(b"\r\n\r\n")[2]), seconds)


async def _send(writer: asyncio.StreamWriter, data: bytes, piece: int, pause: float) -> None:
    """Goes on until all is sent or nobody takes it any more; the reading side notices the end."""
    with suppress(ConnectionError):
        for start in range(0, len(data), piece):
            writer.write(data[start : start + piece])
            await writer.drain()
            if pause:
                await asyncio.sleep(pause)
