"""What Hugging Face's image-classification clients send and expect, as the OpenAPI description shows it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class HuggingFaceParameters(BaseModel):
    """What Hugging Face's image-classification task lets a caller choose."""

    model_config = ConfigDict(extra="forbid", strict=True)

    top_k: Annotated[int | None, Field(description="how many labels to return, 5 by default")] = None
    function_to_apply: Annotated[
        Literal["softmax", "sigmoid", "none"] | None,
        Field(description="what turns logits into scores, softmax by default"),
    ] = None


class HuggingFaceBody(BaseModel):
    """A Hugging Face image-classification request as JSON; what else its clients add is not read."""

    model_config = ConfigDict(strict=True)

    inputs: str = Field(description="the image file in standard base64")
    parameters: HuggingFaceParameters | None = None


class HuggingFaceLabel(BaseModel):
    """A label, its score, and the task that it belongs to."""

    label: str
    score: float
    task: str
    task_revision: str
    unrouted: bool = Field(description="the image is so little like those of any task that none is believed")
