"""An image in JSON: an object of a file in base64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mass_serve.server.protocols.bodies import decoded_base64


class ImageItem(BaseModel):
    """One image of a JSON request."""

    model_config = ConfigDict(extra="forbid", strict=True)

    b64: Annotated[str, Field(description="the image file in standard base64, or as a data URI")]

    @model_validator(mode="before")
    @classmethod
    def _is_object(cls, value: object) -> object:
        if not isinstance(value, dict):
            raise ValueError(
                'an image must be an object {"b64": "..."}; where the store reads texts, send them as'
                " 'texts'."
            )
        return value


def files_of_items(items: Sequence[ImageItem], name: str = "images") -> list[bytes]:
    """Returns the files in a list of that name. Raises BadRequestError for one that is not base64."""
    return [decoded_base64(item.b64, f"{name}[{index}].b64") for index, item in enumerate(items)]
