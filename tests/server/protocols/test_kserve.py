"""KServe's v1: what its own client is answered by a real server, and what anybody else is."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from mass_serve.server.errors import BadRequestError
from mass_serve.server.protocols.bodies import MOST_JSON_HERE
from mass_serve.server.protocols.kserve.predict_requests import (
    frame_of_instances,
    instances_of_frame,
    read_instances,
)
from mass_serve.server.protocols.limits import Limits
from mass_serve.server.serving.request_context import EncodedImages, Texts
from tests.pictures import picture
from tests.server.protocols.test_native import refused
from tests.server_processes import PATIENCE, ROOT, RunningServer, running

LIMITS = Limits(max_images=4, max_top_k=10, max_text_characters=2_000_000)


def image(n: int) -> dict[str, str]:
    return {"b64": base64.b64encode(picture(n)).decode()}


def predict(server: RunningServer, model: str, *instances: Any, **more: Any) -> httpx.Response:
    return server.client.post(f"/v1/models/{model}:predict", json={"instances": instances, **more})


def predictions(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    assert set(response.json()) == {"predictions"}
    found: list[dict[str, Any]] = response.json()["predictions"]
    return found


def by_kserves_client(server: RunningServer, model: str, *instances: Any) -> dict[str, Any]:
    # Some of what it imports warns of its own past.
    module = "tests.server.protocols.kserve_client"
    command = [sys.executable, "-W", "ignore", "-m", module, str(server.client.base_url), model]
    done = subprocess.run(
        command, input=json.dumps(instances), capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.optional("kserve")
def test_kserves_client_asks_about_images(server: RunningServer) -> None:
    answer = by_kserves_client(server, "auto", image(7), {"image": image(9)})
    assert answer["ready"] is True
    assert [one["label"] for one in answer["predictions"]] == ["7", "9"]
    assert "There is no explainer" in answer["explained"]["refused"]


@pytest.mark.optional("kserve")
def test_kserves_client_asks_about_texts(text_server: RunningServer) -> None:
    texts = ["w10 w11 w12", "w20"]
    answer = by_kserves_client(text_server, "guard", *texts)
    body = {"texts": texts, "tasks": ["guard"]}
    assert answer["predictions"] == text_server.client.post("/v1/classify", json=body).json()["results"]


@pytest.mark.parametrize("instance", [image(7), {"image": image(7)}, {"image_bytes": image(7)}])
def test_an_image_in_each_of_its_forms(server: RunningServer, instance: dict[str, Any]) -> None:
    """Each prediction is what the service's own protocol answers; what it does not know is not read."""
    found = predictions(predict(server, "auto", instance, signature_name="serving_default"))
    assert found == server.client.post("/v1/classify", json={"images": [image(7)]}).json()["results"]


def test_a_model_is_a_task(server: RunningServer) -> None:
    [found] = predictions(predict(server, "signs", image(3), parameters={"top_k": 2}))
    assert (found["task"], found["label"], len(found["top"])) == ("signs", "3", 2)


@pytest.mark.parametrize(
    ("instance", "native"),
    [
        ("w10 w11", "w10 w11"),
        ({"text": "w10 w11"}, "w10 w11"),
        ({"text": "w10", "text_pair": "w11"}, {"text": "w10", "text_pair": "w11"}),
    ],
)
def test_a_text_in_each_of_its_forms(text_server: RunningServer, instance: Any, native: Any) -> None:
    found = predictions(predict(text_server, "auto", instance))
    assert found == text_server.client.post("/v1/classify", json={"texts": [native]}).json()["results"]


def test_models_are_listed_and_say_whether_they_are_ready(server: RunningServer) -> None:
    names = ["auto", "digits", "signs"]
    assert server.client.get("/v1/models").json()["models"] == names
    for name in names:
        assert server.client.get(f"/v1/models/{name}").json() == {"name": name, "ready": True}
    refused(server.client.get("/v1/models/cats"), 404, "no model 'cats'")


