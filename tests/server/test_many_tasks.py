"""A real server of 500 tasks: groups of them in every protocol, and what lists them stays usable."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from huggingface_hub import InferenceClient
from PIL import Image
from tritonclient.utils import InferenceServerException

from mass_serve.client import Client
from mass_serve.client.errors import RefusedError
from mass_serve.server.operation.task_metrics import OTHERS
from tests.many_tasks import EVEN, NAMES, NUM_TASKS
from tests.server.rpc.servers import address
from tests.server_processes import RunningServer, serving

GROUP = f"@{EVEN}"
MEMBERS = NAMES[::2]


def _png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, "PNG")
    return file.getvalue()


PNG = _png()
B64 = base64.b64encode(PNG).decode()


@pytest.fixture(scope="module")
def many(many_tasks: Path) -> Iterator[RunningServer]:
    limits: dict[str, Any] = {"queue_images": NUM_TASKS, "max_images_per_request": NUM_TASKS}
    with serving(many_tasks, grpc_port=0, **limits) as server:
        server.wait_until_ready()
        yield server


def answered(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def refusal(response: httpx.Response, status: int) -> str:
    assert response.status_code == status
    sentence: str = response.json()["error"]
    return sentence


class TestGroups:
    def test_in_a_query_in_json_and_in_a_form(self, many: RunningServer) -> None:
        ask, of_one = many.client.post, f"{NAMES[1]},{NAMES[3]}"
        bodies: list[dict[str, Any]] = [
            {"content": PNG, "params": {"tasks": GROUP}},
            {"json": {"images": [{"b64": B64}], "tasks": [GROUP]}},
            {"files": [("images", PNG)], "data": {"tasks": GROUP}},
        ]
        results = [answered(ask("/v1/classify", **body))["results"] for body in bodies]
        assert results[0] == results[1] == results[2]
        assert set(results[0][0]["routing"]["coefficients"]) <= set(MEMBERS)
        [odd] = answered(ask("/v1/classify", content=PNG, params={"tasks": of_one}))["results"]
        assert odd["task"] in of_one.split(",")

    def test_every_task_of_a_group_and_one_more(self, many: RunningServer) -> None:
        query = {"tasks": f"{GROUP},{NAMES[1]},{NAMES[2]}", "answer": "each"}
        results = answered(many.client.post("/v1/classify", content=PNG, params=query))["results"]
        assert [one["task"] for one in results] == [*MEMBERS, NAMES[1]]

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/v1/classify?tasks={}", {"images": [{"b64": B64}]}),
            ("/models/{}", {"inputs": B64}),
            ("/v1/models/{}:predict", {"instances": [{"b64": B64}]}),
            (
                "/v2/models/{}/infer",
                {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [B64]}]},
            ),
        ],
    )
    def test_a_group_that_there_is_not(self, many: RunningServer, path: str, body: dict[str, Any]) -> None:
        sentence = refusal(many.client.post(path.format("@odd"), json=body), 404)
        assert sentence == f"There is no group '@odd'; the groups are: {GROUP}."

    def test_hugging_face(self, many: RunningServer) -> None:
        url = f"{many.client.base_url}/models/{GROUP}".replace("//models", "/models")
        [first, *_] = InferenceClient(url).image_classification(PNG)
        assert first.label.startswith("class ")
        body = {"inputs": B64, "parameters": {"candidate_labels": ["class 0", "class 1"]}}
        answer = answered(many.client.post(f"/models/{GROUP}", json=body))
        assert {one["task"] for one in answer} <= set(MEMBERS)

    def test_models_of_open_inference_and_kserve(self, many: RunningServer) -> None:
        described = answered(many.client.get(f"/v2/models/{GROUP}"))
        assert described["versions"] == [answered(many.client.get("/v1/tasks"))["store_revision"]]
        tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [B64]}
        body = {"inputs": [tensor], "outputs": [{"name": "task"}, {"name": "residuals"}]}
        answer = answered(many.client.post("/v2/models/%40even/infer", json=body))
        assert answer["model_name"] == GROUP
        task, residuals = answer["outputs"]
        assert task["data"][0] in MEMBERS
        assert residuals["shape"] == [1, NUM_TASKS]
        predicted = answered(
            many.client.post(f"/v1/models/{GROUP}:predict", json={"instances": [{"b64": B64}]})
        )
        assert predicted["predictions"][0]["task"] in MEMBERS

    @pytest.mark.parametrize("mode", ["exact", "one_pass"])
    def test_every_protocol_of_models_takes_a_mode(self, many: RunningServer, mode: str) -> None:
        ask = many.client.post
        [native] = answered(ask("/v1/classify", content=PNG, params={"tasks": GROUP, "mode": mode}))[
            "results"
        ]
        body: dict[str, Any] = {"instances": [{"b64": B64}], "parameters": {"mode": mode}}
        assert answered(ask(f"/v1/models/{GROUP}:predict", json=body))["predictions"] == [native]
        tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [B64]}
        body = {"inputs": [tensor], "parameters": {"mode": mode}, "outputs": [{"name": "score"}]}
        [score] = answered(ask(f"/v2/models/{GROUP}/infer", json=body))["outputs"]
        assert score["data"] == [pytest.approx(native["score"])]
        body["parameters"] = {"mode": "quick"}
        assert "mode" in refusal(ask(f"/v2/models/{GROUP}/infer", json=body), 400)

    def test_grpc(self, many: RunningServer) -> None:
        tensor = triton.InferInput("image", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([PNG], dtype=np.object_))
        with triton.InferenceServerClient(address(many)) as client:
            assert client.is_model_ready(GROUP)
            answer = client.infer(GROUP, [tensor], parameters={"mode": "one_pass"})
            assert answer.as_numpy("task")[0].decode() in MEMBERS
            with pytest.raises(InferenceServerException, match="There is no group '@odd'"):
                client.infer("@odd", [tensor])

    def test_lists_of_models_have_it(self, many: RunningServer) -> None:
        models = ["auto", *NAMES, GROUP]
        assert answered(many.client.get("/v2/models"))["models"] == models
        shown = answered(many.client.get(f"/v2/models/{GROUP}/stats"))["model_stats"]
        assert [model["name"] for model in shown] == [GROUP]

    @pytest.mark.optional("openai")
    def test_the_list_of_openais_client_has_it(self, many: RunningServer) -> None:
        from openai import OpenAI

        with OpenAI(base_url=f"{many.client.base_url}/v1", api_key="none") as client:
            assert [model.id for model in client.models.list()] == ["auto", *NAMES, GROUP]

    def test_the_client(self, many: RunningServer) -> None:
        image = Image.new("RGB", (32, 32), "red")
        with Client(str(many.client.base_url)) as client:
            assert client.classify(image, tasks=GROUP).task in MEMBERS
            each = client.classify_each(image, tasks=[GROUP, NAMES[0], NAMES[1]])
            assert [answer.task for answer in each] == [*MEMBERS, NAMES[1]]
            assert list(client.tasks().groups[EVEN]) == MEMBERS
            with pytest.raises(RefusedError, match="There is no group '@odd'"):
                client.classify_each(image, tasks="@odd")


class TestTheListOfTasks:
    def test_it_has_everything_unless_it_is_asked_for_less(self, many: RunningServer) -> None:
        whole = answered(many.client.get("/v1/tasks"))
        assert [task["name"] for task in whole["tasks"]] == NAMES
        assert whole["num_tasks"] == NUM_TASKS
        assert whole["groups"] == {EVEN: MEMBERS}
        first = whole["tasks"][0]
        assert first["labels"] == [f"class {number}" for number in range(first["num_labels"])]
        short = answered(many.client.get("/v1/tasks", params={"labels": "false"}))
        assert short["tasks"] == [{**task, "labels": []} for task in whole["tasks"]]

    def test_pages_and_names(self, many: RunningServer) -> None:
        def names(**query: object) -> list[str]:
            params = {name: str(value) for name, value in query.items()}
            listed = answered(many.client.get("/v1/tasks", params=params))
            found = [task["name"] for task in listed["tasks"]]
            assert listed["num_tasks"] >= len(found)
            return found

        assert names(limit=2) == NAMES[:2]
        assert names(limit=2, offset=499) == NAMES[499:]
        assert names(offset=500) == []
        assert names(name=f"{NAMES[7]},{NAMES[3]}") == [NAMES[7], NAMES[3]]
        assert names(name=GROUP, limit=3) == MEMBERS[:3]

    @pytest.mark.parametrize(
        ("query", "status", "sentence"),
        [
            ("name=cars", 404, "There is no task 'cars'; there are task-000"),
            ("name=@odd", 404, "There is no group '@odd'"),
            ("limit=0", 400, "limit"),
            ("offset=-1", 400, "offset"),
            ("labels=maybe", 400, "labels"),
        ],
    )
    def test_mistakes(self, many: RunningServer, query: str, status: int, sentence: str) -> None:
        assert sentence in refusal(many.client.get(f"/v1/tasks?{query}"), status)


KEY = "k" * 40


class TestMetrics:
    def test_series_are_of_the_first_tasks_and_of_all_others_together(self, many: RunningServer) -> None:
        before = many.metric(f'mass_images_total{{task="{OTHERS}"}}')
        for task in (NAMES[99], NAMES[100], NAMES[499]):
            answered(many.client.post("/v1/classify", content=PNG, params={"tasks": task}))
        text = many.client.get("/metrics").text
        named = set(re.findall(r'^mass_images_total{task="([^"]*)"}', text, re.MULTILINE))
        assert named == {*NAMES[:100], OTHERS}
        assert many.metric(f'mass_images_total{{task="{OTHERS}"}}') == before + 2
        assert many.metric("mass_tasks") == NUM_TASKS
        assert NAMES[100] not in text
        assert len(text.splitlines()) < 3000


class TestUnloading:
    def test_a_group_has_the_tasks_that_are_served(self, store: Path, tmp_path: Path) -> None:
        from mass_serve.model_store.group_revisions import add_to_group

        add_to_group(store, "roads", ["street", "signs"])
        (tmp_path / "keys").write_text(f"{KEY}\n")
        with serving(store, admin_keys_file=tmp_path / "keys") as server:
            server.wait_until_ready()

            def change(name: str, what: str) -> httpx.Response:
                url = f"/v2/repository/models/{name}/{what}"
                return server.client.post(url, headers={"X-API-Key": KEY}, timeout=60)

            assert "a group of tasks; load and unload its tasks" in refusal(change("@roads", "unload"), 400)
            assert "a group of tasks" in refusal(change("@roads", "load"), 400)
            change("street", "unload").raise_for_status()
            assert answered(server.client.get("/v1/tasks"))["groups"] == {"roads": ["signs"]}
            ask: dict[str, Any] = {"content": PNG, "params": {"tasks": "@roads"}}
            [alone] = answered(server.client.post("/v1/classify", **ask))["results"]
            assert (alone["task"], alone["routing"]["familiarity"]) == ("signs", None)
            change("signs", "unload").raise_for_status()
            assert refusal(server.client.post("/v1/classify", **ask), 404) == (
                "None of the tasks of the group @roads is served now."
            )
            assert "@roads" not in json.dumps(answered(server.client.get("/v2/models")))
            change("street", "load").raise_for_status()
            assert answered(server.client.post("/v1/classify", **ask))["results"][0]["task"] == "street"
