"""The output `embedding` of the Open Inference Protocol, by Triton's clients of both transports."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from mass_serve.engine import Engine
from tests import texts
from tests.pictures import picture
from tests.server.rpc.servers import address
from tests.server_processes import RunningServer

TEXTS = ["w10 w11 w12", "w20", "w30 " * 200]
CUT = [0, 0, 200 + 2 - texts.MAX_TOKENS]


@pytest.fixture(params=[tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def triton(request: pytest.FixtureRequest) -> ModuleType:
    chosen: ModuleType = request.param
    return chosen


@pytest.fixture
def client(triton: ModuleType, text_server: RunningServer) -> Iterator[Any]:
    here = address(text_server) if triton is tritonclient.grpc else f"127.0.0.1:{text_server.port}"
    with triton.InferenceServerClient(here) as client:
        yield client


def asked(triton: ModuleType, client: Any, model: str, *outputs: str) -> Any:
    tensor = triton.InferInput("text", [len(TEXTS)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in TEXTS], dtype=np.object_))
    return client.infer(model, [tensor], outputs=[triton.InferRequestedOutput(name) for name in outputs])


@pytest.mark.parametrize(("model", "task"), [("auto", None), ("guard", "guard")])
def test_embeddings_are_those_of_the_engine(
    triton: ModuleType, client: Any, text_engine: Engine, model: str, task: str | None
) -> None:
    answer = asked(triton, client, model, "embedding", "cut")
    expected = F.normalize(text_engine.embed(TEXTS, task), dim=1)
    torch.testing.assert_close(torch.tensor(answer.as_numpy("embedding")), expected)
    assert answer.as_numpy("cut").tolist() == CUT


def test_labels_may_be_asked_for_with_them(triton: ModuleType, client: Any) -> None:
    """The numbers are those of each alone."""
    both = asked(triton, client, "guard", "label", "embedding")
    for name in ("label", "embedding"):
        alone = asked(triton, client, "guard", name).as_numpy(name)
        np.testing.assert_array_equal(both.as_numpy(name), alone)


def test_they_are_described(triton: ModuleType, client: Any) -> None:
    options = {} if triton is tritonclient.http else {"as_json": True}
    outputs = {one["name"]: one for one in client.get_model_metadata("auto", **options)["outputs"]}
    assert outputs["embedding"]["datatype"] == "FP32"
    assert [int(size) for size in outputs["embedding"]["shape"]] == [-1, -1]


def test_classes_of_them_are_refused(triton: ModuleType, client: Any) -> None:
    tensor = triton.InferInput("text", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"w10"], dtype=np.object_))
    wanted = triton.InferRequestedOutput("embedding", class_count=2)
    with pytest.raises(InferenceServerException, match="classification"):
        client.infer("auto", [tensor], outputs=[wanted])


def test_images_are_embedded(server: RunningServer) -> None:
    """The small engine's embedding is the colour of the corner. One that was sent as [N, 1] is a row, too."""
    tensor = tritonclient.http.InferInput("image", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[picture(3, 4)]], dtype=np.object_))
    with tritonclient.http.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        wanted = tritonclient.http.InferRequestedOutput("embedding", binary_data=False)
        answer = client.infer("signs", [tensor], outputs=[wanted])
    np.testing.assert_allclose(answer.as_numpy("embedding"), [[0.6, 0.8, 0.0]], rtol=1e-6)
