"""Entities over HTTP, from a real server of a store that classifies whole texts and tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from tritonclient.utils import InferenceServerException

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


def test_long_texts_are_placed_by_the_process_that_reads_them(server: RunningServer) -> None:
    short, long = "Jane Doe lives in Zürich " * 40, "Jane Doe lives in Zürich " * 1000
    one, other = results(post(server, texts=[short, long], tasks=["pii"]))
    assert other["entities"] == one["entities"]
    assert other["cut"] > one["cut"]


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


def client(server: RunningServer, path: str = "/models/pii") -> InferenceClient:
    return InferenceClient(model=f"http://127.0.0.1:{server.port}{path}", token="hf_secret", timeout=20)


@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
def test_hugging_faces_client_gets_entities(
    server: RunningServer, engine: Engine, aggregation: Aggregation
) -> None:
    for text, wanted in zip(TEXTS, expected(engine, TEXTS, aggregation), strict=True):
        found = client(server).token_classification(text, aggregation_strategy=aggregation)
        label = "entity" if aggregation == "none" else "entity_group"
        assert [(getattr(one, label), one.score, one.start, one.end, one.word) for one in found] == [
            (one["label"], one["score"], one["start"], one["end"], one["text"]) for one in wanted
        ]


def test_hugging_faces_client_chooses_the_labels(server: RunningServer) -> None:
    every = client(server).token_classification(TEXTS[0], aggregation_strategy="none", ignore_labels=[])
    assert {one.entity for one in every} <= set(texts.ENTITY_LABELS)
    assert [one["index"] for one in every] == list(range(1, len(every) + 1))
    named = {one.entity for one in every if one.entity != "date"}
    some = client(server).token_classification(TEXTS[0], aggregation_strategy="none", ignore_labels=["date"])
    assert {one.entity for one in some} == named
    assert client(server).token_classification(TEXTS[0]) == client(server).token_classification(
        TEXTS[0], aggregation_strategy="simple"
    )


def test_texts_in_a_list_have_a_list_each(server: RunningServer) -> None:
    body = {"inputs": TEXTS[:2], "parameters": {"aggregation_strategy": "max"}}
    lists = server.client.post("/models/pii", json=body).json()
    alone = [server.client.post("/models/pii", json={**body, "inputs": text}).json() for text in TEXTS[:2]]
    assert lists == alone
    assert lists[0][0].keys() == {
        *("entity_group", "score", "word", "start", "end", "task", "task_revision", "cut")
    }


def test_hugging_faces_client_is_told_what_is_wrong(server: RunningServer) -> None:
    with pytest.raises(HfHubHTTPError, match="stride: texts are not split here"):
        client(server).token_classification(TEXTS[0], stride=4)
    with pytest.raises(HfHubHTTPError, match="aggregation_strategy"):
        client(server).token_classification(TEXTS[0], aggregation_strategy="median")  # type: ignore[arg-type]
    with pytest.raises(HfHubHTTPError, match="classifies tokens, and top_k says nothing to it"):
        client(server).text_classification(TEXTS[0], top_k=2)
    with pytest.raises(HfHubHTTPError, match="as a whole, and ignore_labels says nothing to it"):
        client(server, "/models/guard").token_classification(TEXTS[0], ignore_labels=["O"])
    with pytest.raises(HfHubHTTPError, match="There is no task 'cars'"):
        client(server, "/models/cars").token_classification(TEXTS[0])
    body = {"inputs": TEXTS[0], "raw_scores": True}
    refused(
        server.client.post("/models/pii/predict", json=body), 400, "POST JSON with 'texts' to /v1/classify"
    )
    refused(server.client.get("/models/pii/info"), 400, "POST JSON with 'texts' to /v1/classify")
    pair = {"inputs": {"text": "Jane", "text_pair": "Doe"}}
    refused(server.client.post("/models/pii", json=pair), 400, "a task that classifies tokens takes none")


@pytest.fixture
def triton_client(server: RunningServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}", network_timeout=20) as client:
        yield client


def text_input(asked: list[str], name: str = "text") -> triton.InferInput:
    tensor = triton.InferInput(name, [len(asked)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in asked], dtype=np.object_))
    return tensor


@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
def test_tritons_client_gets_entities(
    triton_client: triton.InferenceServerClient, engine: Engine, aggregation: Aggregation
) -> None:
    long = "Jane Doe lives in Zürich " * 40
    wanted = [triton.InferRequestedOutput(name) for name in ("entities", "task", "cut")]
    result = triton_client.infer(
        "pii", [text_input([*TEXTS, long])], outputs=wanted, parameters={"aggregation": aggregation}
    )
    found = [json.loads(row) for row in result.as_numpy("entities")]
    assert found == expected(engine, [*TEXTS, long], aggregation)
    assert result.as_numpy("task").tolist() == [b"pii"] * (len(TEXTS) + 1)
    cut = result.as_numpy("cut").tolist()
    assert not any(cut[:-1])
    assert cut[-1] > 0


@pytest.mark.parametrize("padding", [0, 1 << 17])  # much JSON is read elsewhere
def test_entities_are_what_such_a_model_gives_of_itself(
    server: RunningServer, engine: Engine, padding: int
) -> None:
    tensor = {"name": "text", "shape": [2, 1], "datatype": "BYTES", "data": TEXTS[:2]}
    asked = {"aggregation": "max", "binary_data_output": False, "padding": " " * padding}
    response = server.client.post("/v2/models/pii/infer", json={"inputs": [tensor], "parameters": asked})
    outputs = response.json()["outputs"]
    assert [(one["name"], one["shape"]) for one in outputs] == [("entities", [2, 1]), ("task", [2, 1])]
    assert [json.loads(row) for row in outputs[0]["data"]] == expected(engine, TEXTS[:2], "max")


def test_tritons_client_is_told_what_such_a_model_takes_and_gives(
    triton_client: triton.InferenceServerClient,
) -> None:
    described = triton_client.get_model_metadata("pii")
    assert [one["name"] for one in described["inputs"]] == ["text"]
    assert [one["name"] for one in described["outputs"]] == ["entities", "task", "cut", "embedding"]
    assert triton_client.is_model_ready("pii")
    assert triton_client.get_model_config("pii")["output"][0]["data_type"] == "TYPE_STRING"
    with pytest.raises(InferenceServerException, match="takes none; send single texts"):
        triton_client.infer("pii", [text_input(["Jane"]), text_input(["Doe"], "text_pair")])
    label = [triton.InferRequestedOutput("label")]
    with pytest.raises(InferenceServerException, match="its outputs are entities, task, cut and embedding"):
        triton_client.infer("pii", [text_input(["Jane"])], outputs=label)
    entities = [triton.InferRequestedOutput("entities")]
    with pytest.raises(InferenceServerException, match="'guard', which classifies no tokens"):
        triton_client.infer("guard", [text_input(["Jane"])], outputs=entities)
    with pytest.raises(InferenceServerException, match="aggregation"):
        triton_client.infer("pii", [text_input(["Jane"])], parameters={"aggregation": "median"})


def test_triton_routes_among_tasks_of_whole_texts(server: RunningServer) -> None:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [TEXTS[0]]}
    assert server.client.get("/v2/models").json()["models"] == ["auto", "guard", "domain", "pii"]
    outputs = [{"name": "residuals"}, {"name": "task"}]
    found = server.client.post("/v2/models/auto/infer", json={"inputs": [tensor], "outputs": outputs}).json()[
        "outputs"
    ]
    assert found[0]["shape"] == [1, 2]
    assert found[1]["data"][0] in ("guard", "domain")
