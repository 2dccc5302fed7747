"""An option that is typed once is a flag, a variable and a label of `mass_build_info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import BaseModel, Field
from typer.testing import CliRunner

from mass_serve.cli.setting_flags import with_option_flags, with_setting_flags
from mass_serve.engine import EngineOptions
from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.settings import Settings


class MoreOptions(EngineOptions):
    """The engine's options, and one more."""

    colour: Literal["red", "blue"] = Field("red", description="what colour it has")


class MoreSettings(Settings, MoreOptions):
    """The settings of a service whose engine has one more option."""


def invoke(settings: type[BaseModel], *arguments: str) -> tuple[dict[str, Any], str]:
    """What a command with the settings as flags is given, and what it prints."""
    given: dict[str, Any] = {}
    app = typer.Typer()
    app.command()(with_setting_flags(given.update, settings, argument="store"))
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    return given, result.output


def test_a_new_option_is_a_flag() -> None:
    assert invoke(MoreSettings, "--colour", "blue")[0]["colour"] == "blue"
    assert "what colour it has (default: red)" in invoke(MoreSettings, "--help")[1]


def test_a_new_option_is_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASS_COLOUR", "blue")
    nothing_given: dict[str, Any] = {}
    assert MoreSettings(**nothing_given).colour == "blue"


def test_a_new_option_is_a_label() -> None:
    exported = Metrics(MoreOptions(colour="blue").labels).registry.collect()
    (build,) = (family for family in exported if family.name == "mass_build_info")
    assert build.samples[0].labels["colour"] == "blue"


def test_numbers_are_no_labels_and_what_was_left_open_is_empty() -> None:
    labels = EngineOptions(device="cpu", set_cache_bytes=7).labels
    expected = {"device": "cpu", "dtype": "float32", "execution": "low_rank", "mode": ""}
    assert labels == {**expected, "embedding_pooling": "own", "first_pass_dtype": "same"}


class Kinds(BaseModel):
    """A setting of every kind."""

    store: str | None = Field(None, description="where")
    size: Annotated[int, Field(ge=1)] = Field(3, description="how large")
    seconds: float = Field(0.5, description="how long")
    verbose: bool = Field(False, description="how loud")
    file: Path | None = Field(None, description="from where")
    words: Literal["few", "many"] = Field("few", description="how many")


def test_the_command_line_converts_numbers_and_paths_and_the_model_judges_the_rest() -> None:
    flags = ("--size", "0", "--seconds", "2", "--no-verbose", "--file", "x", "--words", "none")
    given, _ = invoke(Kinds, "a store", *flags)
    assert given == {
        "store": "a store",
        "size": 0,
        "seconds": 2.0,
        "verbose": False,
        "file": Path("x"),
        "words": "none",
    }
    assert "Invalid value for '--size'" in invoke(Kinds, "--size", "many")[1]


def test_what_is_not_given_is_none() -> None:
    assert set(invoke(Kinds)[0].values()) == {None}


class Choices(BaseModel):
    """The options of a command that judges no text itself."""

    size: int = Field(default=3, description="how large")
    words: Literal["few", "many"] = Field(default="few", description="how many")
    loud: bool = Field(default=False, description="whether it is heard")
    layer: int | None = Field(default=None, description="which (default: the last)")


def invoke_with_options(*arguments: str) -> tuple[list[Any], str]:
    """What a command with options between its own parameters is given, and what it prints."""
    given: list[Any] = []

    def command(
        out: Annotated[str, typer.Option(help="where")], *, options: Choices, again: bool = False
    ) -> None:
        given.extend((out, options, again))

    app = typer.Typer()
    app.command()(with_option_flags(command, "options", Choices))
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    return given, result.output


def test_options_are_flags_with_their_defaults_beside_the_commands_own() -> None:
    assert invoke_with_options("--out", "x")[0] == ["x", Choices(), False]
    given, _ = invoke_with_options("--out", "x", "--size", "4", "--words", "many", "--loud", "--again")
    assert given == ["x", Choices(size=4, words="many", loud=True), True]


def test_options_say_their_choices_and_defaults() -> None:
    assert "Invalid value for '--words'" in invoke_with_options("--out", "x", "--words", "none")[1]
    lines = invoke_with_options("--help")[1].splitlines()
    positions = [
        next(number for number, line in enumerate(lines) if all(part in line for part in parts))
        for parts in (
            ("--out", "where"),
            ("--size", "how large [default: 3]"),
            ("--words", "few|many", "how many [default: few]"),
            ("--loud", "whether it is heard"),
            ("--layer", "which (default: the last)"),
            ("--again",),
        )
    ]
    assert positions == sorted(positions)
    assert not any("--no-loud" in line for line in lines)
