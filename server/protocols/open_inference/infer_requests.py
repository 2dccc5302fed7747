"""An inference request of the Open Inference Protocol, from its bytes to what the service is asked."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from mass_serve.server.errors import BadRequestError, NotAnImageError, TooLargeError
from mass_serve.server.protocols.bodies import decoded_base64, parse_json
from mass_serve.server.protocols.limits import Limits, check_count
from mass_serve.server.protocols.open_inference.tensors import NUMBER_TYPES, WireTensor
from mass_serve.server.serving.fair_queue import ORDINARY_PRIORITY
from mass_serve.server.serving.request_context import EncodedImages, Inputs, ReadyImages, Texts, Urgency
from mass_serve.server.serving.sandbox.messages import Buffer

IMAGE, PIXEL_VALUES, TEXT = "image", "pixel_values", "text"
DEFAULT_OUTPUTS = ("label", "task", "score")
# What the likeliest of the other tasks says that an image, or text, was tried with.
ALTERNATIVE_OUTPUTS = ("alternative_label", "alternative_task", "alternative_coefficient")
OUTPUTS = (*DEFAULT_OUTPUTS, "probabilities", "unrouted", "residuals", "cut", *ALTERNATIVE_OUTPUTS)
CLASSIFIED_OUTPUTS = ("label", "score", "probabilities")

# Normalised pixels are within about 3 of zero; what is far outside could only overflow in the encoder.
LARGEST_PIXEL_VALUE = 1000.0

# Tensors of more numbers have a binary form, which costs next to nothing to read.
MOST_VALUES = 2_000_000

# Compressed files may be put one behind the other; each costs the copy of a piece.
MOST_MEMBERS = 1000
UNPACKED_AT_ONCE = 1 << 16

MOST_MICROSECONDS = 1 << 62
# A name for an answer, which is sent back with it.
MOST_ID_BYTES = 256

Dimension = Annotated[int, Field(ge=0, le=1 << 32)]


class Wire(BaseModel):
    """JSON of a client; keys that are not known here are another server's business."""

    model_config = ConfigDict(extra="ignore", strict=True)


class TensorParameters(Wire):
    """What a client says of an input beside its shape."""

    binary_data_size: Annotated[int | None, Field(ge=0)] = None


class InputTensor(Wire):
    """An input: its data in JSON, or their size in the bytes behind it."""

    name: str
    datatype: str
    shape: list[Dimension] = Field(fail_fast=True)
    parameters: TensorParameters | None = None
    data: list[Any] | None = None


class OutputParameters(Wire):
    """How a client wants an output."""

    binary_data: bool | None = None
    classification: int | None = None


class RequestedOutput(Wire):
    """An output that a client asks for."""

    name: str
    parameters: OutputParameters | None = None


class RequestParameters(Wire):
    """Holds what a client says of the whole request."""

    binary_data_output: bool = False
    timeout: Annotated[int | None, Field(ge=0, le=MOST_MICROSECONDS, description="microseconds; 0: none")] = (
        None
    )
    priority: Annotated[int | None, Field(ge=0, le=1 << 32, description="1: first; 0: ordinary")] = None


class InferBody(Wire):
    """The JSON part of a request."""

    id: str | None = None
    parameters: RequestParameters | None = None
    inputs: list[InputTensor] = Field(fail_fast=True)
    outputs: list[RequestedOutput] | None = Field(None, fail_fast=True)


@dataclass(frozen=True)
class WantedOutput:
    """One output of the answer."""

    name: str
    binary: bool
    classes: int | None  # Triton's classification extension: this many of "value:index:label"


@dataclass(frozen=True)
class InferRequest:
    """A well-formed request."""

    id: str | None
    inputs: Inputs
    batch_shape: tuple[int, ...]  # of the input, without an image's own dimensions
    outputs: list[WantedOutput]
    urgency: Urgency


