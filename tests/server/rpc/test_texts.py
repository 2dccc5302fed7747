"""Texts over gRPC, asked about by Triton's own client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from mass_serve.engine import Aggregation, Engine, TokenClassification
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
    inputs = client.get_model_metadata("auto").inputs
    told = [(one.name, one.datatype, list(one.shape)) for one in inputs]
    assert told == [("text", "BYTES", [-1]), ("text_pair", "BYTES", [-1])]


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


def test_pairs_are_two_inputs(client: triton.InferenceServerClient, store: Path) -> None:
    first, second = TEXTS, TEXTS[::-1]
    columns = {"text_pair": second, "text": first}
    inputs = [text_input(*(text.encode() for text in own), name=name) for name, own in columns.items()]
    result = client.infer("guard", inputs, outputs=[triton.InferRequestedOutput("score")])
    answers = Engine.load(str(store)).classify(list(zip(first, second, strict=True)), ["guard"])
    assert result.as_numpy("score").tolist() == [float(answer.probabilities.max()) for answer in answers]


@pytest.mark.parametrize("words", [3, 30_000])  # many are parsed elsewhere
def test_pairs_as_typed_contents(text_server: RunningServer, store: Path, words: int) -> None:
    pair = ("w10 é " * words, "w20")
    tensors = [
        {"name": name, "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [text.encode()]}}
        for name, text in zip(("text", "text_pair"), pair, strict=True)
    ]
    with channel(text_server) as made:
        answer = method(made, "ModelInfer")(
            wire.ModelInferRequest(model_name="guard", inputs=tensors, outputs=[{"name": "score"}])
        )
    (expected,) = Engine.load(str(store)).classify([pair], ["guard"])
    assert answer.outputs[0].contents.fp32_contents[0] == float(expected.probabilities.max())


@pytest.mark.parametrize("aggregation", ["none", "average"])
def test_entities(client: triton.InferenceServerClient, store: Path, aggregation: Aggregation) -> None:
    asked = text_input(*(text.encode() for text in TEXTS))
    result = client.infer("pii", [asked], parameters={"aggregation": aggregation})
    found = [json.loads(row) for row in result.as_numpy("entities")]
    answers = Engine.load(str(store)).classify(TEXTS, ["pii"])
    assert any(found)
    for own, answer in zip(found, answers, strict=True):
        assert isinstance(answer, TokenClassification)
        wanted = answer.entities(aggregation)
        assert own == [{name: getattr(one, name) for name in own[0]} for one in wanted]
    described = client.get_model_metadata("pii")
    assert [one.name for one in described.outputs] == ["entities", "task", "cut", "embedding"]
    with pytest.raises(InferenceServerException, match="takes none; send single texts") as refusal:
        client.infer("pii", [text_input(b"w10"), text_input(b"w11", name="text_pair")])
    assert refusal.value.status() == "StatusCode.INVALID_ARGUMENT"
