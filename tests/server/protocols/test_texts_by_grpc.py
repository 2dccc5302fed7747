"""Texts, asked about by Triton's own client of gRPC."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from mass_serve.engine import Engine
from tests.server.rpc.servers import address
from tests.server_processes import RunningServer

TEXTS = ["w10 w11 w12", "w20", "w30 " * 200, "w40 nothing known, not w50"]


@pytest.fixture
def client(text_server: RunningServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address(text_server)) as client:
        yield client


def text_input(*texts: bytes) -> triton.InferInput:
    tensor = triton.InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array(texts, dtype=np.object_))
    return tensor


def test_texts_have_the_answers_of_the_engine(
    client: triton.InferenceServerClient, text_engine: Engine
) -> None:
    inputs = client.get_model_metadata("auto").inputs
    assert [tensor.name for tensor in inputs] == ["text", "text_pair"]
    answers = text_engine.classify(TEXTS)
    result = client.infer("auto", [text_input(*(text.encode() for text in TEXTS))])
    labels = [answer.labels[int(answer.probabilities.argmax())].encode() for answer in answers]
    assert result.as_numpy("label").tolist() == labels
    assert result.as_numpy("task").tolist() == [answer.task.encode() for answer in answers]


def test_what_is_no_text_is_refused(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="UTF-8") as told:
        client.infer("auto", [text_input(b"\xff\xfe")])
    assert told.value.status() == "StatusCode.INVALID_ARGUMENT"