def decompressed(body: bytes, encoding: str, limit: int, hold: Callable[[int], None]) -> bytes | bytearray:
    """Undoes a body's Content-Encoding; `hold` is told of each piece before it is kept, and may refuse it.

    Raises NotAnImageError for an unknown encoding, BadRequestError for a corrupt body, TooLargeError where
    more than `limit` bytes come out, and what `hold` raises.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise NotAnImageError(
            f"The Content-Encoding {encoding[:80]!a} is unknown; use gzip, deflate or none."
        )
    unpacked = bytearray()
    position = 0
    for _ in range(MOST_MEMBERS):
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # tells gzip and zlib headers apart
        while not unpacker.eof:
            piece = body[position : position + UNPACKED_AT_ONCE]
            try:
                more = unpacker.decompress(piece, UNPACKED_AT_ONCE)
            except zlib.error as error:
                raise BadRequestError(f"The body is not valid {encoding}.") from error
            if not (piece or more or unpacker.eof):
                raise BadRequestError(f"The {encoding} body is cut off; send the whole of it.")
            if len(unpacked) + len(more) > limit:
                raise TooLargeError(f"The body unpacks to more than {limit} bytes, which is the limit.")
            hold(len(more))
            unpacked += more
            left = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
            position += len(piece) - len(left)
        if position == len(body):
            return unpacked  # a copy of its own would take its size once more
    raise BadRequestError(f"The body is more than {MOST_MEMBERS} {encoding} files in a row; send it as one.")


def parse_infer_request(body: Buffer, json_length: str | None, limits: Limits) -> InferRequest:
    """Reads the JSON part, `json_length` bytes long (all of the body if None), and the tensors behind it.

    Raises BadRequestError or TooLargeError.
    """
    length = json_part_bytes(json_length, len(body))
    parts = memoryview(body)
    parsed = parse_json(InferBody, bytes(parts[:length]), MOST_VALUES)
    return read_infer_request(parsed, parts[length:], limits)


def read_infer_request(parsed: InferBody, binary: memoryview, limits: Limits) -> InferRequest:
    """Reads a request and the tensors behind it. Raises BadRequestError or TooLargeError."""
    if parsed.id is not None and len(parsed.id.encode()) > MOST_ID_BYTES:
        raise BadRequestError(f"The request's id has more than {MOST_ID_BYTES} bytes; send a shorter one.")
    tensor = _only_input(parsed, binary)
    inputs, batch_shape = _inputs(tensor, limits)
    parameters = parsed.parameters or RequestParameters()
    wanted = parsed.outputs or [RequestedOutput(name=name) for name in DEFAULT_OUTPUTS]
    _check_asked_once(wanted)
    return InferRequest(
        id=parsed.id,
        inputs=inputs,
        batch_shape=batch_shape,
        outputs=[_wanted(output, parameters.binary_data_output, limits) for output in wanted],
        urgency=Urgency(
            timeout=(parameters.timeout or 0) / 1e6 or None,
            priority=parameters.priority or ORDINARY_PRIORITY,
        ),
    )


def json_part_bytes(header: str | None, available: int) -> int:
    """Returns how long the JSON part is, by the header or else all of it. Raises BadRequestError."""
    if header is None:
        return available
    if not header.isdecimal() or len(header) > 18 or int(header) > available:
        raise BadRequestError(
            f"Inference-Header-Content-Length is {header[:40]!a}; it must be the length of the JSON part, at"
            f" most the body's {available} bytes."
        )
    return int(header)


def _only_input(parsed: InferBody, binary: memoryview) -> WireTensor:
    if len(parsed.inputs) != 1:
        raise BadRequestError(
            f"A request has one input, {IMAGE!r}, {PIXEL_VALUES!r} or {TEXT!r}; this one has"
            f" {len(parsed.inputs)}."
        )
    tensor = parsed.inputs[0]
    size = None if tensor.parameters is None else tensor.parameters.binary_data_size
    if (size is None) == (tensor.data is None):
        raise BadRequestError(
            f"The input {tensor.name[:80]!a} needs either 'data' or the parameter 'binary_data_size'."
        )
    if len(binary) != (size or 0):
        raise BadRequestError(
            f"{len(binary)} bytes follow the JSON part, and 'binary_data_size' says {size or 0}; is"
            " Inference-Header-Content-Length right?"
        )
    data = binary if tensor.data is None else tensor.data
    return WireTensor(tensor.name, tensor.datatype, tuple(tensor.shape), data)


def _inputs(tensor: WireTensor, limits: Limits) -> tuple[Inputs, tuple[int, ...]]:
    """Returns what an input holds, and its shape without an image's own: [N], or [N, 1] if it was sent so."""
    count = tensor.shape[0] if tensor.shape else 0
    if tensor.datatype == "BYTES" and tensor.shape[1:] in ((), (1,)):
        if tensor.name == TEXT:
            check_count(count, "text", limits)
            return Texts(_texts(tensor)), tensor.shape
        if tensor.name == IMAGE:
            check_count(count, "image", limits)
            return EncodedImages(_files(tensor)), tensor.shape
    if tensor.name == PIXEL_VALUES and tensor.datatype in NUMBER_TYPES and len(tensor.shape) == 4:
        check_count(count, "image", limits)
        return ReadyImages(_pixels(tensor)), tensor.shape[:1]
    raise BadRequestError(
        f"The input must be {IMAGE!r} BYTES [N], or {PIXEL_VALUES!r} UINT8 [N, H, W, 3] or FP32 [N, 3, H, W],"
        f" or, where the store reads texts, {TEXT!r} BYTES [N]; this is {tensor.name[:80]!a}"
        f" {tensor.datatype[:20]!a} {list(tensor.shape[:6])}."
    )


