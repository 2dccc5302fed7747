"""The program tells of its commands without importing them, and what it tells is what they say themselves."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

from mass_serve.cli.app import COMMANDS
from tests.cli.test_stores import run

# Runs the program, and says which of the slow libraries it has imported.
PROGRAM = """
import sys
from mass_serve.cli.app import app
try:
    app(prog_name="mass-serve")
finally:
    slow = {"torch", "fastapi", "mass_serve.engine"} & sys.modules.keys()
    print("imported:", *sorted(slow), file=sys.stderr)
"""


def told(*arguments: str, **variables: str) -> str:
    """What the program prints, which must not need any of the slow libraries."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | variables)
    assert done.stderr.splitlines()[-1] == "imported:"
    return done.stdout


def test_help_and_version_are_told_at_once() -> None:
    assert told("--version").startswith("mass-serve ")
    shown = told("--help", COLUMNS="200")
    for name, command in COMMANDS.items():
        assert f" {name} " in shown
        assert command.help in shown


def test_names_of_commands_are_completed_at_once() -> None:
    asked = {"_MASS_SERVE_COMPLETE": "complete_bash", "COMP_WORDS": "mass-serve c", "COMP_CWORD": "1"}
    wanted = [name for name in COMMANDS if name.startswith("c")]
    assert told(**asked).split() == wanted
    assert len(wanted) > 1


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_told_of_a_command_is_what_it_says(name: str) -> None:
    command = COMMANDS[name].load(name)
    assert command.name == name
    assert " ".join(command.help.partition("\n\n")[0].split()) == COMMANDS[name].help


def test_a_command_that_there_is_not_is_refused_with_one_that_there_is() -> None:
    assert "Did you mean 'build'?" in run("buidl", code=2)[1]


def test_garbage_is_looked_for_from_when_a_command_is_imported_on_but_not_in_what_was_imported() -> None:
    gc.disable()  # as the program does
    try:
        COMMANDS["inspect"].load("inspect")
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.enable()
        gc.unfreeze()


def test_a_server_imports_nothing_that_reads_checkpoints_or_writes_stores() -> None:
    code = "import sys, mass_serve.cli.serve; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported, folder = done.stdout.split(), "mass_serve.model_store"
    assert f"{folder}.store" in imported
    assert f"{folder}.writing" not in imported
    assert not [name for name in imported if name.startswith(f"{folder}.readers")]
