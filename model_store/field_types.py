"""What the pydantic models of a store share: their strictness, and the shapes of names, paths and hashes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

TASK_NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
# Where a protocol needs a name for "whichever task it is".
RESERVED_NAME = "auto"

# A path component starts with a letter or digit, so that `..`, hidden and absolute paths cannot be written.
_COMPONENT = r"[A-Za-z0-9][A-Za-z0-9._-]*"

TaskName = Annotated[str, Field(pattern=TASK_NAME_PATTERN)]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
RelativePath = Annotated[str, Field(pattern=rf"^{_COMPONENT}(/{_COMPONENT})*$", max_length=512)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Field(gt=0, le=1)]


class StrictModel(BaseModel):
    """A frozen model in which unknown keys, NaN, infinities and silent conversions are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def first_problem(error: ValidationError) -> str:
    """The first problem that pydantic found, as `where: what`."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(step) for step in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
