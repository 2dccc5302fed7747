"""Texts, asked about by Hugging Face's own client and as clients of text-embeddings-inference ask."""

from __future__ import annotations

import json
from typing import Any

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from mass_serve.engine import Classification, Engine
from mass_serve.inputs.texts import Text
from tests import texts
from tests.pictures import picture
from tests.server.protocols.test_native import refused
from tests.server_processes import RunningServer

TEXT, LONG = "w10 w11 w12", "w30 " * 200
CUT = 200 + 2 - texts.MAX_TOKENS
TASK = "/models/safety"


def client(server: RunningServer, path: str = "") -> InferenceClient:
    return InferenceClient(model=f"http://127.0.0.1:{server.port}{path}", token="hf_secret", timeout=20)


def answer(engine: Engine, text: Text, tasks: list[str] | None = None) -> Classification:
    return engine.classify([text], tasks)[0]


def expected(found: Classification, function: str = "softmax", top_k: int = 1000) -> list[tuple[str, float]]:
    """Every label and its score, best first."""
    scores = {"softmax": found.probabilities, "sigmoid": found.logits.sigmoid(), "none": found.logits}[
        function
    ]
    ordered = sorted(zip(found.labels, scores.tolist(), strict=True), key=lambda pair: -pair[1])
    return ordered[:top_k]


def told(labels: list[dict[str, Any]]) -> list[tuple[str, float]]:
    return [(label["label"], label["score"]) for label in labels]


@pytest.mark.parametrize("path", ["", "/", "/models/auto", "/predict", "/models/auto/predict"])
def test_the_client_classifies_a_text_of_any_task(
    text_server: RunningServer, text_engine: Engine, path: str
) -> None:
    found = client(text_server, path).text_classification(TEXT)
    routed = answer(text_engine, TEXT)
    assert [(one.label, one.score) for one in found] == expected(routed)
    assert (found[0]["task"], found[0]["task_revision"]) == (routed.task, routed.task_revision)
    assert (found[0]["unrouted"], found[0]["cut"]) == (routed.unrouted, 0)


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
def test_the_client_chooses_labels_and_scores(
    text_server: RunningServer, text_engine: Engine, function: Any
) -> None:
    found = client(text_server, TASK).text_classification(LONG, top_k=2, function_to_apply=function)
    named = answer(text_engine, LONG, ["safety"])
    assert [(one.label, one.score) for one in found] == expected(named, function, 2)
    assert [one["cut"] for one in found] == [CUT, CUT]


def test_the_client_shows_the_error(text_server: RunningServer) -> None:
    with pytest.raises(HfHubHTTPError, match="There is no task 'cars'"):
        client(text_server, "/models/cars").text_classification(TEXT)
    with pytest.raises(HfHubHTTPError, match="top_k must be between 1 and 1000"):
        client(text_server).text_classification(TEXT, top_k=0)
    with pytest.raises(HfHubHTTPError, match="The text is empty"):
        client(text_server).text_classification("")
    with pytest.raises(HfHubHTTPError, match="This store reads texts"):
        client(text_server).image_classification(picture(1))


@pytest.mark.parametrize("spaces", [0, 2 << 20])  # many are read elsewhere
def test_several_texts_have_a_list_each(text_server: RunningServer, text_engine: Engine, spaces: int) -> None:
    sent = [TEXT, {"text": "w20 w21", "text_pair": "w22"}]
    body = json.dumps({"inputs": sent, "parameters": {"top_k": 1}}).encode() + b" " * spaces
    found = text_server.client.post(TASK, content=body).json()
    asked: list[Text] = [TEXT, ("w20 w21", "w22")]
    assert [told(labels) for labels in found] == [
        expected(answer(text_engine, text, ["safety"]), top_k=1) for text in asked
    ]


def test_a_pair_alone_is_one_text(text_server: RunningServer, text_engine: Engine) -> None:
    body = {"inputs": {"text": "w20 w21", "text_pair": "w22"}, "options": {"wait_for_model": True}}
    (labels,) = text_server.client.post("/", json=body).json()
    assert told(labels) == expected(answer(text_engine, ("w20 w21", "w22")))


