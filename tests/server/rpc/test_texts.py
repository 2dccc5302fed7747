"""Texts over gRPC, asked about by Triton's own client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from mass_serve.engine import Engine
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.server.rpc import open_inference_pb2 as wire
from tests import texts
from tests.pictures import picture
from tests.server.rpc.servers import address, channel, method
from tests.server_processes import RunningServer, serving

TEXTS = ["w10 w11 w12", "w20 é", "w30 " * 200]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    models = texts.finetuned(folder, "Bert", of_tokens=("pii",))
    build(models.pretrained, models.tasks, folder / "store", BuildOptions(force=True))
    return folder / "store"


@pytest.fixture(scope="module")
def text_server(store: Path) -> Iterator[RunningServer]:
    with serving(store, grpc_port=0, log_format="json") as server:
        server.wait_until_ready()
        yield server


@pytest.fixture
def client(text_server: RunningServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address(text_server)) as client:
        yield client


def text_input(*given: bytes, name: str = "text") -> triton.InferInput:
    tensor = triton.InferInput(name, [len(given)], "BYTES")
    tensor.set_data_from_numpy(np.array(given, dtype=np.object_))
    return tensor


def test_models_say_that_they_read_texts(client: triton.InferenceServerClient) -> None:
    (only,) = client.get_model_metadata("auto").inputs
    assert (only.name, only.datatype, list(only.shape)) == ("text", "BYTES", [-1])


@pytest.mark.parametrize("model", ["auto", "safety"])
def test_texts_have_the_answers_of_the_engine(
    client: triton.InferenceServerClient, store: Path, model: str
) -> None:
    names = ("label", "task", "score", "cut")
    asked = text_input(*(text.encode() for text in TEXTS))
    result = client.infer(model, [asked], outputs=[triton.InferRequestedOutput(name) for name in names])
    answers = Engine.load(str(store)).classify(TEXTS, None if model == "auto" else [model])
    labels = [answer.labels[int(answer.logits.argmax())].encode() for answer in answers]
    assert result.as_numpy("label").tolist() == labels
    assert result.as_numpy("task").tolist() == [answer.task.encode() for answer in answers]
    assert result.as_numpy("score").tolist() == [float(answer.probabilities.max()) for answer in answers]
    assert result.as_numpy("cut").tolist() == [0, 0, 200 + 2 - texts.MAX_TOKENS]


@pytest.mark.parametrize("words", [3, 30_000])  # many are parsed elsewhere
def test_texts_as_typed_contents(text_server: RunningServer, store: Path, words: int) -> None:
    text = "w10 é " * words
    tensor = {
        "name": "text",
        "datatype": "BYTES",
        "shape": [1],
        "contents": {"bytes_contents": [text.encode()]},
    }
    wanted = [{"name": "label"}, {"name": "cut"}]
    with channel(text_server) as made:
        answer = method(made, "ModelInfer")(
            wire.ModelInferRequest(model_name="guard", inputs=[tensor], outputs=wanted)
        )
    (expected,) = Engine.load(str(store)).classify([text], ["guard"])
    label, cut = answer.outputs
    assert list(label.contents.bytes_contents) == [expected.labels[int(expected.logits.argmax())].encode()]
    assert list(cut.contents.int_contents) == [max(0, 2 * words + 2 - texts.MAX_TOKENS)]


def test_errors_are_shown(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="The element 1 of the input 'text' is not UTF-8"):
        client.infer("auto", [text_input(b"w10", b"\xff")])
    with pytest.raises(InferenceServerException, match="reads texts, not images"):
        client.infer("auto", [text_input(picture(1), name="image")])


def test_tasks_that_classify_tokens_are_no_models(client: triton.InferenceServerClient) -> None:
    told = "classifies the tokens of a text, which is no model here; POST JSON with 'texts' to /v1/classify"
    for ask in (client.get_model_metadata, client.is_model_ready):
        with pytest.raises(InferenceServerException, match=told) as refusal:
            ask("pii")
        assert refusal.value.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException, match=told):
        client.infer("pii", [text_input(b"w10")])
