"""What KServe's clients of v1 send, as the OpenAPI description shows it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from mass_serve.inputs.texts import Text
from mass_serve.server.protocols.image_items import ImageItem
from mass_serve.server.protocols.text_items import TextPair, read_text
from mass_serve.server.protocols.together import PRIORS, SAME_TASK, STREAM


class NamedImage(BaseModel):
    """An instance that says which input it is."""

    image: ImageItem


def read_instance(value: Any) -> Text | ImageItem:
    """Returns the image or text that an instance is. Raises ValueError."""
    match value:
        case {"image": dict(named)} | {"image_bytes": dict(named)} if len(value) == 1:
            value = named
    match value:
        case {"b64": str(file)} if len(value) == 1:
            return ImageItem(b64=file)
        case {"text": str(text)} if len(value) == 1:
            return text
    try:
        return read_text(value)
    except ValueError as error:
        raise ValueError(
            'an instance must be an image, {"b64": "..."} or {"image": {"b64": "..."}}, or a text, a string'
            ' or {"text": "...", "text_pair": "..."}.'
        ) from error


Instance = Annotated[
    Text | ImageItem,
    PlainValidator(read_instance, json_schema_input_type=str | ImageItem | NamedImage | TextPair),
]


class PredictParameters(BaseModel):
    """What a caller may choose."""

    model_config = ConfigDict(extra="forbid", strict=True)

    top_k: Annotated[
        int | None, Field(description="how many labels to return per prediction, 5 by default")
    ] = None
    # Written out: `engine.Aggregation` would bring torch to the processes that read large bodies.
    aggregation: Annotated[
        Literal["none", "simple", "first", "average", "max"] | None,
        Field(description="how tokens become entities, simple by default"),
    ] = None
    # Any text: `engine.ModeName` would bring torch, too.
    mode: Annotated[
        str | None,
        Field(
            description="how much the search for the task is worth, one of `modes` of /v1/tasks; of a model"
            " that is one task it says nothing"
        ),
    ] = None
    same_task: Annotated[bool | None, Field(description=SAME_TASK)] = None
    stream: Annotated[str | None, Field(description=STREAM)] = None
    priors: Annotated[dict[str, float] | None, Field(fail_fast=True, description=PRIORS)] = None


class PredictInstances(BaseModel):
    """A request of KServe's v1; what else its clients add, such as `signature_name`, is not read."""

    model_config = ConfigDict(strict=True)

    instances: list[Instance] = Field(fail_fast=True, description="images, or texts, as the store reads")
    parameters: PredictParameters | None = None
