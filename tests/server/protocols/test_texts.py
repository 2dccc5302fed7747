"""Texts over HTTP, from a real server of a tiny BERT: its answers are the engine's, and no text breaks it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from mass_serve.engine import Classification, Engine
from mass_serve.inputs.texts import Text
from mass_serve.sandbox.bounds import REASONS
from tests import texts
from tests.pictures import picture
from tests.server.protocols.test_native import as_json, refused
from tests.server_processes import RunningServer

TEXTS = ["w10 w11 w12", "w20", "w30 " * 200, "w40 nothing known"]
NAMES = ["guard", "domain", "safety"]
PAIR = ("text", "text_pair")


@pytest.fixture
def engine(text_engine: Engine) -> Engine:
    return text_engine


def post(server: RunningServer, **body: Any) -> httpx.Response:
    return server.client.post("/v1/classify", json=body)


def told(response: httpx.Response) -> list[tuple[str, str, float]]:
    assert response.status_code == 200, response.text
    return [(one["task"], one["label"], one["score"]) for one in response.json()["results"]]


def expected(answers: list[Classification]) -> list[tuple[str, str, float]]:
    best = [int(answer.logits.argmax()) for answer in answers]
    return [
        (answer.task, answer.labels[row], float(answer.probabilities[row]))
        for answer, row in zip(answers, best, strict=True)
    ]


def test_texts_have_the_answers_of_the_engine(text_server: RunningServer, engine: Engine) -> None:
    response = post(text_server, texts=TEXTS)
    assert told(response) == expected(engine.classify(TEXTS))
    assert [one["cut"] for one in response.json()["results"]] == [0, 0, 200 + 2 - texts.MAX_TOKENS, 0]
    assert text_server.metric('mass_questions_total{answer="best"}') >= 1


def test_every_tasks_answer_to_every_text(text_server: RunningServer, engine: Engine) -> None:
    response = post(text_server, texts=TEXTS[1:3], answer="each")
    assert told(response) == expected(engine.classify(TEXTS[1:3], answer="each"))
    assert [one["task"] for one in response.json()["results"]] == NAMES * 2
    assert [one["cut"] for one in response.json()["results"]] == [0] * 3 + [122] * 3


def test_texts_of_the_same_task(text_server: RunningServer, engine: Engine) -> None:
    answers = told(post(text_server, texts=TEXTS, same_task=True))
    assert answers == expected(engine.classify(TEXTS, same_task=True))
    assert len({task for task, _, _ in answers}) == 1


def test_a_named_task(text_server: RunningServer, engine: Engine) -> None:
    assert told(post(text_server, texts=TEXTS, tasks=["safety"])) == expected(
        engine.classify(TEXTS, tasks=["safety"])
    )


def test_a_text_has_the_same_bits_in_any_company(text_server: RunningServer) -> None:
    together = told(post(text_server, texts=TEXTS))
    assert [told(post(text_server, texts=[text]))[0] for text in TEXTS] == together


def test_a_large_body_is_read_elsewhere_and_answered_alike(
    text_server: RunningServer, engine: Engine
) -> None:
    body = json.dumps({"texts": TEXTS}).encode() + b" " * (2 << 20)
    assert told(text_server.client.post("/v1/classify", content=body)) == expected(engine.classify(TEXTS))


@pytest.mark.parametrize("spaces", [0, 2 << 20])  # many are read elsewhere
def test_pairs_have_the_answers_of_the_engine(
    text_server: RunningServer, engine: Engine, spaces: int
) -> None:
    pairs: list[Text] = [("w10 w11", "w12"), "w10 w11 w12", ("w30 " * 100, "w20 " * 50)]
    written = [text if isinstance(text, str) else dict(zip(PAIR, text, strict=True)) for text in pairs]
    body = json.dumps({"texts": written}).encode() + b" " * spaces
    response = text_server.client.post("/v1/classify", content=body)
    assert told(response) == expected(engine.classify(pairs))
    assert [one["cut"] for one in response.json()["results"]] == [0, 0, 150 + 3 - texts.MAX_TOKENS]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"texts": []}, 400, "no text"),
        ({"texts": [""]}, 400, "The text is empty"),
        ({"texts": ["w10", ""]}, 400, "texts[1] is empty"),
        ({"texts": ["   "]}, 400, "no word"),
        ({"texts": ["w10", "\u202e\u0301"]}, 400, "texts[1]"),
        ({"texts": ["w10\0"]}, 400, "NUL"),
        ({"texts": ["w10 \ud800"]}, 400, "half of a surrogate pair"),
        ({"texts": ["w10", "\udc00 w11"]}, 400, "half of a surrogate pair"),
        ({"texts": ["\ud800\ud800"]}, 400, "half of a surrogate pair"),
        ({"texts": "w10"}, 400, "texts"),
        ({"texts": [7]}, 400, "texts[0]"),
        ({"texts": ["w10", ["w10", "w11"]]}, 400, 'texts[1]: a text must be a string, or a pair {"text":'),
        ({"texts": [{"text": "w10"}]}, 400, "texts[0]: a text must be"),
        ({"texts": [{"text": "w10", "text_pair": 5}]}, 400, "texts[0]: a text must be"),
        ({"texts": [{"text": "w10", "text_pair": ""}]}, 400, "The second text of the pair is empty"),
        ({"texts": ["w10", {"text": " ", "text_pair": "w10"}]}, 400, "texts[1]: The first text of the pair"),
        ({"texts": ["a" * 20_001]}, 413, "20001 characters, the limit is 20000"),
        ({"texts": ["a" * 10_000, "b" * 10_001]}, 413, "20001 characters"),
        ({"texts": ["," * 10_000_000]}, 413, "limit"),
        ({"texts": ["w10"] * 17}, 413, "17 texts, the limit is 16"),
        ({"texts": ["w10"] * 6, "answer": "each"}, 400, "6 texts times 3 tasks are 18 answers"),
        ({"texts": ["w10"] * 6, "answer": "each"}, 400, "16 (max_images_per_request, of images as of texts)"),
        ({"images": ["w10"]}, 400, "images[0]: an image must be an object"),
        ({"images": ["w10"]}, 400, "where the store reads texts, send them as 'texts'"),
        ({"images": [{"b64": "AA=="}]}, 400, "reads texts, not images"),
        ({"texts": ["w10"], "tasks": ["cats"]}, 404, "cats"),
        ({"texts": ["w10"], "images": [{"b64": "AA=="}]}, 400, "images and texts"),
        ({}, 400, "'images' or 'texts', as the store reads"),
    ],
)
def test_bad_texts(text_server: RunningServer, body: dict[str, Any], status: int, words: str) -> None:
    refused(text_server.client.post("/v1/classify", content=json.dumps(body).encode()), status, words)


def test_bytes_that_are_no_utf8(text_server: RunningServer) -> None:
    for body in (b'{"texts": ["\xff\xfe"]}', b'{"texts": ["\xed\xa0\x80"]}'):  # the second is half of a pair
        refused(text_server.client.post("/v1/classify", content=body), 400, "not UTF-8")


def test_a_form_of_texts(text_server: RunningServer) -> None:
    response = text_server.client.post(
        "/v1/classify", data={"texts": "w10"}, files={"tasks": (None, "guard")}
    )
    refused(response, 400, "send texts as JSON")


@pytest.mark.parametrize(
    "flood", ["e" + "\u0301" * 19_998, "w10\u202e\u200f" * 4_000, "中" * 20_000, "." * 20_000, "a" * 20_000]
)
def test_floods_are_answered(text_server: RunningServer, flood: str) -> None:
    replaced = [text_server.metric(f'mass_workers_replaced_total{{reason="{why}"}}') for why in REASONS]
    assert len(told(post(text_server, texts=[flood]))) == 1
    assert replaced == [
        text_server.metric(f'mass_workers_replaced_total{{reason="{why}"}}') for why in REASONS
    ]


def test_images_are_told_that_the_store_reads_texts(text_server: RunningServer) -> None:
    image = picture(1)
    for path, body in (("/v1/classify", image), ("/v1/classify", as_json(image)), ("/", image)):
        refused(text_server.client.post(path, content=body), 400, "reads texts", "'texts'")


def test_texts_are_told_that_the_store_reads_images(server: RunningServer) -> None:
    refused(post(server, texts=["hello"]), 400, "reads images", "'images'")


def test_what_is_served_is_told(text_server: RunningServer) -> None:
    for path in ("/v1/tasks", "/livez", "/readyz", "/metrics", "/v2", "/v2/models", "/openapi.json", "/"):
        assert text_server.client.get(path).status_code == 200, path
    assert text_server.client.get("/readyz").json()["store_revision"]
    assert text_server.client.get("/v1/tasks").json()["reads"] == "texts"
