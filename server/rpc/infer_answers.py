"""From what was found out to the message of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mass_serve.server.protocols.models import Model
from mass_serve.server.protocols.open_inference.answers import Found, output_tensors
from mass_serve.server.protocols.open_inference.infer_requests import InferRequest
from mass_serve.server.rpc.open_inference_pb2 import InferTensorContents, ModelInferResponse

# The field of `contents` for the elements of each type that an output can have.
CONTENTS = {
    "BYTES": "bytes_contents",
    "FP32": "fp32_contents",
    "INT32": "int_contents",
    "BOOL": "bool_contents",
}


def infer_message(request: InferRequest, model: Model, found: Found, *, raw: bool) -> bytes:
    """Writes the answer to a request, its tensors as bytes where `raw`, else in fields of their types.

    Raises BadRequestError for an output that this model has not.
    """
    message = ModelInferResponse(model_name=model.name, model_version=model.version, id=request.id or "")
    for output in output_tensors(request, model, found):
        values = output.values
        described = message.outputs.add(name=output.name, datatype=values.datatype, shape=output.shape)
        if raw:
            message.raw_output_contents.append(values.as_bytes())
        else:
            elements: Sequence[Any] = values.as_json() if values.strings is None else values.strings
            described.contents.CopyFrom(InferTensorContents(**{CONTENTS[values.datatype]: elements}))
    serialised: bytes = message.SerializeToString()
    return serialised