@pytest.mark.optional("openai")
def test_openais_client_lists_the_models(server: RunningServer) -> None:
    from openai import OpenAI

    with OpenAI(base_url=str(server.client.base_url.join("/v1")), api_key="any") as client:
        assert [model.id for model in client.models.list()] == ["auto", "digits", "signs"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "instances"),
        ({"instances": []}, 400, "at least one"),
        ({"instances": image(1)}, 400, "instances"),
        ({"instances": [7]}, 400, "instances[0]: an instance must be an image"),
        ({"instances": [{"image": {"url": "http://127.0.0.1/x"}}]}, 400, "instances[0]"),
        ({"instances": [{"b64": 7}]}, 400, "instances[0]"),
        ({"instances": [image(1), {"b64": "%"}]}, 400, "instances[1].b64 is not base64"),
        ({"instances": [image(1), "w10"]}, 400, "images and texts"),
        ({"instances": [image(1)["b64"]]}, 400, '{"b64": "..."}'),
        ({"instances": [{"b64": "aGVsbG8="}]}, 415, "not an image"),
        ({"instances": [image(1)] * 9}, 413, "limit is 8"),
        ({"instances": [image(1)], "parameters": {"top_k": 0}}, 400, "top_k"),
        ({"instances": [image(1)], "parameters": {"top": 3}}, 400, "top"),
        ({"instances": [image(1)], "parameters": {"mode": "quick"}}, 400, "not 'quick'"),
        ({"instances": [image(1)], "parameters": {"mode": "paper"}}, 400, "in the mode exact or balanced"),
    ],
)
def test_bad_requests(server: RunningServer, body: dict[str, Any], status: int, words: str) -> None:
    refused(server.client.post("/v1/models/auto:predict", json=body), status, words)


def test_what_is_not_there(server: RunningServer) -> None:
    refused(predict(server, "cats", image(1)), 404, "no model 'cats'")
    refused(server.client.post("/v1/models/signs:explain", json={}), 404, ":predict")
    refused(server.client.post("/v1/models/signs"), 405, "GET")
    refused(server.client.get("/v1/models/signs:predict"), 405, "POST")
    refused(server.client.post("/v1/models/auto:predict", content=picture(1)), 400, "JSON")


def test_a_large_body_has_the_same_answer(server: RunningServer) -> None:
    """It is parsed in a worker process: it is padded with what is not read."""
    with running(0.0, {"log_level": "error"}) as large:
        large.wait_until_ready()
        found = predict(large, "auto", image(7), image(8), more="x" * MOST_JSON_HERE)
        assert predictions(found) == predictions(predict(server, "auto", image(7), image(8)))


@pytest.mark.parametrize(
    ("instances", "inputs"),
    [
        ([image(1), image(2)], EncodedImages([picture(1), picture(2)])),
        (["é", {"text": "a", "text_pair": "b"}], Texts(["é", ("a", "b")])),
    ],
)
def test_a_worker_process_reads_the_same(instances: list[Any], inputs: EncodedImages | Texts) -> None:
    parameters = {"top_k": 3, "aggregation": "max"}
    body = json.dumps({"instances": instances, "parameters": parameters}).encode()
    asked = read_instances(body, LIMITS)
    assert asked.inputs == inputs
    assert (asked.top_k, asked.aggregation) == (3, "max")
    frame = frame_of_instances(memoryview(body), b"%d" % LIMITS.most_values)
    assert instances_of_frame(bytearray(frame), LIMITS) == asked


def test_a_worker_process_says_the_same_of_what_is_wrong() -> None:
    body = json.dumps({"instances": [image(1), {"b64": "@"}]}).encode()
    with pytest.raises(BadRequestError, match=r"^instances\[1\]\.b64 is not base64"):
        frame_of_instances(memoryview(body), b"20000")


def test_keys_are_asked_for_and_requests_are_counted(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("right\n")
    with running(0.0, {"inference_keys_file": keys, "log_level": "error"}) as server:
        server.wait_until_ready()
        refused(predict(server, "auto", image(1)), 401, "key")
        refused(server.client.get("/v1/models"), 401, "key")
        refused(server.client.get("/v1/models/auto"), 401, "key")
        server.client.headers["X-API-Key"] = "right"
        assert predictions(predict(server, "auto", image(1)))[0]["label"] == "1"
        counted = 'mass_requests_total{{code="{}",protocol="kserve_v1"}}'
        assert [server.metric(counted.format(code)) for code in (200, 401)] == [1, 3]


def test_no_model_is_ready_before_the_store_is_loaded() -> None:
    with running(5.0, {"log_level": "error"}) as server:
        response = server.client.get("/v1/models/auto")
        refused(response, 503, "loading")
        assert response.headers["Retry-After"]
