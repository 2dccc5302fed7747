"""JSON requests of the service's own protocol, as the OpenAPI description shows them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ImageItem(BaseModel):
    """One image of a JSON request."""

    model_config = ConfigDict(extra="forbid", strict=True)

    b64: Annotated[str, Field(description="the image file in standard base64")]


class ClassifyBody(BaseModel):
    """A classification request as JSON."""

    model_config = ConfigDict(extra="forbid", strict=True)

    images: list[ImageItem] = Field(fail_fast=True)
    tasks: list[str] | None = Field(
        None, fail_fast=True, description="choose among these tasks; one name skips the routing"
    )
    top_k: int | None = Field(None, description="how many labels to return per image, 5 by default")
