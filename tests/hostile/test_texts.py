"""Tokenizers with which texts could hold a server up for ever: those are refused, and no others wait."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from tests import texts
from tests.server_processes import RunningServer, serving

# Before a "b" it tries 2^20 ways to split the row of "a".
ENDLESS = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
TRIED = "a" * 20 + "b "
GROWING = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}


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
