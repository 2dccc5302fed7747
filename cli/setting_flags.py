"""Flags made of settings: every field of a settings model is an option of a command, typed once.

command = with_setting_flags(serve, Settings, argument="store")
app.command("serve")(command)  # --batch-delay FLOAT, --tracing / --no-tracing, ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

# What the command line converts itself. All else arrives as text, which the model judges with its own words.
CONVERTED = (bool, int, float, Path)


def with_setting_flags(
    command: Callable[[dict[str, Any]], None], settings: type[BaseModel], argument: str
) -> Callable[..., None]:
    """Makes a command of a function of settings: `argument` is positional, every other field a flag.

    A setting that was not given arrives as None, so that the environment and the file are asked for it.
    """

    def with_flags(**flags: Any) -> None:
        command(flags)

    # The signature is all that typer reads of a command, and the only place where it can be told of flags.
    names = sorted(settings.model_fields, key=lambda name: name != argument)
    parameters = [_parameter(name, settings.model_fields[name], argument) for name in names]
    with_flags.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_flags.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    with_flags.__doc__ = command.__doc__
    return with_flags


def _parameter(name: str, field: FieldInfo, argument: str) -> inspect.Parameter:
    describe = typer.Argument if name == argument else typer.Option
    described = describe(None, help=_help(field))
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=described, annotation=_flag_type(field))


def _flag_type(field: FieldInfo) -> Any:
    """Returns the type of a field's values if the command line converts it, else text; or None: not given."""
    types = set(get_args(field.annotation)) - {type(None)} or {field.annotation}
    known = next((known for known in CONVERTED if types == {known}), str)
    return known | None


def _help(field: FieldInfo) -> str:
    """Returns what the field says of itself, and its default."""
    default = "" if field.default is None or field.default_factory else f" (default: {field.default})"
    return f"{field.description}{default}"
