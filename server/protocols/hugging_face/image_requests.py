"""The two forms of a request, an image or JSON with one in base64, told apart by the body itself."""

from __future__ import annotations

from mass_serve.server.errors import BadRequestError
from mass_serve.server.protocols.bodies import MOST_OPTIONS, decoded_base64, is_json, parse_json
from mass_serve.server.protocols.framed import framed_files, unframed_files
from mass_serve.server.protocols.hugging_face.messages import HuggingFaceBody, HuggingFaceParameters

# The function that reads large JSON in a worker process.
FRAME_OF_JSON = "mass_serve.server.protocols.hugging_face.image_requests:frame_of_json"


def read_image(body: bytes, content_type: str) -> tuple[bytes, HuggingFaceParameters]:
    """Reads the encoded image and what was chosen. Raises BadRequestError and TooLargeError."""
    if not body:
        raise BadRequestError("The request has no body; send an image, or JSON with 'inputs' in base64.")
    return _read_json(body) if is_json(body, content_type) else (body, HuggingFaceParameters())


def frame_of_json(body: memoryview, _: bytes) -> bytes:
    """Returns the image of a JSON body and what was chosen, for `image_of_frame`. Raises as `read_image`."""
    image, parameters = _read_json(bytes(body))
    return framed_files(parameters.model_dump(), [image])


def image_of_frame(frame: bytearray) -> tuple[bytes, HuggingFaceParameters]:
    """Returns the image and what was chosen, of what `frame_of_json` made of a body."""
    chosen, [image] = unframed_files(frame)
    return image, HuggingFaceParameters(**chosen)


def _read_json(body: bytes) -> tuple[bytes, HuggingFaceParameters]:
    parsed = parse_json(HuggingFaceBody, body, MOST_OPTIONS)
    image = decoded_base64(parsed.inputs, "This store reads images, and inputs")
    return image, parsed.parameters or HuggingFaceParameters()
