"""Triton's own client of gRPC, unmodified, to a real server."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.pictures import picture
from tests.server.fakes import SLOW, STRANGE
from tests.server.rpc.servers import address
from tests.server_processes import RunningServer, wait_for


@pytest.fixture
def client(rpc_server: RunningServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address(rpc_server)) as client:
        yield client


def image_input(*images: bytes) -> triton.InferInput:
    tensor = triton.InferInput("image", [len(images)], "BYTES")
    tensor.set_data_from_numpy(np.array(images, dtype=np.object_))
    return tensor


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("auto")
    assert client.is_model_ready("digits", "r1")
    with pytest.raises(InferenceServerException, match="There is no model 'cars'"):
        client.is_model_ready("cars")
    server = client.get_server_metadata()
    assert (server.name, list(server.extensions)) == ("mass-serve", ["classification", "schedule_policy"])
    auto = client.get_model_metadata("auto")
    assert (auto.name, list(auto.versions)) == ("auto", ["fake-1"])
    assert {tensor.name for tensor in auto.inputs} == {"image", "pixel_values"}
    assert {tensor.name for tensor in auto.outputs} >= {"label", "task", "score", "residuals"}
    signs = client.get_model_metadata("signs", "r1")
    assert list(signs.versions) == ["r1"]
    assert "residuals" not in {tensor.name for tensor in signs.outputs}


def test_images_are_classified(client: triton.InferenceServerClient) -> None:
    result = client.infer("auto", [image_input(picture(7), picture(9))], request_id="r-1")
    assert result.as_numpy("label").tolist() == [b"7", b"9"]
    assert result.as_numpy("task").tolist() == [b"digits", b"digits"]
    np.testing.assert_allclose(result.as_numpy("score"), [0.9, 0.9], rtol=1e-6)
    answer = result.get_response()
    assert (answer.id, answer.model_name, answer.model_version) == ("r-1", "auto", "fake-1")


def test_chosen_outputs(client: triton.InferenceServerClient) -> None:
    names = ("probabilities", "residuals", "unrouted")
    images = image_input(picture(7), picture(9, green=STRANGE))
    result = client.infer("auto", [images], outputs=[triton.InferRequestedOutput(name) for name in names])
    assert result.as_numpy("probabilities").shape == (2, 256)
    assert result.as_numpy("probabilities").argmax(1).tolist() == [7, 9]
    assert result.as_numpy("residuals").tolist() == [[3.0, 4.0], [3.0, 4.0]]
    assert result.as_numpy("unrouted").tolist() == [False, True]
    assert result.as_numpy("score") is None


def test_a_named_task_without_routing(client: triton.InferenceServerClient) -> None:
    result = client.infer("signs", [image_input(picture(3))], model_version="r1")
    assert result.as_numpy("task").tolist() == [b"signs"]
    with pytest.raises(InferenceServerException, match="no residuals where the task is named"):
        client.infer("signs", [image_input(picture(3))], outputs=[triton.InferRequestedOutput("residuals")])


def test_classification_strings(client: triton.InferenceServerClient) -> None:
    wanted = [triton.InferRequestedOutput("probabilities", class_count=2)]
    rows = client.infer("auto", [image_input(picture(7), picture(9))], outputs=wanted).as_numpy(
        "probabilities"
    )
    assert rows.shape == (2, 2)
    assert [row[0].decode().split(":")[1:] for row in rows] == [["7", "7"], ["9", "9"]]


@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
def test_pixels_that_the_caller_prepared(client: triton.InferenceServerClient, datatype: str) -> None:
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    pixels[0, ..., 0], pixels[1, ..., 0] = 7, 9
    values = pixels if datatype == "UINT8" else pixels.transpose(0, 3, 1, 2).astype(np.float32)
    tensor = triton.InferInput("pixel_values", list(values.shape), datatype)
    tensor.set_data_from_numpy(np.ascontiguousarray(values))
    assert client.infer("auto", [tensor]).as_numpy("label").tolist() == [b"7", b"9"]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests(client: triton.InferenceServerClient, algorithm: str) -> None:
    result = client.infer("auto", [image_input(picture(7))], compression_algorithm=algorithm)
    assert result.as_numpy("label").tolist() == [b"7"]


def test_errors_are_shown(client: triton.InferenceServerClient) -> None:
    for model, version, data, message, code in (
        ("cars", "", picture(7), "There is no model 'cars'", "NOT_FOUND"),
        ("signs", "r9", picture(7), "Version 'r9' of 'signs' is not served", "NOT_FOUND"),
        ("auto", "", b"nothing like an image", "not an image", "INVALID_ARGUMENT"),
    ):
        with pytest.raises(InferenceServerException, match=message) as told:
            client.infer(model, [image_input(data)], model_version=version)
        assert told.value.status() == f"StatusCode.{code}"


def test_the_two_ways_to_limit_the_time(client: triton.InferenceServerClient) -> None:
    slow = [image_input(picture(1, SLOW))]
    with pytest.raises(InferenceServerException, match=r"no answer within 0.2 seconds"):
        client.infer("auto", slow, timeout=200_000)
    with pytest.raises(InferenceServerException) as told:
        client.infer("auto", slow, client_timeout=0.2)
    assert told.value.status() == "StatusCode.DEADLINE_EXCEEDED"


def test_many_at_once(client: triton.InferenceServerClient) -> None:
    answers: list[triton.InferResult | InferenceServerException] = []
    for red in range(20):
        client.async_infer(
            "auto", [image_input(picture(red))], lambda result, error: answers.append(error or result)
        )
    wait_for(lambda: len(answers) == 20)
    labels = {answer.as_numpy("label").item() for answer in answers}
    assert labels == {str(red).encode() for red in range(20)}
