"""From a body to the images or texts that a model is asked about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mass_serve.inputs.texts import Text
from mass_serve.server.errors import BadRequestError
from mass_serve.server.protocols.bodies import parse_json
from mass_serve.server.protocols.framed import framed_files, unframed_files
from mass_serve.server.protocols.image_items import ImageItem, files_of_items
from mass_serve.server.protocols.kserve.messages import PredictInstances, PredictParameters
from mass_serve.server.protocols.limits import DEFAULT_TOP_K, Limits, check_count, checked_top_k
from mass_serve.server.protocols.text_items import texts_of_json
from mass_serve.server.protocols.together import Together
from mass_serve.server.serving.request_context import EncodedImages, Texts

if TYPE_CHECKING:
    from mass_serve.engine import Aggregation, ModeName

# The function that reads large JSON in a worker process.
FRAME_OF_INSTANCES = "mass_serve.server.protocols.kserve.predict_requests:frame_of_instances"


@dataclass(frozen=True)
class PredictRequest:
    """A well-formed request."""

    inputs: EncodedImages | Texts
    top_k: int
    aggregation: Aggregation
    mode: ModeName | None
    together: Together


def read_instances(body: bytes, limits: Limits) -> PredictRequest:
    """Reads a request. Raises BadRequestError and TooLargeError."""
    return _checked(*_read(body, limits.most_values), limits)


def frame_of_instances(body: memoryview, most_values: bytes) -> bytes:
    """Returns a request for `instances_of_frame`. Raises as `read_instances`."""
    files, texts, parameters = _read(bytes(body), int(most_values))
    return framed_files({"texts": texts, "parameters": parameters}, files)


def instances_of_frame(frame: bytearray, limits: Limits) -> PredictRequest:
    """Reads what `frame_of_instances` made of a body. Raises as `read_instances`."""
    options, files = unframed_files(frame)
    return _checked(files, texts_of_json(options["texts"]), options["parameters"], limits)


def _read(body: bytes, most_values: int) -> tuple[list[bytes], list[Text], dict[str, Any]]:
    """Returns the images and the texts of a body, of which one is empty, and its parameters."""
    parsed = parse_json(PredictInstances, body, most_values)
    images = [one for one in parsed.instances if isinstance(one, ImageItem)]
    texts = [one for one in parsed.instances if not isinstance(one, ImageItem)]
    if images and texts:
        raise BadRequestError("The instances are images and texts; send one of them, as the store reads.")
    parameters = parsed.parameters or PredictParameters()
    return files_of_items(images, "instances"), texts, parameters.model_dump()


def _checked(
    files: Sequence[bytes], texts: Sequence[Text], parameters: dict[str, Any], limits: Limits
) -> PredictRequest:
    inputs = Texts(texts) if texts else EncodedImages(files)
    check_count(len(inputs), "text" if texts else "image", limits)
    top_k = parameters["top_k"]
    return PredictRequest(
        inputs,
        checked_top_k(DEFAULT_TOP_K if top_k is None else top_k, limits.max_top_k),
        parameters["aggregation"] or "simple",
        parameters["mode"],
        Together(bool(parameters["same_task"]), parameters["stream"], parameters["priors"]),
    )
