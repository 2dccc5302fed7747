"""Flags made of a model's fields: every field is an option of a command, typed once.

command = with_setting_flags(serve, Settings, argument="store")
app.command("serve")(command)  # --batch-delay FLOAT, --tracing / --no-tracing, ...
command = with_option_flags(build, "options", BuildOptions)
app.command("build")(command)  # what `build` has itself, and --top-k, --block-dtype, ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

# What the command line converts itself. All else arrives as text, which the model judges with its own words.
CONVERTED = (bool, int, float, Path)
FLAG = inspect.Parameter.KEYWORD_ONLY


def with_setting_flags(
    command: Callable[[dict[str, Any]], None], settings: type[BaseModel], argument: str
) -> Callable[..., None]:
    """Makes a command of a function of settings: `argument` is positional, every other field a flag.

    A setting that was not given arrives as None, so that the environment and the file are asked for it.
    """

    def with_flags(**flags: Any) -> None:
        command(flags)

    names = sorted(settings.model_fields, key=lambda name: name != argument)
    parameters = [_setting(name, settings.model_fields[name], argument) for name in names]
    return _described(with_flags, parameters, command.__doc__)


def with_option_flags(
    command: Callable[..., None], parameter: str, options: type[BaseModel]
) -> Callable[..., None]:
    """Makes a command of a function of options: a flag for every field in place of the one `parameter`.

    The flags have the fields' types and defaults, and those of the function's other parameters stay. Which
    flags were given is what pydantic knows as the fields that were set.
    """

    def with_flags(context: typer.Context, **flags: Any) -> None:
        values = {name: flags.pop(name) for name in options.model_fields}
        given = {name: value for name, value in values.items() if _was_given(context, name)}
        command(**{parameter: options(**given)}, **flags)

    parameters = [inspect.Parameter("context", FLAG, annotation=typer.Context)]
    for name, own in inspect.signature(command, eval_str=True).parameters.items():
        flags = [_option(*field) for field in options.model_fields.items()] if name == parameter else [own]
        parameters += [flag.replace(kind=FLAG) for flag in flags]
    return _described(with_flags, parameters, command.__doc__)


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _described(
    command: Callable[..., None], parameters: Sequence[inspect.Parameter], doc: str | None
) -> Callable[..., None]:
    """Gives a command its signature, which is all that typer reads, and the only place for flags."""
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = doc
    return command


def _setting(name: str, field: FieldInfo, argument: str) -> inspect.Parameter:
    describe = typer.Argument if name == argument else typer.Option
    described = describe(None, help=_help(field))
    return inspect.Parameter(name, FLAG, default=described, annotation=_flag_type(field))


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    # What is off has no flag to turn it off.
    spelled = [f"--{name.replace('_', '-')}"] if field.annotation is bool else []
    described = typer.Option(field.default, *spelled, help=field.description)
    return inspect.Parameter(name, FLAG, default=described, annotation=field.annotation)


def _flag_type(field: FieldInfo) -> Any:
    """Returns the type of a field's values if the command line converts it, else text; or None: not given."""
    types = set(get_args(field.annotation)) - {type(None)} or {field.annotation}
    known = next((known for known in CONVERTED if types == {known}), str)
    return known | None


def _help(field: FieldInfo) -> str:
    """Returns what the field says of itself, and its default."""
    if field.default is None or field.default_factory:
        return str(field.description)
    default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
    return f"{field.description} (default: {default})"