# What text-embeddings-inference takes each form for: one text, a pair, or a batch of either.
FORMS: list[tuple[Any, list[Text], bool]] = [
    (TEXT, [TEXT], False),
    ([TEXT], [TEXT], False),
    ([TEXT, "w40"], [(TEXT, "w40")], False),
    ([[TEXT]], [TEXT], True),
    ([[TEXT], ["w20", "w21"], ["w30"]], [TEXT, ("w20", "w21"), "w30"], True),
]


@pytest.mark.parametrize("path", ["/predict", "/models/auto/predict"])
@pytest.mark.parametrize(("inputs", "asked", "is_batch"), FORMS)
def test_predict_answers_as_text_embeddings_inference(
    text_server: RunningServer, text_engine: Engine, path: str, inputs: Any, asked: list[Text], is_batch: bool
) -> None:
    found = text_server.client.post(path, json={"inputs": inputs}).json()
    lists = found if is_batch else [found]
    assert [told(labels) for labels in lists] == [expected(answer(text_engine, text)) for text in asked]


def test_info_is_told_as_text_embeddings_inference_tells_it(
    text_server: RunningServer, text_engine: Engine
) -> None:
    info = text_server.client.get("/info").raise_for_status().json()
    every = [label for task in text_engine.tasks.values() for label in task.labels]
    labels = info["model_type"]["classifier"]
    assert labels["id2label"] == {str(place): label for place, label in enumerate(every)}
    assert labels["label2id"] == {label: place for place, label in enumerate(every)}
    assert (info["model_id"], info["model_sha"]) == ("auto", text_engine.store_revision)
    assert (info["max_input_length"], info["max_client_batch_size"]) == (texts.MAX_TOKENS, 16)
    # What that server's description of its interface requires beside these.
    required = {
        *("model_dtype", "max_concurrent_requests", "max_batch_tokens", "auto_truncate"),
        *("tokenization_workers", "version"),
    }
    assert required < info.keys()
    task = text_server.client.get("/models/safety/info").json()
    own = text_engine.tasks["safety"]
    assert (task["model_id"], task["model_sha"]) == ("safety", own.revision)
    assert list(task["model_type"]["classifier"]["id2label"].values()) == list(own.labels)
    refused(text_server.client.get("/models/cars/info"), 404, "There is no task 'cars'")


def test_a_store_of_images_has_no_info(server: RunningServer) -> None:
    refused(server.client.get("/info"), 404, "This store reads images")


@pytest.mark.parametrize("spaces", [0, 2 << 20])
def test_predict_gives_raw_scores(text_server: RunningServer, text_engine: Engine, spaces: int) -> None:
    body = json.dumps({"inputs": TEXT, "raw_scores": True}).encode() + b" " * spaces
    found = text_server.client.post("/models/guard/predict", content=body).json()
    assert told(found) == expected(answer(text_engine, TEXT, ["guard"]), "none")


def test_options_of_predict_are_known_everywhere(text_server: RunningServer, text_engine: Engine) -> None:
    """At the root text-embeddings-inference answers, too."""
    body = {"inputs": [TEXT, "w40"], "raw_scores": False}
    found = text_server.client.post("/models/guard", json=body).json()
    assert told(found) == expected(answer(text_engine, (TEXT, "w40"), ["guard"]))
    refused(text_server.client.post("/", json={"inputs": LONG, "truncate": False}), 413, "202 tokens")


@pytest.mark.parametrize("direction", ["Right", "right", "Left", "left"])
def test_predict_cuts_either_end(text_server: RunningServer, text_engine: Engine, direction: str) -> None:
    words = [f"w{5 + row % 90}" for row in range(200)]
    kept = words[:78] if direction.lower() == "right" else words[-78:]
    body = {"inputs": " ".join(words), "truncate": True, "truncation_direction": direction}
    found = text_server.client.post("/models/guard/predict", json=body).json()
    assert told(found) == expected(answer(text_engine, " ".join(kept), ["guard"]))
    assert {label["cut"] for label in found} == {CUT}


