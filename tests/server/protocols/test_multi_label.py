"""Tasks of any number of labels, from a real server, by every protocol and by clients that nobody changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from huggingface_hub import InferenceClient

from mass_serve.client import Answer, Client
from mass_serve.engine import Classification, Engine
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from tests import texts, trained_tokenizers
from tests.server.rpc.servers import address
from tests.server_processes import RunningServer, serving
from tests.trained_tokenizers import TEXTS, TRAINED

ONE, SEVERAL, NONE = "guard", "domain", "safety"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    tokenizer = TRAINED["Bert"]()
    size = tokenizer.get_vocab_size()
    models = texts.finetuned(folder, "Bert", multi_label=(SEVERAL, NONE), vocab_size=size)
    trained_tokenizers.save(tokenizer, models.pretrained)
    unreachable = dict.fromkeys(models.models[NONE].config.id2label.values(), 1.0)
    (folder / NONE / "thresholds.json").write_text(json.dumps(unreachable))
    build(models.pretrained, models.tasks, folder / "store", BuildOptions(force=True))
    return folder / "store"


@pytest.fixture(scope="module")
def engine(store: Path) -> Engine:
    return Engine.load(str(store), device="cpu")


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[RunningServer]:
    with serving(store, grpc_port=0, log_format="json") as running:
        running.wait_until_ready()
        yield running


def expected(answer: Classification) -> list[dict[str, Any]]:
    """Labels and probabilities of those that reach their thresholds."""
    scores = dict(zip(answer.labels, answer.probabilities.tolist(), strict=True))
    return [{"label": label, "score": scores[label]} for label in answer.given]


def results(server: RunningServer, **body: Any) -> list[dict[str, Any]]:
    response = server.client.post("/v1/classify", json={"texts": TEXTS, **body})
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["results"]
    return found


def test_an_answer_has_the_labels_that_reach_their_thresholds(server: RunningServer, engine: Engine) -> None:
    answers = engine.classify(TEXTS, [SEVERAL])
    assert any(answer.given for answer in answers)
    for found, answer in zip(results(server, tasks=[SEVERAL], top_k=1000), answers, strict=True):
        assert found["labels"] == expected(answer)
        assert found["labels"] == [one for one in found["top"] if one["score"] >= 0.5]
        assert {"label": found["label"], "score": found["score"]} == found["top"][0]
        assert found["score"] == float(answer.probabilities.max())


def test_no_label_may_be_there_and_the_likeliest_is_still_told(server: RunningServer, engine: Engine) -> None:
    for found, answer in zip(results(server, tasks=[NONE]), engine.classify(TEXTS, [NONE]), strict=True):
        assert found["labels"] == []
        assert found["label"] == answer.labels[int(answer.logits.argmax())]


def test_few_labels_are_asked_for_and_all_that_are_given_are_told(server: RunningServer) -> None:
    many, few = (results(server, tasks=[SEVERAL], top_k=count) for count in (1000, 1))
    assert [one["labels"] for one in many] == [one["labels"] for one in few]
    assert {len(one["top"]) for one in few} == {1}


def test_tasks_of_both_kinds_answer_one_request(server: RunningServer, engine: Engine) -> None:
    found = results(server, answer="each")
    assert [one["task"] for one in found] == [ONE, SEVERAL, NONE] * len(TEXTS)
    answers = engine.classify(TEXTS, answer="each")
    for one, answer in zip(found, answers, strict=True):
        assert one.get("labels") == (None if answer.task == ONE else expected(answer))


@pytest.mark.parametrize("body", [{}, {"same_task": True}, {"tasks": [ONE, SEVERAL]}])
def test_inputs_are_routed_among_tasks_of_both_kinds(
    server: RunningServer, engine: Engine, body: dict[str, Any]
) -> None:
    answers = engine.classify(TEXTS, body.get("tasks"), same_task=body.get("same_task", False))
    for one, answer in zip(results(server, **body), answers, strict=True):
        assert (one["task"], one.get("labels")) == (
            answer.task,
            expected(answer) if answer.is_multi_label else None,
        )
        others = {other.task: other for other in answer.alternatives}
        for other in one["alternatives"]:
            own = others[other["task"]]
            assert [given["label"] for given in other.get("labels", [])] == list(
                own.given if own.is_multi_label else ()
            )


def test_tasks_tell_their_thresholds(server: RunningServer, engine: Engine) -> None:
    tasks = {one["name"]: one for one in server.client.get("/v1/tasks").json()["tasks"]}
    assert tasks[ONE]["thresholds"] is None
    assert tasks[SEVERAL]["thresholds"] == [0.5] * len(engine.tasks[SEVERAL].labels)
    assert tasks[NONE]["thresholds"] == [1.0] * len(engine.tasks[NONE].labels)


def test_the_python_client_has_the_labels(server: RunningServer, engine: Engine) -> None:
    with Client(str(server.client.base_url)) as client:
        for found in client.classify_each(TEXTS[0]):
            assert isinstance(found, Answer)
            (answer,) = engine.classify([TEXTS[0]], [found.task])
            told = None if found.labels is None else [(one.label, one.score) for one in found.labels]
            wanted = [(one["label"], one["score"]) for one in expected(answer)]
            assert told == (wanted if answer.is_multi_label else None)
        assert [task.thresholds is None for task in client.tasks().tasks] == [True, False, False]


@pytest.mark.parametrize("function", [None, "sigmoid", "softmax", "none"])
def test_hugging_faces_client_gets_sigmoids_unless_it_asks_for_others(
    server: RunningServer, engine: Engine, function: Any
) -> None:
    client = InferenceClient(model=f"http://127.0.0.1:{server.port}/models/{SEVERAL}", timeout=20)
    (answer,) = engine.classify(TEXTS[:1], [SEVERAL])
    scores = {
        "sigmoid": answer.logits.sigmoid(),
        "softmax": answer.logits.softmax(0),
        "none": answer.logits,
    }[function or "sigmoid"]
    found = client.text_classification(TEXTS[0], top_k=100, function_to_apply=function)
    assert {one.label: one.score for one in found} == dict(zip(answer.labels, scores.tolist(), strict=True))
    assert [one.label for one in found if one["given"]] == list(answer.given)


def test_of_one_label_nothing_is_said_to_be_given(server: RunningServer) -> None:
    client = InferenceClient(model=f"http://127.0.0.1:{server.port}/models/{ONE}", timeout=20)
    assert all("given" not in one for one in client.text_classification(TEXTS[0]))


def test_clients_of_text_embeddings_inference_get_probabilities_or_logits(
    server: RunningServer, engine: Engine
) -> None:
    (answer,) = engine.classify(TEXTS[:1], [SEVERAL])
    for raw, wanted in ((False, answer.probabilities), (True, answer.logits)):
        body = {"inputs": TEXTS[0], "raw_scores": raw}
        found = server.client.post(f"/models/{SEVERAL}/predict", json=body).json()
        told = {one["label"]: one["score"] for one in found}
        assert told == dict(zip(answer.labels, wanted.tolist(), strict=True))


def _asked_by_triton(over: Any, url: str, task: str) -> Any:
    tensor = over.InferInput("text", [len(TEXTS)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in TEXTS], dtype=np.object_))
    outputs = [over.InferRequestedOutput(name) for name in ("label", "labels", "score", "probabilities")]
    with over.InferenceServerClient(url) as client:
        return client.infer(task, [tensor], outputs=outputs)


@pytest.mark.parametrize("task", [ONE, SEVERAL, NONE])
@pytest.mark.parametrize("over", [tritonclient.http, tritonclient.grpc])
def test_tritons_clients_get_labels_and_sigmoids(
    server: RunningServer, engine: Engine, over: Any, task: str
) -> None:
    url = address(server) if over is tritonclient.grpc else f"127.0.0.1:{server.port}"
    found, answers = _asked_by_triton(over, url, task), engine.classify(TEXTS, [task])
    wanted = [answer.probabilities.tolist() for answer in answers]
    assert found.as_numpy("probabilities").tolist() == wanted
    assert found.as_numpy("score").tolist() == [max(row) for row in wanted]
    assert [tuple(json.loads(one)) for one in found.as_numpy("labels").tolist()] == [
        answer.given for answer in answers
    ]
    metadata = server.client.get(f"/v2/models/{task}").json()
    assert {"name": "labels", "datatype": "BYTES", "shape": [-1]} in metadata["outputs"]
