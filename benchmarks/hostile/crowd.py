"""500 idle connections and 200 clients of mixed protocols, each at an address of its own."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

from benchmarks.hostile.arena import PICTURE
from benchmarks.hostile.attacks import MIB, ORDINARY_GROWTH
from benchmarks.hostile.lines import Line
from benchmarks.hostile.watcher import resident
from benchmarks.hostile.wire import form, infer, post, request
from benchmarks.service.figures import percentile
from benchmarks.service.generator import FAILED, Connection
from benchmarks.service.processes import Server, running_server

IDLE, CLIENTS = 500, 200
# A closed loop without a pause would measure the length of the queue, and people do other things, too.
PAUSE_SECONDS = 2.0
OPEN_FILES = 4096


@dataclass
class Crowd:
    """What came back: (protocol, seconds, status), and the server's memory."""

    answers: list[tuple[str, float, int]] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)


def measure(seconds: float, checkout: Path | None) -> Iterator[Line]:
    """Lets the crowd in for so long, and says how it fared."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, OPEN_FILES), most))
    with running_server(None, checkout=checkout) as server:
        calm = resident(server.process.pid)
        crowd = asyncio.run(_come(server, seconds))
    yield from figures(crowd, calm)


def requests() -> dict[str, bytes]:
    """A good request of each form, on a connection that stays open."""
    picture = PICTURE.read_bytes()
    text = b64encode(picture).decode()
    files = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
    made = {
        "native image": post("/v1/classify", picture),
        "native form": form("/v1/classify", [picture, picture]),
        "native JSON": post("/v1/classify", json.dumps({"images": [{"b64": text}]}).encode()),
        "Hugging Face": post("/predict", picture),
        "Open Inference JSON": post("/v2/models/auto/infer", json.dumps({"inputs": [files]}).encode()),
        "Open Inference binary": infer([picture, picture]),
    }
    return {name: data.replace(b"Connection: close\r\n", b"") for name, data in made.items()}


async def _come(server: Server, seconds: float) -> Crowd:
    crowd = Crowd()
    end = time.monotonic() + seconds
    idle = [asyncio.ensure_future(_idle(server.port, number)) for number in range(IDLE)]
    made = islice(cycle(requests().items()), CLIENTS)
    clients = [_ask(server.port, number, *one, crowd, end) for number, one in enumerate(made)]
    watching = asyncio.ensure_future(_watch(server, crowd))
    await asyncio.gather(*clients)
    for task in (*idle, watching):
        task.cancel()
    await asyncio.gather(*idle, watching, return_exceptions=True)
    return crowd


async def _ask(port: int, number: int, protocol: str, data: bytes, crowd: Crowd, end: float) -> None:
    """One client, with a pause after each answer, on one connection while the server keeps it."""
    loop = asyncio.get_running_loop()
    connection: Connection | None = None
    await asyncio.sleep(PAUSE_SECONDS * number / CLIENTS)
    while time.monotonic() < end:
        started = time.monotonic()
        try:
            if connection is None or connection.transport.is_closing():
                address = (f"127.0.1.{number + 1}", 0)
                _, connection = await loop.create_connection(
                    Connection, "127.0.0.1", port, local_addr=address
                )
            status = await connection.ask(data)
        except OSError:
            status = FAILED
        crowd.answers.append((protocol, time.monotonic() - started, status))
        await asyncio.sleep(PAUSE_SECONDS)
    if connection is not None:
        connection.transport.close()


async def _idle(port: int, number: int) -> None:
    """Says nothing, or nothing more after one request; comes back when the server has had enough."""
    while True:
        with suppress(ConnectionError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            if number % 2:
                writer.write(request("GET", "/livez").replace(b"Connection: close\r\n", b""))
            with suppress(ConnectionError):
                await reader.read(-1)
            writer.close()
        await asyncio.sleep(0.1)


async def _watch(server: Server, crowd: Crowd) -> None:
    while True:
        crowd.memory.append(await asyncio.to_thread(resident, server.process.pid))
        await asyncio.sleep(0.5)


def figures(crowd: Crowd, calm: int) -> Iterator[Line]:
    """Says how a crowd fared: everybody is to be answered, in little more memory than a calm server's."""
    statuses = Counter(status for _, _, status in crowd.answers)
    errors, most = len(crowd.answers) - statuses[200], max(crowd.memory)
    yield Line(
        f"requests {len(crowd.answers):,}, errors {errors} {dict(statuses)}",
        held=errors == 0 < statuses[200],
    )
    yield Line(
        f"memory {calm // MIB} MiB before, {most // MIB} MiB at most", held=most - calm <= ORDINARY_GROWTH
    )
    by_protocol: dict[str, list[float]] = defaultdict(list)
    for protocol, seconds, _ in crowd.answers:
        by_protocol[protocol].append(seconds)
    by_protocol["all"] = [seconds for _, seconds, _ in crowd.answers]
    for protocol, found in by_protocol.items():
        p50, p99 = (percentile(sorted(found), percent) for percent in (50, 99))
        yield Line(f"{protocol:24s} p50 {p50:.3f} s, p99 {p99:.3f} s, worst {max(found, default=0.0):.3f} s")
