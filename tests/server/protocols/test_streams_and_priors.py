"""Streams and priors over HTTP, from a real server: whose they are, what they change, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from hypothesis import given
from hypothesis import strategies as st

from mass_serve.client import Client
from mass_serve.engine import Engine
from mass_serve.server.errors import BadRequestError
from mass_serve.server.protocols.together import priors_of_text, text_of_priors
from tests.server.protocols.test_native import refused
from tests.server.rpc.servers import address
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
    assert found[1] > alone
    # Where another task has fallen behind, what is left is measured anew: not surer each time, but surer.
    assert all(one > alone for one in found[1:])
    assert coefficient(post(text_server, texts=[TEXT], stream="camera 8")) == alone
    assert coefficient(post(text_server, {"stream": "camera 7"}, texts=[TEXT])) > alone
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


# In every protocol that can say them


@pytest.fixture(scope="module")
def believed(text_engine: Engine) -> tuple[str, str]:
    """The task that answers by itself, and one that answers where nothing else is believed to come."""
    (plain,) = text_engine.classify([TEXT])
    for other in ("guard", "domain", "safety"):
        (given,) = text_engine.classify([TEXT], priors={other: 1.0})
        if given.task != plain.task:
            return plain.task, given.task
    raise AssertionError("no prior changes the task")


def infer(server: RunningServer, parameters: dict[str, Any], count: int = 1) -> httpx.Response:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [count], "data": [TEXT] * count}
    outputs = [{"name": "task"}]
    body = {"inputs": [tensor], "outputs": outputs, "parameters": parameters}
    return server.client.post("/v2/models/auto/infer", json=body)


def predict(server: RunningServer, parameters: dict[str, Any], count: int = 1) -> httpx.Response:
    body = {"instances": [TEXT] * count, "parameters": parameters}
    return server.client.post("/v1/models/auto:predict", json=body)


def test_priors_are_said_in_a_query_too(text_server: RunningServer, believed: tuple[str, str]) -> None:
    plain, other = believed
    asked = post(text_server, {"priors": f"{other}:1"}, texts=[TEXT])
    assert asked.json()["results"][0]["task"] == other
    body_wins = post(text_server, {"priors": f"{other}:1"}, texts=[TEXT], priors={plain: 1.0})
    assert body_wins.json()["results"][0]["task"] == plain


def test_priors_are_said_in_the_open_inference_protocol(
    text_server: RunningServer, believed: tuple[str, str]
) -> None:
    plain, other = believed
    assert infer(text_server, {}).json()["outputs"][0]["data"] == [plain]
    assert infer(text_server, {"priors": f"{other}:1.0"}).json()["outputs"][0]["data"] == [other]
    refused(infer(text_server, {"priors": "cars:0.5"}), 404, "'cars'")
    refused(infer(text_server, {"priors": f"{other}:much"}), 400, "NAME:PROBABILITY")
    refused(infer(text_server, {"priors": f"{other}:-1"}), 400, "0 to 1")


def test_priors_are_said_over_grpc(text_server: RunningServer, believed: tuple[str, str]) -> None:
    tensor = triton.InferInput("text", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([TEXT.encode()], dtype=np.object_))
    with triton.InferenceServerClient(address(text_server)) as client:
        for parameters, task in (({}, believed[0]), ({"priors": f"{believed[1]}:1"}, believed[1])):
            found = client.infer("auto", [tensor], parameters=parameters or None)
            assert found.as_numpy("task").tolist() == [task.encode()]


def test_priors_are_said_to_kserves_v1(text_server: RunningServer, believed: tuple[str, str]) -> None:
    plain, other = believed
    (found,) = predict(text_server, {"priors": {other: 1.0}}).json()["predictions"]
    assert found["task"] == other
    assert predict(text_server, {}).json()["predictions"][0]["task"] == plain
    refused(predict(text_server, {"priors": {other: -1.0}}), 400, "0 to 1")


@pytest.mark.parametrize("ask", [infer, predict])
def test_a_stream_is_one_callers_in_every_protocol(text_server: RunningServer, ask: Any) -> None:
    before = text_server.metric("mass_streams")
    name = f"of {ask.__name__}"
    assert ask(text_server, {"stream": name}).status_code == 200
    assert text_server.metric("mass_streams") == before + 1
    refused(ask(text_server, {"stream": "a\nb"}), 400, "'stream'")
    assert post(text_server, texts=[TEXT], stream=name).json()["results"][0]["routing"]["part"] == 0


@pytest.mark.parametrize("ask", [infer, predict])
def test_same_task_is_said_in_every_protocol(text_server: RunningServer, ask: Any) -> None:
    before = text_server.metric('mass_questions_total{answer="same_task"}')
    assert ask(text_server, {"same_task": True}, 2).status_code == 200
    assert text_server.metric('mass_questions_total{answer="same_task"}') == before + 1


def test_the_client_says_priors_and_streams(text_server: RunningServer, believed: tuple[str, str]) -> None:
    with Client(str(text_server.client.base_url)) as client:
        assert client.classify(TEXT, priors={believed[1]: 1.0}).task == believed[1]
        first = client.classify(TEXT, stream="the client's")
        second = client.classify(TEXT, stream="the client's")
    assert first.routing.part is None
    assert second.routing.part == 0


@given(st.dictionaries(st.from_regex(r"@?[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True), st.floats(0, 1)))
def test_priors_are_read_as_they_are_written(priors: dict[str, float]) -> None:
    assert priors_of_text(text_of_priors(priors)) == priors


@pytest.mark.parametrize("text", ["cars", "cars:", ":0.5", "cars:0.5,cars:0.2", "cars=0.5"])
def test_what_is_no_prior_is_told(text: str) -> None:
    with pytest.raises(BadRequestError, match="NAME:PROBABILITY"):
        priors_of_text(text)