def _texts(tensor: WireTensor) -> list[str]:
    """Returns the texts of a BYTES tensor. Raises BadRequestError."""
    texts = []
    for index, element in enumerate(tensor.strings()):
        try:
            texts.append(element.decode())
        except UnicodeDecodeError as error:
            raise BadRequestError(
                f"The element {index} of the input {TEXT!r} is not UTF-8 at byte {error.start}; send it so."
            ) from error
    return texts


def _files(tensor: WireTensor) -> list[bytes]:
    """Returns the image files of a BYTES tensor. Raises BadRequestError."""
    # JSON has no bytes, so files are base64 there.
    elements = tensor.strings()
    if isinstance(tensor.data, memoryview):
        return elements
    return [decoded_base64(text.decode(), f"data[{index}]") for index, text in enumerate(elements)]


def _pixels(tensor: WireTensor) -> NDArray[Any]:
    """Returns the pixels of a tensor, [N, 3, H, W] uint8 or float32. Raises BadRequestError."""
    channels = tensor.shape[3] if tensor.datatype == "UINT8" else tensor.shape[1]
    if channels != 3:
        raise BadRequestError(
            f"{PIXEL_VALUES!r} must be UINT8 [N, H, W, 3] or FP32 [N, 3, H, W]; its shape is {tensor.shape}."
        )
    values = tensor.numbers()
    if tensor.datatype == "UINT8":
        return values.transpose(0, 3, 1, 2).copy()
    if not np.all(np.abs(values) <= LARGEST_PIXEL_VALUE):  # NaN is not at most anything
        raise BadRequestError(
            f"{PIXEL_VALUES!r} must be normalised pixels, finite and within {LARGEST_PIXEL_VALUE:g} of zero."
        )
    return values.astype(np.float32, copy=True)


def _check_asked_once(outputs: Sequence[RequestedOutput]) -> None:
    names: set[str] = set()
    for output in outputs:
        if output.name in names:
            raise BadRequestError(f"The output {output.name[:80]!a} is asked for twice; ask for it once.")
        names.add(output.name)


def _wanted(output: RequestedOutput, default_binary: bool, limits: Limits) -> WantedOutput:
    name, parameters = output.name, output.parameters or OutputParameters()
    classes = parameters.classification
    if name not in OUTPUTS:
        raise BadRequestError(f"There is no output {name[:80]!a}; the outputs are {', '.join(OUTPUTS)}.")
    if classes is not None and name not in CLASSIFIED_OUTPUTS:
        raise BadRequestError(
            f"'classification' is an option of {', '.join(CLASSIFIED_OUTPUTS)}, not of {name!r}."
        )
    if classes is not None and not 1 <= classes <= limits.max_top_k:
        raise BadRequestError(f"'classification' must be between 1 and {limits.max_top_k}.")
    binary = parameters.binary_data
    return WantedOutput(name, default_binary if binary is None else binary, classes)
