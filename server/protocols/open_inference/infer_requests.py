"""An inference request of the Open Inference Protocol, from its bytes to what the service is asked."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from mass_serve.sandbox.messages import Buffer
from mass_serve.server.errors import BadRequestError, NotAnImageError, TooLargeError
from mass_serve.server.protocols.bodies import parse_json
from mass_serve.server.protocols.limits import Limits
from mass_serve.server.protocols.open_inference.infer_inputs import read_inputs
from mass_serve.server.protocols.open_inference.tensors import WireTensor
from mass_serve.server.protocols.together import (
    PRIORS_AS_TEXT,
    SAME_TASK,
    STREAM,
    Together,
    priors_of_text,
)
from mass_serve.server.serving.fair_queue import ORDINARY_PRIORITY
from mass_serve.server.serving.request_context import Inputs, Urgency

if TYPE_CHECKING:
    from mass_serve.engine import Aggregation, ModeName

# What the likeliest of the other tasks says that an image, or text, was tried with.
ALTERNATIVE_OUTPUTS = ("alternative_label", "alternative_task", "alternative_coefficient")
EMBEDDING, CUT = "embedding", "cut"
OUTPUTS = (
    *("label", "labels", "task", "score", "probabilities", "unrouted", "residuals", CUT, "entities"),
    *ALTERNATIVE_OUTPUTS,
    EMBEDDING,
)
CLASSIFIED_OUTPUTS = ("label", "score", "probabilities")

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
    # Written out: `engine.Aggregation` would bring torch to the processes that read large bodies.
    aggregation: Annotated[
        Literal["none", "simple", "first", "average", "max"] | None,
        Field(description="how tokens become entities, of tasks that classify tokens"),
    ] = None
    # Any text: `engine.ModeName` would bring torch, too.
    mode: Annotated[
        str | None,
        Field(description="of the search for the task, one of `modes` of /v1/tasks; nothing to one task"),
    ] = None
    same_task: Annotated[bool | None, Field(description=SAME_TASK)] = None
    stream: Annotated[str | None, Field(description=STREAM)] = None
    priors: Annotated[str | None, Field(description=PRIORS_AS_TEXT)] = None


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
    outputs: list[WantedOutput]  # none: those that the model gives of itself
    urgency: Urgency
    binary: bool  # how an output is written of which nothing else is said
    aggregation: Aggregation | None  # how tokens become entities; None: as everywhere
    mode: ModeName | None  # of the search for the task; None: the server's own
    together: Together

    @property
    def embeds(self) -> bool:
        """Whether the embedding is asked for."""
        return any(output.name == EMBEDDING for output in self.outputs)

    @property
    def classifies(self) -> bool:
        """Whether what a classification says is asked for: all but the embedding, and what is cut for it."""
        return not self.embeds or any(output.name not in (EMBEDDING, CUT) for output in self.outputs)


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
    return read_infer_request(parsed, tensors_behind(parsed, parts[length:]), limits)


def read_infer_request(parsed: InferBody, binary: Sequence[memoryview], limits: Limits) -> InferRequest:
    """Reads a request, and the bytes of each of its inputs. Raises BadRequestError or TooLargeError."""
    if parsed.id is not None and len(parsed.id.encode()) > MOST_ID_BYTES:
        raise BadRequestError(f"The request's id has more than {MOST_ID_BYTES} bytes; send a shorter one.")
    inputs, batch_shape = read_inputs(
        [_wire_tensor(tensor, data) for tensor, data in zip(parsed.inputs, binary, strict=True)], limits
    )
    parameters = parsed.parameters or RequestParameters()
    wanted = parsed.outputs or []
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
        binary=parameters.binary_data_output,
        aggregation=parameters.aggregation,
        mode=cast("ModeName | None", parameters.mode),  # whether it is one is told where it is asked
        together=Together(
            bool(parameters.same_task),
            parameters.stream,
            None if parameters.priors is None else priors_of_text(parameters.priors),
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


def tensors_behind(parsed: InferBody, binary: memoryview) -> list[memoryview]:
    """Returns the bytes of each input, none of one that stands in the JSON. Raises BadRequestError."""
    sizes = [_binary_size(tensor) for tensor in parsed.inputs]
    if len(binary) != sum(sizes):
        raise BadRequestError(
            f"{len(binary)} bytes follow the JSON part, and 'binary_data_size' says {sum(sizes)}; is"
            " Inference-Header-Content-Length right?"
        )
    ends = list(accumulate(sizes))
    return [binary[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _binary_size(tensor: InputTensor) -> int:
    size = None if tensor.parameters is None else tensor.parameters.binary_data_size
    if (size is None) == (tensor.data is None):
        raise BadRequestError(
            f"The input {tensor.name[:80]!a} needs either 'data' or the parameter 'binary_data_size'."
        )
    return size or 0


def _wire_tensor(tensor: InputTensor, binary: memoryview) -> WireTensor:
    data = binary if tensor.data is None else tensor.data
    return WireTensor(tensor.name, tensor.datatype, tuple(tensor.shape), data)


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
