"""Field types of the store's pydantic models: their strictness; patterns of names, paths and hashes."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

TASK_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
# Where a protocol needs a name for "whichever task it is".
AUTO = "auto"
# What would be mistaken for a task in a request's path, however it is written.
RESERVED_NAMES = (AUTO, "stats")

# A path component starts with a letter or digit, so that `..`, hidden and absolute paths cannot be written.
_COMPONENT = r"[A-Za-z0-9][A-Za-z0-9._-]*"


def is_reserved(name: str) -> bool:
    """Tells whether a name has a meaning in requests and can be no task's."""
    return name.lower() in RESERVED_NAMES


def spelled_otherwise(names: Iterable[str]) -> tuple[str, str] | None:
    """Returns the first two names that differ in their case alone; None where no two do.

    Tasks of such names would share a folder where file systems do not tell cases apart.
    """
    spelling: dict[str, str] = {}
    for name in names:
        known = spelling.setdefault(name.lower(), name)
        if known != name:
            return known, name
    return None


def _not_reserved(name: str) -> str:
    if is_reserved(name):
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
LARGEST_SIZE = 65_536
Size = Annotated[int, Field(ge=1, le=LARGEST_SIZE)]


class StrictModel(BaseModel):
    """A frozen model in which unknown keys, NaN, infinities and silent conversions are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def first_problem(error: ValidationError) -> str:
    """The first problem that pydantic found, as `where: what`."""
    problem = error.errors(include_url=False)[0]
    # Pydantic names the kind it took a value for as if it were a key; those that are no keys begin with `<`.
    where = ".".join(str(step) for step in problem["loc"] if not str(step).startswith("<"))
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
