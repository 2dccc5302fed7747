"""Where a model came from that was fetched by its name: its files, their revision and their SHA-256."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.field_types import (
    RelativePath,
    Sha256,
    StrictModel,
    has_control_characters,
)

_MOST_CHARACTERS = 1024
# File systems take 255, and while a file is copied its name is up to 41 longer.
_MOST_CHARACTERS_OF_A_FILE = 200


def _is_one_line(text: str) -> str:
    if has_control_characters(text):
        raise ValueError(f"has control characters: {text[:80]!a}")
    return text


OneLine = Annotated[str, Field(min_length=1, max_length=_MOST_CHARACTERS), AfterValidator(_is_one_line)]


class Origin(StrictModel):
    """A name, and what was found under it."""

    name: OneLine  # as it was given, without credentials: `hf:org/model@main`, `s3://bucket/model`
    revision: OneLine | None = None  # the commit that the name meant, where there are such
    files: dict[RelativePath, Sha256]


_NAME, _FILE = TypeAdapter(OneLine), TypeAdapter(RelativePath)


def check_recordable(name: str, files: Iterable[str] = ()) -> None:
    """Raises CheckpointError for a name or a file that cannot be fetched, as no origin can say it."""
    if not _fits(_NAME, name):
        raise CheckpointError(
            f"{name[:80]!a} cannot be fetched: a name has 1 to {_MOST_CHARACTERS} characters, none of them a"
            f" control character, and this one has {len(name):,}"
        )
    for file in files:
        if len(file) > _MOST_CHARACTERS_OF_A_FILE or not _fits(_FILE, file):
            raise CheckpointError(
                f"{name}: the file {file[:80]!a} cannot be fetched: rename it, to at most"
                f" {_MOST_CHARACTERS_OF_A_FILE} letters, digits and . _ - that begin with a letter or digit"
            )


def _fits(kind: TypeAdapter[str], text: str) -> bool:
    try:
        kind.validate_python(text)
    except ValidationError:
        return False
    return True
