"""From a body to the texts or images to embed, and how their embeddings are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mass_serve.inputs.texts import Truncation
from mass_serve.server.errors import BadRequestError
from mass_serve.server.protocols.bodies import parse_json
from mass_serve.server.protocols.embeddings.messages import EmbedBody, EmbeddingsBody
from mass_serve.server.protocols.framed import framed_files, unframed_files
from mass_serve.server.protocols.image_items import files_of_items
from mass_serve.server.protocols.limits import Limits, check_count
from mass_serve.server.serving.request_context import EncodedImages, Texts

BASE = "base"
# The functions that read large JSON in a worker process.
FRAME_OF_EMBEDDINGS = "mass_serve.server.protocols.embeddings.embed_requests:frame_of_embeddings"
FRAME_OF_EMBED = "mass_serve.server.protocols.embeddings.embed_requests:frame_of_embed"


@dataclass(frozen=True)
class EmbeddingsRequest:
    """A well-formed request."""

    inputs: EncodedImages | Texts
    model: str | None = None
    encoding: Literal["float", "base64"] = "float"
    normalise: bool = True
    dimensions: int | None = None  # that the caller counts on


def read_embeddings(body: bytes, limits: Limits) -> EmbeddingsRequest:
    """Reads a request as OpenAI's clients write it. Raises BadRequestError and TooLargeError."""
    parsed = parse_json(EmbeddingsBody, body, limits.most_values)
    options = parsed.model_dump(exclude={"images"})
    return _of_openai(options, _files(parsed), limits)


def frame_of_embeddings(body: memoryview, most_values: bytes) -> bytes:
    """Returns a request for `embeddings_of_frame`. Raises as `read_embeddings`."""
    parsed = parse_json(EmbeddingsBody, bytes(body), int(most_values))
    files = _files(parsed)
    return framed_files(
        parsed.model_dump(exclude={"images"}) | {"has_images": files is not None}, files or []
    )


def embeddings_of_frame(frame: bytearray, limits: Limits) -> EmbeddingsRequest:
    """Reads what `frame_of_embeddings` made of a body. Raises as `read_embeddings`."""
    options, files = unframed_files(frame)
    return _of_openai(options, files if options.pop("has_images") else None, limits)


def read_embed(body: bytes, limits: Limits) -> EmbeddingsRequest:
    """Reads a request as text-embeddings-inference's clients write it. Raises as `read_embeddings`."""
    return _of_embed(parse_json(EmbedBody, body, limits.most_values), limits)


def frame_of_embed(body: memoryview, most_values: bytes) -> bytes:
    """Returns a request for `embed_of_frame`. Raises as `read_embed`."""
    return framed_files(parse_json(EmbedBody, bytes(body), int(most_values)).model_dump(), [])


def embed_of_frame(frame: bytearray, limits: Limits) -> EmbeddingsRequest:
    """Reads what `frame_of_embed` made of a body. Raises as `read_embed`."""
    return _of_embed(EmbedBody(**unframed_files(frame)[0]), limits)


def _files(parsed: EmbeddingsBody) -> list[bytes] | None:
    return None if parsed.images is None else files_of_items(parsed.images)


def _of_openai(options: dict[str, Any], files: list[bytes] | None, limits: Limits) -> EmbeddingsRequest:
    given = options["input"]
    if (given is None) == (files is None):
        raise BadRequestError(
            "Send either 'input', a text or a list of texts, or 'images', as the store reads."
        )
    inputs = Texts(_texts(given, "input")) if files is None else EncodedImages(files)
    check_count(len(inputs), "text" if files is None else "image", limits)
    return EmbeddingsRequest(
        inputs,
        options["model"],
        options["encoding_format"],
        dimensions=options["dimensions"],
    )


def _texts(given: object, name: str) -> list[str]:
    """Returns the texts of a field. Raises BadRequestError for lists of tokens, and for what is neither."""
    if isinstance(given, str):
        return [given]
    texts: list[str] = []
    for index, one in enumerate(given if isinstance(given, list) else [given]):
        if _are_tokens(one):
            raise BadRequestError(
                f"{name} holds numbers; this server makes the tokens itself, so send the text."
            )
        if not isinstance(one, str):
            where = f"{name}[{index}]" if isinstance(given, list) else name
            raise BadRequestError(f"{where} is no text; {name} is a text or a list of texts.")
        texts.append(one)
    return texts


def _are_tokens(one: object) -> bool:
    """Tells whether a value is a token, or a list of tokens."""
    first = one[0] if isinstance(one, list) and one else one
    return isinstance(first, int) and not isinstance(first, bool)


def _of_embed(body: EmbedBody, limits: Limits) -> EmbeddingsRequest:
    if body.prompt_name is not None:
        raise BadRequestError("prompt_name: stores have no prompts; put yours before the text.")
    texts = _texts(body.inputs, "inputs")
    check_count(len(texts), "text", limits)
    return EmbeddingsRequest(
        Texts(texts, _truncation(body)),
        normalise=body.normalize is not False,
        dimensions=body.dimensions,
    )


def _truncation(body: EmbedBody) -> Truncation | None:
    if body.truncate is False:
        return "none"
    if body.truncation_direction is None:
        return None
    return "left" if body.truncation_direction.lower() == "left" else "right"


def check_dimensions(asked: EmbeddingsRequest, lengths: Sequence[int]) -> None:
    """Raises BadRequestError where the caller counts on another number of dimensions."""
    if asked.dimensions is not None and set(lengths) != {asked.dimensions}:
        raise BadRequestError(
            f"dimensions: embeddings have {lengths[0]} here, not {asked.dimensions}; leave it out."
        )
