"""A request for inference, from its message to what the service is asked.

It becomes the protocol's binary form, JSON and tensors behind it, whose reading is the same as over HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from google.protobuf.message import DecodeError
from pydantic import Field

from mass_serve.server.errors import BadRequestError
from mass_serve.server.protocols.bodies import checked, parse_json
from mass_serve.server.protocols.framed import HEAD, head_bytes
from mass_serve.server.protocols.limits import Limits
from mass_serve.server.protocols.open_inference.binary_form import OPTIONS, as_binary_form
from mass_serve.server.protocols.open_inference.infer_requests import (
    MOST_VALUES,
    InferBody,
    InferRequest,
    read_infer_request,
    tensors_behind,
)
from mass_serve.server.protocols.open_inference.tensors import joined_strings
from mass_serve.server.rpc.open_inference_pb2 import InferParameter, ModelInferRequest
from mass_serve.server.rpc.wire import MALFORMED, Parts, split

# The field of `contents` that holds the elements of each type that an input can have.
CONTENTS = {"BYTES": "bytes_contents", "FP32": "fp32_contents", "UINT8": "uint_contents"}
# The function that a worker process runs.
TO_BINARY_FORM = "mass_serve.server.rpc.infer_requests:to_binary_form"

Name = Annotated[str, Field(max_length=256)]


class NamedBody(InferBody):
    """The body, with what HTTP has in the path, and how the tensors came."""

    model_name: Name
    model_version: Name = ""
    raw: bool


@dataclass(frozen=True)
class ModelRequest:
    """A well-formed request, the model that it is for, and how its tensors came."""

    model: str
    version: str | None  # None: the one in service
    asked: InferRequest
    raw: bool  # in `raw_input_contents`: the answer's are in `raw_output_contents`


def read_parts(parts: Parts, limits: Limits) -> ModelRequest:
    """Reads a request that has little beside its raw tensors. Raises BadRequestError or TooLargeError."""
    try:
        message = ModelInferRequest.FromString(parts.rest)
    except DecodeError as error:
        raise BadRequestError(MALFORMED) from error
    raw = bool(parts.raw_tensors)
    tensors = _raw_tensors(message, parts.raw_tensors) if raw else _typed_tensors(message)
    return _model_request(checked(NamedBody, _body(message, tensors) | {"raw": raw}), tensors, limits)


def to_binary_form(message: memoryview, given: bytes) -> bytes:
    """Returns the length of a JSON part, that part, and the tensors behind it, of a message with much in it.

    Raises BadRequestError and TooLargeError, as `read_parts` does.
    """
    _, max_images, max_top_k = OPTIONS.unpack(given)
    request = read_parts(split(message), Limits(max_images, max_top_k))
    named = {"model_name": request.model, "model_version": request.version or "", "raw": request.raw}
    return as_binary_form(request.asked, named)


def read_binary_form(binary: bytearray, limits: Limits) -> ModelRequest:
    """Reads what `to_binary_form` made of a request."""
    view = memoryview(binary)[HEAD.size :]
    length = head_bytes(binary)
    body = parse_json(NamedBody, bytes(view[:length]), MOST_VALUES)
    return _model_request(body, tensors_behind(body, view[length:]), limits)


def _model_request(body: NamedBody, tensors: Sequence[memoryview], limits: Limits) -> ModelRequest:
    asked = read_infer_request(body, tensors, limits)
    return ModelRequest(body.model_name, body.model_version or None, asked, body.raw)


def _body(message: ModelInferRequest, tensors: Sequence[memoryview]) -> dict[str, Any]:
    """Returns what HTTP has in the JSON part, with all inputs as if their bytes were behind it."""
    return {
        "model_name": message.model_name,
        "model_version": message.model_version,
        "id": message.id or None,
        "parameters": _values(message.parameters),
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": {"binary_data_size": len(data)},
            }
            for tensor, data in zip(message.inputs, tensors, strict=True)
        ],
        "outputs": [
            {"name": output.name, "parameters": _values(output.parameters)} for output in message.outputs
        ],
    }


def _values(parameters: Mapping[str, InferParameter]) -> dict[str, Any]:
    """Returns parameters by name; one of no kind at all has no value."""
    kinds = {name: parameter.WhichOneof("parameter_choice") for name, parameter in parameters.items()}
    return {name: getattr(parameters[name], kind) for name, kind in kinds.items() if kind is not None}


def _raw_tensors(message: ModelInferRequest, raw_tensors: list[memoryview]) -> list[memoryview]:
    if any(tensor.HasField("contents") for tensor in message.inputs):
        raise BadRequestError("Send a tensor in 'contents' or in 'raw_input_contents', not in both.")
    if len(raw_tensors) != len(message.inputs):
        raise BadRequestError(
            f"There are {len(message.inputs)} inputs and {len(raw_tensors)} 'raw_input_contents'; send as"
            " many."
        )
    return raw_tensors


def _typed_tensors(message: ModelInferRequest) -> list[memoryview]:
    return [memoryview(_typed_tensor(tensor)) for tensor in message.inputs]


def _typed_tensor(tensor: ModelInferRequest.InferInputTensor) -> bytes:
    """Returns the bytes of an input's contents: none of a type that no input has, which is refused later."""
    field = CONTENTS.get(tensor.datatype)
    if field is None:
        return b""
    others = [named.name for named, _ in tensor.contents.ListFields() if named.name != field]
    if others:
        raise BadRequestError(
            f"The contents of {tensor.datatype} belong into {field!r}, not into {others[0]!r}."
        )
    elements = getattr(tensor.contents, field)
    if tensor.datatype == "BYTES":
        return joined_strings(elements)
    if tensor.datatype == "FP32":
        return np.fromiter(elements, np.dtype("<f4"), len(elements)).tobytes()
    return _small_numbers(np.fromiter(elements, np.uint32, len(elements)))


def _small_numbers(numbers: np.ndarray[Any, np.dtype[np.uint32]]) -> bytes:
    if numbers.size and numbers.max() > 255:
        raise BadRequestError("The contents of UINT8 must be numbers of 0 to 255.")
    return numbers.astype(np.uint8).tobytes()
