"""8,000 spoilt bodies and 1,500 spoilt requests: none is the server's fault, and none is left hanging.

The same ones every time; `make fuzz` looks for new ones, guided by what code they reach.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest

from benchmarks.hostile.arena import PICTURE, server_errors
from benchmarks.hostile.wire import ask, post
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.server.startup import demo_store
from tests import texts
from tests.hostile.mutations import Body, bodies, raw_requests, spoilt_body, text_bodies
from tests.server_processes import RunningServer, serving

SEED = 14
BODIES, TEXT_BODIES, REQUESTS = 6000, 2000, 1500
# As many at a time; requests that never end wait for the server's patience, which is short here.
BODIES_AT_ONCE, REQUESTS_AT_ONCE = 16, 100
CLIENT_SECONDS = 0.5
PATIENCE = 20.0
# A second pass takes most of an answer's time and sees nothing of what was sent.
QUICK = "one_pass"
# Several answers to pipelined requests follow each other without a gap.
ANSWERS = re.compile(rb"HTTP/1\.1 (?=\d{3} )")
# These say what is not spoken here, which is no failure.
NOT_SPOKEN = {501, 505}

T = TypeVar("T")


async def at_once(limit: int, items: Iterable[T], act: Callable[[T], Awaitable[None]]) -> None:
    """Acts on every item, so many at a time."""
    remaining = iter(items)

    async def one_after_the_other() -> None:
        for item in remaining:
            await act(item)

    await asyncio.gather(*(one_after_the_other() for _ in range(limit)))


def is_right_afterwards(server: RunningServer) -> bool:
    """Asserts that a good image is answered and nothing waits; tells whether no failure was counted."""
    response = server.client.post("/v1/classify", content=PICTURE.read_bytes())
    assert response.json()["results"][0]["label"] == "three"
    assert server.client.get("/livez").status_code == 200
    assert server.metric("mass_queue_depth") == 0
    log = server.log()
    assert "Traceback" not in log, log[log.index("Traceback") :][:1000]
    return server_errors(server.client) == 0


@pytest.mark.slow
def test_no_spoilt_body_is_the_servers_failure() -> None:
    with serving(Path(demo_store()), max_pixels=4_000_000, mode=QUICK) as server:
        server.wait_until_ready()
        found = statuses_of_spoilt(server, bodies(), BODIES)
        assert is_right_afterwards(server)
    # They are spoilt, and not too much: some are still good, and many are refused, for several reasons.
    assert found[200] > BODIES // 20
    assert found[400] > BODIES // 4
    assert {413, 415} <= set(found)


@pytest.mark.slow
def test_no_spoilt_body_of_texts_is_the_servers_failure(tmp_path: Path) -> None:
    models = texts.finetuned(tmp_path, "Bert")
    build(models.pretrained, models.tasks, tmp_path / "store", BuildOptions(force=True))
    with serving(tmp_path / "store", max_text_characters=1000) as server:
        server.wait_until_ready()
        before = server.client.post("/v1/classify", json={"texts": ["w10"]}).json()["results"]
        found = statuses_of_spoilt(server, text_bodies(), TEXT_BODIES)
        assert server.client.post("/v1/classify", json={"texts": ["w10"]}).json()["results"] == before
        assert "Traceback" not in server.log()
        assert server_errors(server.client) == 0
    assert found[200] > TEXT_BODIES // 20
    assert found[400] > TEXT_BODIES // 4


def statuses_of_spoilt(server: RunningServer, seeds: Sequence[Body], count: int) -> Counter[int]:
    """Asserts that so many spoilt bodies are answered or refused; returns how often with each status."""
    chance = random.Random(SEED)
    script = [spoilt_body(chance, chance.choice(seeds)) for _ in range(count)]
    found: Counter[int] = Counter()
    wrong: list[str] = []

    async def send(number: int) -> None:
        body = script[number]
        data = post(body.path, body.content, *body.headers)
        answer = await ask(server.port, data, timeout=PATIENCE)
        found[answer.status] += 1
        if answer.status != 200 and not _refuses(answer.status, answer.body):
            wrong.append(f"body {number} to {body.path}: {answer.status} {answer.body[:200]!r}")

    asyncio.run(at_once(BODIES_AT_ONCE, range(count), send))
    assert wrong == []
    return found


def _refuses(status: int, body: bytes) -> bool:
    """Tells whether an answer is the caller's mistake and says what it was."""
    with suppress(ValueError):
        content = json.loads(body)
        return 400 <= status < 500 and set(content) == {"error"} and isinstance(content["error"], str)
    return False


@pytest.mark.slow
def test_no_oddity_of_http_is_a_failure_or_left_hanging() -> None:
    script = list(raw_requests(random.Random(SEED), REQUESTS))
    chance = random.Random(SEED)
    half_closed = [chance.random() < 0.3 for _ in script]
    found: Counter[int] = Counter()
    wrong: list[str] = []
    with serving(
        Path(demo_store()), mode=QUICK, client_timeout=CLIENT_SECONDS, idle_timeout=CLIENT_SECONDS
    ) as server:
        server.wait_until_ready()

        async def send(number: int) -> None:
            try:
                answer = await asyncio.wait_for(
                    _exchange(server.port, script[number], half_closed[number]), PATIENCE
                )
            except TimeoutError:
                wrong.append(f"request {number} is left hanging: {script[number][:200]!r}")
                return
            answers = ANSWERS.split(answer)[1:]
            found.update(int(one[:3]) for one in answers)
            if not all(map(_is_fair, answers)):
                wrong.append(f"request {number}: {answer[-500:]!r} for {script[number][:200]!r}")

        asyncio.run(at_once(REQUESTS_AT_ONCE, range(REQUESTS), send))
        assert wrong == []
        assert is_right_afterwards(server)
    # Most are answered, and some understood; the rest are hung up on, as what is no HTTP may be.
    assert found.total() > REQUESTS // 2
    assert {200, 400, 404} <= set(found)


def _is_fair(answer: bytes) -> bool:
    """Tells whether an answer, given from its status on, is no failure or a refusal with its reason."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head[:3])
    # An answer to HEAD has no body.
    return status < 400 or status in NOT_SPOKEN or (not body and status < 500) or _refuses(status, body)


async def _exchange(port: int, data: bytes, half_closed: bool) -> bytes:
    """Returns what comes back until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    with suppress(ConnectionError):
        writer.write(data)
        await writer.drain()
        if half_closed:
            writer.write_eof()
        while part := await reader.read(1 << 16):
            received += part
    writer.close()
    return received
