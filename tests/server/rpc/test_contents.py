"""Requests with typed contents, their answers, and what is wrong with some."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest

from mass_serve.server.rpc import open_inference_pb2 as wire
from tests.pictures import picture
from tests.server.rpc.servers import image_request, method, refusal


def pixel_request(datatype: str, **contents: Any) -> wire.ModelInferRequest:
    shape = [1, 8, 8, 3] if datatype == "UINT8" else [1, 3, 8, 8]
    tensor = {"name": "pixel_values", "datatype": datatype, "shape": shape, "contents": contents}
    return wire.ModelInferRequest(model_name="auto", inputs=[tensor])


def labels(response: wire.ModelInferResponse) -> list[bytes]:
    (found,) = [output for output in response.outputs if output.name == "label"]
    return list(found.contents.bytes_contents)


def test_the_answer_has_typed_contents_too(rpc: grpc.Channel) -> None:
    wanted = [{"name": name} for name in ("label", "score", "unrouted", "probabilities")]
    answer = method(rpc, "ModelInfer")(image_request(picture(7), picture(9), id="r-1", outputs=wanted))
    assert (answer.model_name, answer.model_version, answer.id) == ("auto", "fake-1", "r-1")
    assert not answer.raw_output_contents
    by_name = {output.name: output for output in answer.outputs}
    assert list(by_name["label"].contents.bytes_contents) == [b"7", b"9"]
    np.testing.assert_allclose(by_name["score"].contents.fp32_contents, [0.9, 0.9], rtol=1e-6)
    assert list(by_name["unrouted"].contents.bool_contents) == [False, False]
    probabilities = by_name["probabilities"]
    assert list(probabilities.shape) == [2, 256]
    assert np.reshape(probabilities.contents.fp32_contents, (2, 256)).argmax(1).tolist() == [7, 9]


def test_pixels_as_numbers(rpc: grpc.Channel) -> None:
    infer = method(rpc, "ModelInfer")
    bytes_of_rows = pixel_request("UINT8", uint_contents=[7, 0, 0] * 64)
    assert labels(infer(bytes_of_rows)) == [b"7"]
    floats_of_planes = pixel_request("FP32", fp32_contents=[9.0] * 64 + [0.0] * 128)
    assert labels(infer(floats_of_planes)) == [b"9"]


def test_large_contents_are_parsed_elsewhere(rpc: grpc.Channel) -> None:
    """More of them than the server parses in its own process."""
    padding = bytes(100_000)  # behind the end of a file, where decoders do not look
    request = image_request(picture(7) + padding, picture(9) + padding, id="r-2", model="signs")
    request.parameters["priority"].uint64_param = 1
    answer = method(rpc, "ModelInfer")(request)
    assert (labels(answer), answer.id, answer.model_name) == ([b"7", b"9"], "r-2", "signs")
    error = refusal(method(rpc, "ModelInfer"), image_request(padding, model="digits"))
    assert "not an image" in error.details()


def test_the_parameters_of_a_request(rpc: grpc.Channel) -> None:
    request = image_request(picture(7), outputs=[{"name": "probabilities"}])
    request.outputs[0].parameters["classification"].int64_param = 3
    request.parameters["a client's own"].string_param = "is not read"
    answer = method(rpc, "ModelInfer")(request)
    assert list(answer.outputs[0].shape) == [1, 3]
    request.outputs[0].parameters["classification"].string_param = "3"
    error = refusal(method(rpc, "ModelInfer"), request)
    assert "outputs[0].parameters.classification" in error.details()


def image_of_shape(*shape: int, datatype: str = "BYTES") -> list[dict[str, Any]]:
    return [{"name": "image", "datatype": datatype, "shape": shape}]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"inputs": []}, "this one has 0"),
        ({"inputs": [{}, {}]}, "this one has 2"),
        ({"inputs": image_of_shape(2)}, "has 0 elements, its shape says 2"),
        ({"inputs": image_of_shape(-1)}, "inputs[0].shape[0]"),
        ({"inputs": image_of_shape(1 << 60)}, "inputs[0].shape[0]"),
        ({"inputs": image_of_shape(1, datatype="FP16")}, "this is 'image' 'FP16' [1]"),
        ({"raw_input_contents": [b"", b""]}, "not in both"),
        (
            {"inputs": image_of_shape(1), "raw_input_contents": [b"", b""]},
            "1 inputs and 2 'raw_input_contents'",
        ),
        ({"model_name": "m" * 300}, "model_name"),
        ({"outputs": [{"name": "nothing"}]}, "There is no output 'nothing'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_named(rpc: grpc.Channel, change: dict[str, Any], text: str) -> None:
    request = image_request(picture(7))
    for name, value in change.items():
        request.ClearField(name)
        request.MergeFrom(wire.ModelInferRequest(**{name: value}))
    error = refusal(method(rpc, "ModelInfer"), request)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert text in error.details()


def test_contents_in_the_wrong_field(rpc: grpc.Channel) -> None:
    infer = method(rpc, "ModelInfer")
    error = refusal(infer, pixel_request("FP32", fp64_contents=[0.0] * 192))
    assert error.details() == "The contents of FP32 belong into 'fp32_contents', not into 'fp64_contents'."
    error = refusal(infer, pixel_request("UINT8", uint_contents=[256] * 192))
    assert error.details() == "The contents of UINT8 must be numbers of 0 to 255."


def test_what_is_no_message_of_the_method(rpc: grpc.Channel) -> None:
    for name, text in (("ModelInfer", "no ModelInferRequest"), ("ModelMetadata", "no ModelMetadataRequest")):
        call = rpc.unary_unary(f"/inference.GRPCInferenceService/{name}")
        for message in (b"\xff\xff", b"\x0a\x7f"):
            with pytest.raises(grpc.RpcError) as told:
                call(message)
            assert told.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert text in told.value.details()
