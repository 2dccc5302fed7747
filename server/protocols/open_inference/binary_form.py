"""A request whose JSON is large, made into the same request in the protocol's binary form.

It happens in a worker process, because parsing would hold the server's interpreter up. All that is checked of
a request is checked there first, so that the JSON that comes back is small.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from mass_serve.inputs.texts import parts
from mass_serve.server.protocols.framed import HEAD, framed, head_bytes
from mass_serve.server.protocols.limits import Limits
from mass_serve.server.protocols.open_inference.infer_inputs import IMAGE, PIXEL_VALUES, TEXT, TEXT_PAIR
from mass_serve.server.protocols.open_inference.infer_requests import (
    MOST_MICROSECONDS,
    InferRequest,
    parse_infer_request,
)
from mass_serve.server.protocols.open_inference.tensors import joined_strings
from mass_serve.server.protocols.together import text_of_priors
from mass_serve.server.serving.request_context import EncodedImages, Inputs, Texts

# Parsing less takes a few milliseconds, which is less than another process costs.
MOST_JSON_BYTES = 1 << 16
# The function that a worker process runs.
TO_BINARY_FORM = "mass_serve.server.protocols.open_inference.binary_form:to_binary_form"
OPTIONS = struct.Struct("<QII")  # bytes of the JSON part, most images, largest top_k


def options(json_length: int, limits: Limits) -> bytes:
    """Returns what `to_binary_form` is to know beside the body."""
    return OPTIONS.pack(json_length, limits.max_images, min(limits.max_top_k, 0xFFFFFFFF))


def to_binary_form(body: memoryview, given: bytes) -> bytes:
    """Returns the length of a JSON part, that part, and the tensors behind it.

    Raises BadRequestError and TooLargeError, as `parse_infer_request` does.
    """
    json_length, max_images, max_top_k = OPTIONS.unpack(given)
    return as_binary_form(parse_infer_request(body, str(json_length), Limits(max_images, max_top_k)))


def as_binary_form(asked: InferRequest, beside: Mapping[str, Any] | None = None) -> bytes:
    """Returns the length of a JSON part, that part, and the tensors behind it.

    `beside` is what the JSON has beside the request.
    """
    tensors = _tensors(asked.inputs, asked.batch_shape)
    inputs = [{**kind, "parameters": {"binary_data_size": len(data)}} for kind, data in tensors]
    return framed({**_options(asked), **(beside or {}), "inputs": inputs}, [data for _, data in tensors])


def split(result: bytearray) -> tuple[memoryview, str]:
    """Returns a request in binary form and the length of its JSON part, of what `to_binary_form` made."""
    return memoryview(result)[HEAD.size :], str(head_bytes(result))


def _tensors(inputs: Inputs, batch_shape: tuple[int, ...]) -> list[tuple[dict[str, Any], bytes]]:
    """Returns the description of each input, and its bytes: of pairs two, else one."""
    if isinstance(inputs, Texts):
        columns = zip(*map(parts, inputs.texts), strict=True)
        of_texts = {"datatype": "BYTES", "shape": batch_shape}
        return [
            ({"name": name, **of_texts}, joined_strings([text.encode() for text in column]))
            for name, column in zip((TEXT, TEXT_PAIR), columns, strict=False)
        ]
    if isinstance(inputs, EncodedImages):
        of_files = {"name": IMAGE, "datatype": "BYTES", "shape": batch_shape}
        return [(of_files, joined_strings(inputs.files))]
    pixels = inputs.pixels
    if pixels.dtype == np.uint8:
        pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    datatype = "UINT8" if pixels.dtype == np.uint8 else "FP32"
    return [({"name": PIXEL_VALUES, "datatype": datatype, "shape": pixels.shape}, pixels.tobytes())]


def _options(asked: InferRequest) -> dict[str, Any]:
    """Returns all of a request but its input."""
    seconds = asked.urgency.timeout
    microseconds = 0 if seconds is None else min(round(seconds * 1e6), MOST_MICROSECONDS)
    return {
        "id": asked.id,
        "parameters": {
            "timeout": microseconds,
            "priority": asked.urgency.priority,
            "binary_data_output": asked.binary,
            "aggregation": asked.aggregation,
            "mode": asked.mode,
            "same_task": asked.together.same_task,
            "stream": asked.together.stream,
            "priors": None if asked.together.priors is None else text_of_priors(asked.together.priors),
        },
        "outputs": [
            {
                "name": output.name,
                "parameters": {"binary_data": output.binary, "classification": output.classes},
            }
            for output in asked.outputs
        ],
    }
