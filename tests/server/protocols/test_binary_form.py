"""A large JSON request means the same in binary form, and what is wrong with it is said in the same words."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from mass_serve.server.errors import BadRequestError, ServiceError
from mass_serve.server.protocols.limits import Limits
from mass_serve.server.protocols.open_inference.binary_form import options, split, to_binary_form
from mass_serve.server.protocols.open_inference.infer_requests import InferRequest, parse_infer_request
from mass_serve.server.serving.request_context import EncodedImages, ReadyImages
from tests.pictures import picture
from tests.server_processes import RunningServer

LIMITS = Limits(max_images=8, max_top_k=10)
FILES = [base64.b64encode(picture(n)).decode() for n in range(3)]
PIXELS = np.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3).tolist()
FLOATS = np.linspace(-3, 3, 2 * 3 * 4 * 4).reshape(2, 3, 4, 4).tolist()


def converted(body: bytes, json_length: int | None = None) -> InferRequest:
    given = options(len(body) if json_length is None else json_length, LIMITS)
    made, length = split(bytearray(to_binary_form(memoryview(body), given)))
    assert int(length) < 4096
    return parse_infer_request(made, length, LIMITS)


def request(name: str, datatype: str, shape: list[int], data: Any, **rest: Any) -> bytes:
    tensor = {"name": name, "datatype": datatype, "shape": shape, "data": data}
    return json.dumps({"inputs": [tensor], **rest}).encode()


def pairs(shape: list[int], *columns: list[str]) -> bytes:
    tensors = [
        {"name": name, "datatype": "BYTES", "shape": shape, "data": column}
        for name, column in zip(("text", "text_pair"), columns, strict=True)
    ]
    return json.dumps({"inputs": tensors}).encode()


@pytest.mark.parametrize(
    "body",
    [
        request("image", "BYTES", [3], FILES),
        request("image", "BYTES", [3, 1], [[file] for file in FILES], id="é" * 128),
        request("text", "BYTES", [2], ["é", "a, b"], id="of texts"),
        request("text", "BYTES", [2, 1], [["é"], ["a, b"]]),
        pairs([2, 1], ["é", "a, b"], ["c", "é, d"]),
        request("text", "BYTES", [1], ["a"], parameters={"aggregation": "max", "binary_data_output": True}),
        request("text", "BYTES", [1], ["a"], parameters={"mode": "fast"}),
        request("text", "BYTES", [1], ["a"], parameters={"same_task": True, "stream": "a b"}),
        request("text", "BYTES", [1], ["a"], parameters={"priors": "cars:0.1,@retail:0.75"}),
        request("pixel_values", "UINT8", [2, 4, 4, 3], PIXELS),
        request("pixel_values", "FP32", [2, 3, 4, 4], FLOATS, parameters={"timeout": 1_500_000}),
        request("image", "BYTES", [1], FILES[:1], parameters={"timeout": 1 << 62, "priority": 1}),
        request(
            "image",
            "BYTES",
            [1],
            FILES[:1],
            parameters={"binary_data_output": True, "unknown": 1},
            outputs=[
                {"name": "label", "parameters": {"classification": 3}},
                {"name": "residuals", "parameters": {"binary_data": False}},
            ],
        ),
    ],
)
def test_the_request_stays_the_same(body: bytes) -> None:
    before, after = parse_infer_request(body, None, LIMITS), converted(body)
    for name in ("id", "batch_shape", "outputs", "binary", "aggregation", "mode", "together"):
        assert getattr(before, name) == getattr(after, name)
    assert before.urgency.priority == after.urgency.priority
    assert (before.urgency.timeout or 0) == pytest.approx(after.urgency.timeout or 0, rel=1e-9)
    if not isinstance(before.inputs, ReadyImages):
        assert before.inputs == after.inputs
    else:
        assert isinstance(after.inputs, ReadyImages)
        assert before.inputs.pixels.dtype == after.inputs.pixels.dtype
        assert np.array_equal(before.inputs.pixels, after.inputs.pixels)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"inputs":[]}',
        request("image", "BYTES", [2], FILES),
        pairs([2], ["a", "b"], ["c"]),
        pairs([9], ["a"] * 9, ["c"] * 9),
        request("image", "BYTES", [1], ["no base64"]),
        request("image", "BYTES", [9], FILES * 3),
        request("pixel_values", "FP32", [2, 3, 4, 4], [*FLOATS[:1], 1]),
        request("image", "BYTES", [1], FILES[:1], outputs=[{"name": "label"}] * 2),
        request("image", "BYTES", [1], FILES[:1], id="é" * 129),
    ],
)
def test_what_is_wrong_is_said_in_the_same_words(body: bytes) -> None:
    with pytest.raises(ServiceError) as here:
        parse_infer_request(body, None, LIMITS)
    with pytest.raises(type(here.value)) as there:
        converted(body)
    assert str(here.value) == str(there.value)


@pytest.mark.parametrize("wrong", ["1", True, None, {}, "x", [1]])
@pytest.mark.parametrize("nested", [False, True])
def test_numbers_are_numbers(wrong: object, nested: bool) -> None:
    data: list[Any] = [*range(47), wrong]
    shaped = [[data[:24]], [data[24:]]] if nested else data
    with pytest.raises(BadRequestError, match="must be numbers, flat or nested evenly"):
        parse_infer_request(request("pixel_values", "UINT8", [1, 4, 4, 3], shaped), None, LIMITS)


def test_an_id_is_short() -> None:
    with pytest.raises(BadRequestError, match="256 bytes"):
        parse_infer_request(request("image", "BYTES", [1], FILES[:1], id="x" * 257), None, LIMITS)


def test_binary_data_behind_large_json_are_kept() -> None:
    tensor = len(picture(7)).to_bytes(4, "little") + picture(7)
    head = {
        "unknown": "x" * 70_000,
        "inputs": [
            {
                "name": "image",
                "datatype": "BYTES",
                "shape": [1],
                "parameters": {"binary_data_size": len(tensor)},
            }
        ],
    }
    text = json.dumps(head).encode()
    assert converted(text + tensor, len(text)).inputs == EncodedImages([picture(7)])


def test_a_large_request_is_answered_as_a_small_one(server: RunningServer) -> None:
    """Through the server: the JSON is longer than what is parsed in its process."""
    values = np.zeros((1, 8, 8, 3), dtype=int)
    values[0, 0, 0, 0] = 77
    body = request("pixel_values", "UINT8", [1, 8, 8, 3], values.tolist(), padding="x" * 70_000)
    answer = server.client.post("/v2/models/auto/infer", content=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == ["77"]
    wrong = request("pixel_values", "UINT8", [1, 8, 8, 3], [True] * 192, padding="x" * 70_000)
    refused = server.client.post("/v2/models/auto/infer", content=wrong)
    assert refused.status_code == 400
    assert "must be numbers" in refused.json()["error"]
