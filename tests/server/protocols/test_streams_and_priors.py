"""Streams and priors over HTTP, from a real server: whose they are, what they change, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from mass_serve.engine import Engine
from tests.server.protocols.test_native import refused
from tests.server_processes import RunningServer

TEXT = "w10 w11 w12"


def post(server: RunningServer, query: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    return server.client.post("/v1/classify", params=query, json=body)


def coefficient(response: httpx.Response, at: int = 0) -> float:
    """That of the task that answers."""
    assert response.status_code == 200, response.text
    result = response.json()["results"][at]
    return float(result["routing"]["coefficients"][result["task"]])


def test_a_stream_grows_surer_and_others_do_not(text_server: RunningServer) -> None:
    alone = coefficient(post(text_server, texts=[TEXT]))
    found = [coefficient(post(text_server, texts=[TEXT], stream="camera 7")) for _ in range(4)]
    assert found[0] == alone
    assert found == sorted(found)
    assert found[-1] > alone
    assert coefficient(post(text_server, texts=[TEXT], stream="camera 8")) == alone
    assert coefficient(post(text_server, {"stream": "camera 7"}, texts=[TEXT])) >= found[-1]
    assert text_server.metric("mass_streams") >= 2


def test_an_answer_says_what_part_of_the_inputs_it_is_of(text_server: RunningServer) -> None:
    together = post(text_server, texts=[TEXT, TEXT], same_task=True).json()["results"]
    assert [one["routing"]["part"] for one in together] == [0, 0]
    (alone,) = post(text_server, texts=[TEXT]).json()["results"]
    assert "part" not in alone["routing"]


def test_priors_are_those_of_the_engine(text_server: RunningServer, text_engine: Engine) -> None:
    priors = {"safety": 0.9}
    (expected,) = text_engine.classify([TEXT], priors=priors)
    (found,) = post(text_server, texts=[TEXT], priors=priors).json()["results"]
    assert found["task"] == expected.task
    assert found["routing"]["coefficients"] == pytest.approx(expected.coefficients)


def test_priors_for_every_task_are_taken(text_server: RunningServer) -> None:
    names = [task["name"] for task in text_server.client.get("/v1/tasks").json()["tasks"]]
    priors = {name: 1 / len(names) for name in names}
    assert coefficient(post(text_server, texts=[TEXT], priors=priors)) == pytest.approx(
        coefficient(post(text_server, texts=[TEXT])), abs=1e-5
    )


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({"stream": ""}, 400, ["'stream'", "1 to 128 printable"]),
        ({"stream": "a\nb"}, 400, ["'stream'"]),
        ({"stream": "x" * 1_000_000}, 400, ["'stream'", "1,000,000"]),
        ({"stream": 7}, 400, ["stream"]),
        ({"stream": "a", "answer": "each"}, 400, ["'stream'", "leave one out"]),
        ({"priors": {"safety": -0.5}}, 400, ["'safety'", "0 to 1"]),
        ({"priors": {"safety": "much"}}, 400, ["priors"]),
        ({"priors": [0.5]}, 400, ["priors"]),
        ({"priors": {}}, 400, ["priors"]),
        ({"priors": {"safety": 0.9, "guard": 0.9}}, 400, ["1.8"]),
        ({"priors": {"cars": 0.8}}, 404, ["'cars'"]),
        ({"priors": {"@cars": 0.8}}, 404, ["'@cars'"]),
        ({"priors": {"safety": 0.8}, "tasks": ["guard", "domain"]}, 400, ["'safety'", "'tasks'"]),
        ({"priors": {"safety": 0.8}, "answer": "each"}, 400, ["leave one out"]),
        ({"priors": {f"task{number}": 1e-6 for number in range(20_000)}}, 404, ["There is no task"]),
    ],
)
def test_what_makes_no_sense_is_refused(
    text_server: RunningServer, asked: dict[str, Any], status: int, words: list[str]
) -> None:
    response = post(text_server, texts=[TEXT], **asked)
    refused(response, status, *words)
    assert len(response.json()["error"]) < 400


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_priors_that_are_no_numbers_are_refused(text_server: RunningServer, value: str) -> None:
    body = json.dumps({"texts": [TEXT]})[:-1] + f', "priors": {{"safety": {value}}}}}'
    refused(text_server.client.post("/v1/classify", content=body), 400)


def test_a_named_task_is_answered_whatever_the_stream(text_server: RunningServer) -> None:
    response = post(text_server, texts=[TEXT], tasks=["guard"], stream="camera 9", priors={"guard": 0.5})
    assert response.json()["results"][0]["task"] == "guard"
