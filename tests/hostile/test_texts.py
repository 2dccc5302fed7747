"""Texts that could hold a server up for ever, and spoilt ones: those are refused, and no others wait."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from benchmarks.hostile.wire import ask, post
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from tests import texts
from tests.hostile.mutations import Body, spoilt_body
from tests.hostile.test_fuzz import PATIENCE, at_once
from tests.server_processes import RunningServer, serving

# Before a "b" it tries 2^20 ways to split the row of "a".
ENDLESS = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
TRIED = "a" * 20 + "b "
GROWING = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10_000}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    models = texts.finetuned(folder, "Bert")
    build(models.pretrained, models.tasks[:2], folder / "store", BuildOptions(force=True))
    return folder / "store"


@pytest.fixture(scope="module")
def endless(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    own = shutil.copytree(store, tmp_path_factory.mktemp("endless") / "store")
    blanks = {"type": "WhitespaceSplit"}
    texts.change_tokenizer(own, pre_tokenizer={"type": "Sequence", "pretokenizers": [ENDLESS, blanks]})
    with serving(own, decode_workers=2) as running:
        running.wait_until_ready()
        yield running


def classify(server: RunningServer, *sent: str) -> httpx.Response:
    return server.client.post("/v1/classify", json={"texts": sent})


def refused(response: httpx.Response) -> None:
    assert response.status_code == 413, response.text
    assert "takes the store's tokenizer more time or memory" in response.json()["error"]


def test_a_text_that_never_ends_is_ended(endless: RunningServer) -> None:
    before = endless.metric('mass_workers_replaced_total{reason="cpu"}')
    response = classify(endless, "w10", TRIED * 400)
    refused(response)
    assert response.json()["error"].startswith("texts[1]: ")
    assert endless.metric('mass_workers_replaced_total{reason="cpu"}') == before + 1


def test_others_are_answered_while_many_never_end(endless: RunningServer) -> None:
    expected = classify(endless, "w10 w11").json()["results"]
    with ThreadPoolExecutor(4) as senders:
        sent: list[Future[Any]] = [senders.submit(classify, endless, TRIED * 500) for _ in range(4)]
        for _ in range(5):
            assert endless.client.get("/livez").status_code == 200
            answered = classify(endless, "w10 w11")
            assert answered.status_code == 200, answered.text
            assert answered.json()["results"] == expected
        assert not all(one.done() for one in sent), "they were over before the others had asked"
        for one in sent:
            refused(one.result())
    assert classify(endless, "w10 w11").json()["results"] == expected


def test_the_memory_of_a_text_that_grows_is_bounded(store: Path, tmp_path: Path) -> None:
    own = shutil.copytree(store, tmp_path / "store")
    texts.change_tokenizer(own, normalizer=GROWING)
    with serving(own, decode_workers=1) as server:
        server.wait_until_ready()
        assert classify(server, "w10").status_code == 200
        process = psutil.Process(server.process.pid)
        before = process.memory_info().rss
        for characters in (9_000, 100_000):
            refused(classify(server, "a " * (characters // 2)))
        assert process.memory_info().rss < before + (64 << 20)
        assert classify(server, "w10").status_code == 200
        assert server.client.get("/livez").status_code == 200


SEED, BODIES = 16, 1500
STRANGE = (
    "\u202e",
    "\u0301" * 50,
    "\ufeff",
    "\ufdfa" * 20,
    "[SEP]",
    "\U0001f469\u200d",
    "\uffff",
    "\x7f",
    "\U000e0001",
)


def text_bodies() -> list[Body]:
    """Well-formed requests about texts, in every form that is served."""
    as_json = ("Content-Type: application/json",)
    strange = ["w10 " + one for one in STRANGE]
    pair = {"text": "w10 w11", "text_pair": "w12"}
    infer = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": ["w10", "w11 w12"]}]}
    requests: list[tuple[str, object]] = [
        ("/v1/classify", {"texts": ["w10 w11", *strange], "tasks": ["guard", "domain"], "top_k": 2}),
        ("/v1/classify", {"texts": ["w10", pair], "answer": "each"}),
        ("/v1/classify", {"texts": ["w10 " * 50, "w11"], "same_task": True}),
        ("/", {"inputs": "w10 w11", "parameters": {"top_k": 2, "function_to_apply": "softmax"}}),
        ("/predict", {"inputs": [["w10"], ["w11", "w12"]], "raw_scores": True, "truncate": True}),
        ("/v2/models/auto/infer", infer),
    ]
    return [
        Body(path, as_json, json.dumps(content, ensure_ascii=ascii_alone).encode())
        for path, content in requests
        for ascii_alone in (False, True)
    ]


@pytest.mark.slow
def test_no_spoilt_text_is_the_servers_failure(store: Path) -> None:
    chance, seeds = random.Random(SEED), text_bodies()
    script = [spoilt_body(chance, chance.choice(seeds)) for _ in range(BODIES)]
    found: Counter[int] = Counter()
    wrong: list[str] = []
    with serving(store, max_text_characters=5000) as server:
        server.wait_until_ready()
        for body in seeds:
            headers = dict(header.split(": ") for header in body.headers)
            sound = server.client.post(body.path, content=body.content, headers=headers)
            assert sound.status_code == 200, (body, sound.text)

        async def send(number: int) -> None:
            body = script[number]
            answer = await ask(server.port, post(body.path, body.content, *body.headers), timeout=PATIENCE)
            found[answer.status] += 1
            if answer.status != 200 and not 400 <= answer.status < 500:
                wrong.append(f"body {number} to {body.path}: {answer.status} {answer.body[:200]!r}")

        asyncio.run(at_once(16, range(BODIES), send))
        assert wrong == []
        assert classify(server, "w10").status_code == 200
        assert server.metric("mass_queue_depth") == server.metric("mass_held_bytes") == 0
        assert "Traceback" not in server.log()
    # They are spoilt, and not too much.
    assert found[200] > BODIES // 20
    assert found[400] > BODIES // 4
