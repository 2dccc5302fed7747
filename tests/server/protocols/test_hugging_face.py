"""Hugging Face's image-classification task, asked for by its own client against a real server."""

from __future__ import annotations

import base64
import math
import time

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from tests.pictures import picture
from tests.server.protocols.test_native import refused
from tests.server_processes import PATIENCE, RunningServer, StartServer


def client(server: RunningServer, path: str = "") -> InferenceClient:
    return InferenceClient(model=f"http://127.0.0.1:{server.port}{path}", token="hf_secret", timeout=20)


@pytest.mark.parametrize("path", ["", "/", "/predict", "/models/auto"])
def test_the_client_classifies_an_image_of_any_task(server: RunningServer, path: str) -> None:
    found = client(server, path).image_classification(picture(7))
    assert [element.label for element in found][:2] == ["7", "0"]
    assert found[0].score == pytest.approx(0.9)
    assert len(found) == 5
    assert (found[0]["task"], found[0]["task_revision"], found[0]["unrouted"]) == ("digits", "r1", False)


def test_the_client_asks_for_one_task(server: RunningServer) -> None:
    found = client(server, "/models/signs").image_classification(picture(9), top_k=2)
    assert [element.label for element in found] == ["9", "0"]
    assert found[0]["task"] == "signs"


@pytest.mark.parametrize(
    ("function", "score"),
    [("softmax", 0.9), ("none", math.log(0.9)), ("sigmoid", 0.9 / 1.9)],  # sigmoid(log p) = p / (1 + p)
)
def test_the_client_chooses_the_scores(server: RunningServer, function: str, score: float) -> None:
    found = client(server).image_classification(picture(7), function_to_apply=function, top_k=1)  # type: ignore[arg-type]
    assert [element.label for element in found] == ["7"]
    assert found[0].score == pytest.approx(score, abs=1e-6)


def test_the_client_shows_the_error(server: RunningServer) -> None:
    with pytest.raises(HfHubHTTPError, match="There is no task 'cars'"):
        client(server, "/models/cars").image_classification(picture(1))
    with pytest.raises(HfHubHTTPError, match="top_k must be between 1 and 1000"):
        client(server).image_classification(picture(1), top_k=0)


def test_the_callers_token_is_not_logged(start_server: StartServer) -> None:
    server = start_server(log_level="debug")
    server.wait_until_ready()
    client(server).image_classification(picture(1))
    deadline = time.monotonic() + PATIENCE
    while '"path": "/"' not in server.log():  # the line follows the answer
        assert time.monotonic() < deadline
    assert "hf_secret" not in server.log()


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "no body"),
        (b"plain words", 415, "not an image"),
        (b'{"inputs": 5}', 400, "inputs"),
        (b'{"parameters": {}}', 400, "inputs"),
        (b'{"inputs": "%%%"}', 400, "inputs is not base64"),
        (b'{"inputs": "aGVsbG8="}', 415, "not an image"),
        (b'{"inputs": "aGVsbG8=", "parameters": {"function_to_apply": "tanh"}}', 400, "function_to_apply"),
        (b'{"inputs": "aGVsbG8=", "parameters": {"top": 5}}', 400, "top"),
        (b'{"inputs": ', 400, "JSON"),
    ],
)
def test_bad_requests_get_a_sentence(server: RunningServer, body: bytes, status: int, words: str) -> None:
    refused(server.client.post("/", content=body), status, words)


def test_keys_that_other_servers_know_are_no_error(server: RunningServer) -> None:
    inputs = base64.b64encode(picture(3)).decode()
    response = server.client.post("/", json={"inputs": inputs, "options": {"wait_for_model": True}})
    assert response.json()[0]["label"] == "3"


def test_its_requests_are_counted_as_such(server: RunningServer) -> None:
    sample = 'mass_requests_total{code="200",protocol="hugging_face"}'
    before = server.metric(sample)
    client(server).image_classification(picture(1))
    client(server, "/models/signs").image_classification(picture(1))
    assert server.metric(sample) == before + 2
