"""Sends requests to a server and writes down what came back: `python -m benchmarks.service.generator PLAN`.

A process of its own, because the server needs its processor: requests are built before the clock starts,
answers are read no further than their status and length. What it takes all the same is in `cpu_seconds`.

Closed loop: so many clients, each of which asks again as soon as it is answered. Open loop: requests arrive
at random (Poisson), whether or not earlier ones were answered, and their latency counts from the moment
they were due. Ends after the planned seconds, or as soon as standard input is closed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import count

from benchmarks.http_overhead import photographs

PICTURES = 16
FAILED = 0  # the status of a request that was not answered at all
MOST_UNANSWERED = 2000  # beyond it a request fails unsent: no process has descriptors for ever
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Plan:
    """One phase of load: `clients` for a closed loop, `rate` (requests a second) for an open one."""

    port: int
    targets: list[str | None]  # tasks that are named in turn; None: the router chooses
    seconds: float
    clients: int | None = None
    rate: float | None = None
    seed: int = 0


@dataclass
class Journal:
    """Holds what came back; times in seconds since the start."""

    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    targets: list[int] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request under way at a time."""

    def __init__(self) -> None:
        self._received = b""
        self._answer: asyncio.Future[int] | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    async def ask(self, request: bytes) -> int:
        """The status of the answer, once all of it is here. Raises ConnectionError."""
        self._answer = asyncio.get_running_loop().create_future()
        self._received = b""
        self.transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if separator and length is not None and len(body) >= int(length[1]) and self._answer is not None:
            self._answer.set_result(int(head[9:12]))
            self._answer = None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a protocol's signature
        if self._answer is not None:
            self._answer.set_exception(ConnectionError("the server hung up"))
            self._answer = None


class Generator:
    """Performs a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._requests = self._built_requests()
        self._idle: list[Connection] = []
        self._unanswered = 0
        self._stopped = asyncio.Event()
        self.journal = Journal()

    def stop(self) -> None:
        """Sends nothing more."""
        self._stopped.set()

    async def run(self) -> None:
        """All of it, until the last answer."""
        self._start = time.perf_counter()
        asyncio.get_running_loop().call_later(self._plan.seconds, self._stopped.set)
        used = time.process_time()
        await (self._closed_loop() if self._plan.clients else self._open_loop())
        self.journal.cpu_seconds = time.process_time() - used
        self.journal.wall_seconds = time.perf_counter() - self._start

    def _built_requests(self) -> Iterator[tuple[int, bytes]]:
        """(target, bytes), every picture with every target in turn."""
        built = [
            [_request(picture, target) for picture in photographs(PICTURES)] for target in self._plan.targets
        ]
        targets = len(built)
        return ((n % targets, built[n % targets][n // targets % PICTURES]) for n in count())

    async def _closed_loop(self) -> None:
        async def client() -> None:
            while not self._stopped.is_set():
                await self._ask(time.perf_counter())

        await asyncio.gather(*(client() for _ in range(self._plan.clients or 0)))

    async def _open_loop(self) -> None:
        assert self._plan.rate
        chance = random.Random(self._plan.seed)
        due = self._start
        async with asyncio.TaskGroup() as group:
            while not self._stopped.is_set():
                due += chance.expovariate(self._plan.rate)
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(self._ask(due))

    async def _ask(self, due: float) -> None:
        """Sends the next request and writes down what came back and when."""
        target, request = next(self._requests)
        self._unanswered += 1
        try:
            status = await self._status(request)
        except OSError:
            status = FAILED
        self._unanswered -= 1
        ended = time.perf_counter()
        journal = self.journal
        journal.targets.append(target)
        journal.ended.append(ended - self._start)
        journal.latencies.append(ended - due)
        journal.statuses.append(status)

    async def _status(self, request: bytes) -> int:
        if self._unanswered > MOST_UNANSWERED:
            return FAILED
        connection = await self._connection()
        status = await connection.ask(request)
        self._idle.append(connection)
        return status

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():
                return connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, "127.0.0.1", self._plan.port)
        return connection


def _request(picture: bytes, target: str | None) -> bytes:
    query = "" if target is None else f"?tasks={target}"
    head = f"POST /v1/classify{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(picture)}\r\n\r\n"
    return head.encode() + picture


async def _perform(plan: Plan) -> Journal:
    generator = Generator(plan)
    loop = asyncio.get_running_loop()

    def wait_for_the_end() -> None:
        os.read(0, 1)  # not sys.stdin, whose lock would be held when the process ends
        loop.call_soon_threadsafe(generator.stop)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    await generator.run()
    return generator.journal


def main() -> None:
    """The command."""
    journal = asyncio.run(_perform(Plan(**json.loads(sys.argv[1]))))
    print(json.dumps(asdict(journal)))


if __name__ == "__main__":
    main()
