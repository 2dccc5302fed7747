"""Texts, asked about by Triton's own client and in the JSON of the Open Inference Protocol."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from mass_serve.engine import Engine
from tests.pictures import picture
from tests.server.protocols.test_native import refused
from tests.server_processes import RunningServer
from tests.texts import MAX_TOKENS

TEXTS = ["w10 w11 w12", "w20", "w30 " * 200, "w40 nothing known, not w50"]
PIECE = {"name": "text", "datatype": "BYTES", "shape": [1]}


@pytest.fixture
def client(text_server: RunningServer) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(f"127.0.0.1:{text_server.port}", network_timeout=20)
    yield client
    client.close()


def text_input(texts: Sequence[str | bytes], *, name: str = "text", binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput(name, [len(texts)], "BYTES")
    encoded = [text.encode() if isinstance(text, str) else text for text in texts]
    tensor.set_data_from_numpy(np.array(encoded, dtype=np.object_), binary_data=binary)
    return tensor


def post(server: RunningServer, *inputs: dict[str, Any], **rest: Any) -> httpx.Response:
    body = json.dumps({"inputs": inputs, **rest}).encode()
    return server.client.post("/v2/models/auto/infer", content=body)


def labels(engine: Engine, texts: list[str], tasks: list[str] | None = None) -> list[bytes]:
    answers = engine.classify(texts, tasks)
    return [answer.labels[int(answer.probabilities.argmax())].encode() for answer in answers]


def test_models_say_that_they_read_texts(client: triton.InferenceServerClient, text_engine: Engine) -> None:
    expected = [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in ("text", "text_pair")]
    assert {"name": "cut", "datatype": "INT32", "shape": [-1]} in client.get_model_metadata("auto")["outputs"]
    for name in ("auto", *text_engine.tasks):
        assert client.is_model_ready(name)
        assert client.get_model_metadata(name)["inputs"] == expected
    assert client.get_model_config("guard")["input"] == [
        {"name": "text", "data_type": "TYPE_STRING", "dims": [1], "optional": False},
        {"name": "text_pair", "data_type": "TYPE_STRING", "dims": [1], "optional": True},
    ]


@pytest.mark.parametrize("binary", [True, False])
def test_texts_have_the_answers_of_the_engine(
    client: triton.InferenceServerClient, text_engine: Engine, binary: bool
) -> None:
    result = client.infer("auto", [text_input(TEXTS, binary=binary)], request_id="r-1")
    answers = text_engine.classify(TEXTS)
    assert result.as_numpy("label").tolist() == labels(text_engine, TEXTS)
    assert result.as_numpy("task").tolist() == [answer.task.encode() for answer in answers]
    best = [answer.probabilities.max() for answer in answers]
    assert result.as_numpy("score").tolist() == [float(score) for score in best]
    assert result.get_response()["id"] == "r-1"


@pytest.mark.parametrize("binary", [True, False])
def test_a_named_task_with_chosen_outputs(
    client: triton.InferenceServerClient, text_engine: Engine, binary: bool
) -> None:
    wanted = [
        triton.InferRequestedOutput("probabilities"),
        triton.InferRequestedOutput("label", class_count=2),
        triton.InferRequestedOutput("unrouted"),
        triton.InferRequestedOutput("cut", binary_data=binary),
    ]
    result = client.infer("safety", [text_input(TEXTS)], outputs=wanted)
    answers = text_engine.classify(TEXTS, ["safety"])
    expected = np.stack([answer.probabilities.numpy() for answer in answers])
    assert np.array_equal(result.as_numpy("probabilities"), expected)
    assert result.as_numpy("unrouted").tolist() == [False] * len(TEXTS)
    assert result.as_numpy("cut").tolist() == [0, 0, 200 + 2 - MAX_TOKENS, 0]
    rows = [[element.decode().split(":") for element in row] for row in result.as_numpy("label").tolist()]
    for row, answer in zip(rows, answers, strict=True):
        order = answer.logits.argsort(descending=True)[:2].tolist()
        assert [(int(index), label) for _, index, label in row] == [(i, answer.labels[i]) for i in order]


@pytest.mark.parametrize("binary", [(True, True), (False, False), (True, False), (False, True)])
@pytest.mark.parametrize("names", [("text", "text_pair"), ("text_pair", "text")])
def test_pairs_are_two_inputs(
    client: triton.InferenceServerClient, text_engine: Engine, binary: tuple[bool, bool], names: Sequence[str]
) -> None:
    columns = {"text": TEXTS, "text_pair": TEXTS[::-1]}
    inputs = [
        text_input(columns[name], name=name, binary=own) for name, own in zip(names, binary, strict=True)
    ]
    result = client.infer("safety", inputs, outputs=[triton.InferRequestedOutput("probabilities")])
    answers = text_engine.classify(list(zip(TEXTS, TEXTS[::-1], strict=True)), ["safety"])
    expected = np.stack([answer.probabilities.numpy() for answer in answers])
    assert np.array_equal(result.as_numpy("probabilities"), expected)


def test_pairs_in_large_json(text_server: RunningServer, text_engine: Engine) -> None:
    first, second = "w30, é " * 1000, "w10 w11"
    inputs = [
        {**PIECE, "shape": [1, 1], "data": [[first]]},
        {**PIECE, "shape": [1, 1], "name": "text_pair", "data": [[second]]},
    ]
    response = post(text_server, *inputs, parameters={"padding": " " * (1 << 17)})
    (label,) = [one for one in response.json()["outputs"] if one["name"] == "label"]
    (answer,) = text_engine.classify([(first, second)])
    assert (label["shape"], label["data"]) == ([1, 1], [answer.labels[int(answer.logits.argmax())]])


@pytest.mark.parametrize(
    ("second", "status", "words"),
    [
        ({"shape": [2], "data": ["w10", "w11"]}, 400, "of one shape; these are 'BYTES' [1] and 'BYTES' [2]"),
        ({"shape": [1, 1], "data": [["w10"]]}, 400, "of one shape"),
        ({"datatype": "FP32", "data": [1.0]}, 400, "must both be BYTES [N]"),
        ({"data": [""]}, 400, "The second text of the pair is empty"),
        ({"data": ["w" * 19_999]}, 413, "20002 characters, the limit is 20000"),
        ({"name": "context", "data": ["w10"]}, 400, "both texts of pairs, 'text' and 'text_pair'; this one"),
        ({"name": "text", "data": ["w10"]}, 400, "both texts of pairs, 'text' and 'text_pair'; this one"),
    ],
)
def test_bad_pairs_get_a_sentence(
    text_server: RunningServer, second: dict[str, Any], status: int, words: str
) -> None:
    first = {**PIECE, "data": ["w10"]}
    refused(post(text_server, first, {**PIECE, "name": "text_pair", **second}), status, words)


def test_a_second_text_alone_is_no_input(text_server: RunningServer) -> None:
    alone = {**PIECE, "name": "text_pair", "data": ["w10"]}
    refused(post(text_server, alone), 400, "with 'text_pair' BYTES [N] beside it for pairs")


def test_texts_in_json_are_as_they_are(text_server: RunningServer, text_engine: Engine) -> None:
    """A file stands there in base64; a text needs none."""
    tensor = {"name": "text", "datatype": "BYTES", "shape": [2, 1], "data": [["w10 w11"], ["w20 é"]]}
    answer = post(text_server, tensor).json()
    shapes = {output["name"]: (output["shape"], output["data"]) for output in answer["outputs"]}
    found = [label.decode() for label in labels(text_engine, ["w10 w11", "w20 é"])]
    assert shapes["label"] == ([2, 1], found)


def test_large_json_is_read_elsewhere_and_answered_alike(
    text_server: RunningServer, text_engine: Engine
) -> None:
    texts = ["w30, é " * 1000, "w10"]
    tensor = {"name": "text", "datatype": "BYTES", "shape": [2], "data": texts}
    response = post(text_server, tensor, parameters={"padding": " " * (1 << 17)})
    found = {output["name"]: output["data"] for output in response.json()["outputs"]}
    assert found["label"] == [label.decode() for label in labels(text_engine, texts)]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests(
    client: triton.InferenceServerClient, text_engine: Engine, algorithm: str
) -> None:
    result = client.infer("guard", [text_input(TEXTS)], request_compression_algorithm=algorithm)
    assert result.as_numpy("label").tolist() == labels(text_engine, TEXTS, ["guard"])


@pytest.mark.parametrize(
    ("tensor", "status", "words"),
    [
        ({**PIECE, "shape": [0], "data": []}, 400, "no text"),
        ({**PIECE, "data": [""]}, 400, "The text is empty"),
        ({**PIECE, "data": ["a\0"]}, 400, "NUL"),
        ({**PIECE, "data": [7]}, 400, "must be strings"),
        ({**PIECE, "shape": [2], "data": ["w10"]}, 400, "1 elements, its shape says 2"),
        ({**PIECE, "shape": [17], "data": ["w10"] * 17}, 413, "17 texts, the limit is 16"),
        ({**PIECE, "data": ["a" * 20_001]}, 413, "20001 characters, the limit is 20000"),
        (
            {**PIECE, "shape": [1, 2], "data": [["a", "b"]]},
            400,
            "beside it for pairs; this is 'text' 'BYTES' [1, 2]",
        ),
        ({**PIECE, "name": "texts", "data": ["w10"]}, 400, "where the store reads texts, 'text' BYTES [N]"),
        (
            {**PIECE, "name": "image", "data": ["AAAA"]},
            400,
            "reads texts, not images; send JSON with 'texts'",
        ),
    ],
)
def test_bad_requests_get_a_sentence(
    text_server: RunningServer, tensor: dict[str, Any], status: int, words: str
) -> None:
    refused(post(text_server, tensor), status, words)


def test_errors_are_shown(client: triton.InferenceServerClient) -> None:
    with pytest.raises(
        InferenceServerException, match="The element 1 of the input 'text' is not UTF-8 at byte 2"
    ):
        client.infer("auto", [text_input(["w10", b"ok\xff"])])
    image = triton.InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([picture(1)], dtype=np.object_))
    with pytest.raises(InferenceServerException, match="reads texts"):
        client.infer("auto", [image])


def test_a_store_of_images_is_told_no_texts(server: RunningServer) -> None:
    refused(post(server, {**PIECE, "data": ["w10"]}), 400, "reads images")
    image = {**PIECE, "name": "image", "data": [b64encode(picture(7)).decode()]}
    refused(
        post(server, image, outputs=[{"name": "cut"}]), 400, "Nothing is cut where the store reads images"
    )
