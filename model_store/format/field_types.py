"""Field types of the store's pydantic models: their strictness; patterns of names, paths and hashes."""

from __future__ import annotations

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

TASK_NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
# Where a protocol needs a name for "whichever task it is".
AUTO = "auto"
# What would be mistaken for a task in a request's path.
RESERVED_NAMES = (AUTO, "stats")

# A path component starts with a letter or digit, so that `..`, hidden and absolute paths cannot be written.
_COMPONENT = r"[A-Za-z0-9][A-Za-z0-9._-]*"


def _not_reserved(name: str) -> str:
    if name in RESERVED_NAMES:
        raise ValueError(
            f"the task name {name!r} has a meaning in requests; build the store with another name"
        )
    return name


TaskName = Annotated[str, Field(pattern=TASK_NAME_PATTERN), AfterValidator(_not_reserved)]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
RelativePath = Annotated[str, Field(pattern=rf"^{_COMPONENT}(/{_COMPONENT})*$", max_length=512)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def has_control_characters(text: str) -> bool:
    """Tells whether a text would move a terminal's cursor, colour it or break its line."""
    return any(unicodedata.category(character) == "Cc" for character in text)


def _names_a_class(label: str) -> str:
    if has_control_characters(label):
        raise ValueError(f"a label has control characters: {label[:80]!a}")
    return label


Label = Annotated[str, Field(min_length=1), AfterValidator(_names_a_class)]
Share = Annotated[float, Field(gt=0, le=1)]
# The bound keeps a hostile manifest from asking for more memory than any encoder needs.
Size = Annotated[int, Field(ge=1, le=65_536)]


class StrictModel(BaseModel):
    """A frozen model in which unknown keys, NaN, infinities and silent conversions are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def first_problem(error: ValidationError) -> str:
    """The first problem that pydantic found, as `where: what`."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(step) for step in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
