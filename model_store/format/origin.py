"""Where a model came from that was fetched by its name: its files, their revision and their SHA-256."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from mass_serve.model_store.format.field_types import (
    RelativePath,
    Sha256,
    StrictModel,
    has_control_characters,
)


def _is_one_line(text: str) -> str:
    if has_control_characters(text):
        raise ValueError(f"has control characters: {text[:80]!a}")
    return text


OneLine = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_is_one_line)]


class Origin(StrictModel):
    """A name, and what was found under it."""

    name: OneLine  # as it was given, without credentials: `hf:org/model@main`, `s3://bucket/model`
    revision: OneLine | None = None  # the commit that the name meant, where there are such
    files: dict[RelativePath, Sha256]
