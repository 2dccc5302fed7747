"""What clients of OpenAI and of text-embeddings-inference send and expect, as the description shows it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from mass_serve.server.protocols.image_items import ImageItem

TEXTS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
# Both cases are read, and one is described: generators name the values without it.
Direction = Annotated[
    Literal["Right", "right", "Left", "left"],
    WithJsonSchema({"type": "string", "enum": ["Right", "Left"]}),
]


def _is_none(value: object) -> bool:
    return value is None


class EmbeddingsBody(BaseModel):
    """How OpenAI's clients ask, and `images` where the store reads those; what else they add is not read."""

    model_config = ConfigDict(strict=True)

    # Lists of tokens are told from texts, and refused, where they are read.
    input: Annotated[Any, WithJsonSchema(TEXTS)] = None
    images: list[ImageItem] | None = Field(None, fail_fast=True, description="in place of input")
    model: str | None = Field(
        None, description="a task, or base or auto: the pretrained encoder, as without it"
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, description="no other than the embeddings have")


class EmbedBody(BaseModel):
    """How text-embeddings-inference's clients ask, and `huggingface_hub`'s `feature_extraction`."""

    model_config = ConfigDict(strict=True)

    inputs: Annotated[Any, WithJsonSchema(TEXTS)]
    # Both clients send null for what their user left open.
    normalize: bool | None = Field(None, description="to unit length, as without it")
    truncate: bool | None = Field(None, description="false refuses a text that is too long with 413")
    truncation_direction: Direction | None = Field(None, description="the end that is cut off")
    dimensions: int | None = Field(None, description="no other than the embeddings have")
    prompt_name: str | None = Field(None, description="none: stores have no prompts")


class EmbeddingItem(BaseModel):
    """One embedding."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="of unit length; in base64 little-endian float32")
    cut: int | None = Field(
        default=None, exclude_if=_is_none, description="of a text: how many of its tokens were not read"
    )


class Usage(BaseModel):
    """The tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """The embeddings, in the order of the input."""

    object: Literal["list"] = "list"
    data: list[EmbeddingItem]
    model: str
    usage: Usage
    store_revision: str