def test_predict_refuses_what_it_may_not_cut(text_server: RunningServer) -> None:
    for inputs, words in (
        (
            LONG,
            "The text has 202 tokens, and the encoder takes 80; send a shorter one, or let it be truncated",
        ),
        ([["w10"], [LONG]], "texts[1]: The text has 202 tokens"),
        ([LONG, "w10"], "The text has 204 tokens"),
    ):
        body = {"inputs": inputs, "truncate": False}
        refused(text_server.client.post("/predict", json=body), 413, words)
    fits = {"inputs": "w30 " * 78, "truncate": False}
    assert text_server.client.post("/predict", json=fits).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/", {"inputs": []}, 400, "no text"),
        ("/", {"inputs": 5}, 400, "inputs: a text must be a string, or a pair"),
        ("/", {"inputs": ["w10", ["w10", "w11"]]}, 400, "inputs[1]: a text must be"),
        ("/", {"inputs": {"text": "w10"}}, 400, "inputs: a text must be"),
        ("/", {"inputs": ["w10"] * 17}, 413, "17 texts, the limit is 16"),
        ("/", {"inputs": ["w10", " "]}, 400, "texts[1]: The text has no word"),
        ("/", {"inputs": "w10\0"}, 400, "NUL"),
        ("/", {"inputs": "a" * 20_001}, 413, "20001 characters, the limit is 20000"),
        ("/", {"inputs": "w10", "parameters": {"top": 5}}, 400, "parameters.top"),
        ("/", {"inputs": "w10", "parameters": {"function_to_apply": "tanh"}}, 400, "function_to_apply"),
        ("/", {"inputs": "w10", "parameters": {"top_k": 1001}}, 400, "top_k must be between 1 and 1000"),
        ("/", {"parameters": {}}, 400, "inputs: Field required"),
        ("/", {"texts": ["w10"]}, 400, "inputs: Field required"),
        ("/predict", {"inputs": []}, 400, "no text"),
        ("/predict", {"inputs": [[]]}, 400, "inputs: must be a text, a pair"),
        ("/predict", {"inputs": ["w10", "w11", "w12"]}, 400, "or a batch of such lists"),
        ("/predict", {"inputs": [["w10", "w11", "w12"]]}, 400, "or a batch of such lists"),
        ("/predict", {"inputs": [["w10"], "w11"]}, 400, "or a batch of such lists"),
        ("/predict", {"inputs": {"text": "w10", "text_pair": "w11"}}, 400, "or a batch of such lists"),
        ("/predict", {"inputs": [["w10"]] * 17}, 413, "17 texts, the limit is 16"),
        ("/predict", {"inputs": "w10", "truncation_direction": "up"}, 400, "truncation_direction"),
        ("/predict", {"inputs": "w10", "raw_scores": "yes"}, 400, "raw_scores"),
        ("/models/cars/predict", {"inputs": "w10"}, 404, "There is no task 'cars'"),
    ],
)
def test_bad_requests_get_a_sentence(
    text_server: RunningServer, path: str, body: dict[str, Any], status: int, words: str
) -> None:
    refused(text_server.client.post(path, json=body), status, words)


@pytest.mark.parametrize("body", [b"", b"plain words", b'{"inputs": ', b'{"inputs": "\xff"}', b"[]"])
def test_what_is_no_json_of_texts_is_told(text_server: RunningServer, body: bytes) -> None:
    for path in ("/", "/predict"):
        refused(text_server.client.post(path, content=body), 400)


def test_images_are_predicted_as_before(server: RunningServer) -> None:
    for path in ("/predict", "/models/signs/predict"):
        assert server.client.post(path, content=picture(7)).json()[0]["label"] == "7"
    refused(
        server.client.post("/", json={"inputs": "I like you"}), 400, "reads images, and inputs is not base64"
    )


def test_its_requests_are_counted_as_such(text_server: RunningServer) -> None:
    sample = 'mass_requests_total{code="200",protocol="hugging_face"}'
    before = text_server.metric(sample)
    client(text_server).text_classification(TEXT)
    text_server.client.post("/models/guard/predict", json={"inputs": TEXT})
    assert text_server.metric(sample) == before + 2
