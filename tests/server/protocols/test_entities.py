"""Entities over HTTP, from a real server of a store that classifies whole texts and tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mass_serve.engine import Aggregation, Engine, TokenClassification
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.router import MODE_NAMES
from tests import texts, trained_tokenizers
from tests.server.protocols.test_native import refused
from tests.server_processes import RunningServer, serving
from tests.trained_tokenizers import TEXTS, TRAINED


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("entities")
    tokenizer = TRAINED["Bert"]()
    size = tokenizer.get_vocab_size()
    models = texts.finetuned(folder, "Bert", ("guard", "domain"), ("pii",), vocab_size=size)
    trained_tokenizers.save(tokenizer, models.pretrained)
    build(models.pretrained, models.tasks, folder / "store", BuildOptions(force=True), modes=MODE_NAMES)
    return folder / "store"


@pytest.fixture(scope="module")
def engine(store: Path) -> Engine:
    return Engine.load(str(store), device="cpu")


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[RunningServer]:
    with serving(store) as running:
        running.wait_until_ready()
        yield running


def post(server: RunningServer, query: str = "", **body: Any) -> httpx.Response:
    return server.client.post(f"/v1/classify{query}", json=body)


def results(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["results"]
    return found


def expected(engine: Engine, asked: list[str], aggregation: Aggregation) -> list[list[dict[str, Any]]]:
    answers = engine.classify(asked, ["pii"])
    found = [
        answer.entities(aggregation) if isinstance(answer, TokenClassification) else [] for answer in answers
    ]
    names = ("label", "score", "start", "end", "text")
    return [[{name: getattr(one, name) for name in names} for one in of_text] for of_text in found]


@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
def test_entities_are_those_of_the_engine(
    server: RunningServer, engine: Engine, aggregation: Aggregation
) -> None:
    wanted = expected(engine, TEXTS, aggregation)
    assert any(wanted)
    found = results(post(server, texts=TEXTS, tasks=["pii"], aggregation=aggregation))
    assert [one["entities"] for one in found] == wanted
    assert results(post(server, f"?tasks=pii&aggregation={aggregation}", texts=TEXTS)) == found


def test_entities_are_told_by_characters_of_the_text_as_it_was_sent(server: RunningServer) -> None:
    text = "🧿🧿 Zürich e\u0301t Jane"
    (found,) = results(post(server, texts=[text], tasks=["pii"], aggregation="none"))
    assert found.keys() == {"task", "task_revision", "entities", "cut"}
    assert all(one["text"] == text[one["start"] : one["end"]] for one in found["entities"])


def test_simple_is_the_aggregation_that_is_not_asked_for(server: RunningServer) -> None:
    found = results(post(server, texts=TEXTS, tasks=["pii"]))
    assert found == results(post(server, texts=TEXTS, tasks=["pii"], aggregation="simple"))


def test_what_is_cut_is_said(server: RunningServer) -> None:
    long = "Jane Doe lives in Zürich " * 40
    (found,) = results(post(server, texts=[long], tasks=["pii"]))
    assert found["cut"] > 0
    assert max(one["end"] for one in found["entities"]) < len(long) - found["cut"]


def test_each_task_answers_in_its_own_way(server: RunningServer, engine: Engine) -> None:
    found = results(post(server, texts=TEXTS[:2], tasks=["pii", "guard"], answer="each"))
    assert [one["task"] for one in found] == ["pii", "guard"] * 2
    assert [found[0]["entities"], found[2]["entities"]] == expected(engine, TEXTS[:2], "simple")
    assert "label" in found[1]
    assert "entities" not in found[1]
    every = results(post(server, texts=TEXTS[:1], answer="each"))
    assert [one["task"] for one in every] == ["guard", "domain", "pii"]
    assert every[2] == found[0]


def test_texts_are_routed_among_tasks_of_whole_texts(server: RunningServer) -> None:
    assert {one["task"] for one in results(post(server, texts=TEXTS))} <= {"guard", "domain"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"tasks": ["pii", "guard"]}, "ask with answer 'each'"),
        ({"tasks": ["pii"], "aggregation": "median"}, "aggregation"),
        ({"tasks": ["pii"], "aggregation": 7}, "aggregation"),
        ({"tasks": ["pii"], "texts": [" "]}, "no word"),
    ],
)
def test_what_cannot_be_answered(server: RunningServer, body: dict[str, Any], words: str) -> None:
    refused(post(server, **{"texts": TEXTS, **body}), 400, words)


def test_an_unknown_aggregation_in_the_query_is_refused(server: RunningServer) -> None:
    refused(post(server, "?tasks=pii&aggregation=median", texts=TEXTS), 400, "aggregation")


def test_what_tasks_classify_is_told(server: RunningServer) -> None:
    tasks = server.client.get("/v1/tasks").json()["tasks"]
    assert {task["name"]: task["each_token"] for task in tasks} == {
        "guard": False,
        "domain": False,
        "pii": True,
    }
