"""The program tells of its commands without importing them, and what it tells is what they say themselves."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys

import pytest

from mass_serve.cli.app import COMMANDS
from mass_serve.evaluation.baselines import WHOLE
from mass_serve.evaluation.slow_baselines import SLOW
from mass_serve.merging.methods import METHODS, TALL_MASKS
from mass_serve.model_store.mergeable import MERGEABLE_NAMES
from mass_serve.server.startup import demo_store
from tests.cli.test_stores import run

# Runs the program, and says which of the slow libraries it has imported.
PROGRAM = """
import sys
from mass_serve.cli.app import app
try:
    app(prog_name="mass-serve")
finally:
    slow = {"torch", "fastapi", "mass_serve.engine.engine"} & sys.modules.keys()
    print("imported:", *sorted(slow), file=sys.stderr)
"""

# Asks every command and every command of a group for its help, and says which ended well without torch.
ALL_HELP = """
import json, sys
from typer.testing import CliRunner
from mass_serve.cli.app import COMMANDS, app
def told(*names):
    done = CliRunner().invoke(app, [*names, "--help"])
    shown[" ".join(names)] = done.exit_code, sorted({"torch", "fastapi"} & sys.modules.keys())
shown = {}
for name in COMMANDS:
    told(name)
    for of_group in getattr(COMMANDS[name].load(name), "commands", ()):
        told(name, of_group)
print(json.dumps(shown))
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


def test_what_a_store_holds_is_told_without_what_computes() -> None:
    assert "mode exact" in told("inspect", demo_store())


def test_the_options_of_every_command_are_told_without_what_computes() -> None:
    """In one process, as to start one takes longer than to say them all."""
    done = subprocess.run([sys.executable, "-c", ALL_HELP], capture_output=True, text=True, check=True)
    shown = json.loads(done.stdout)
    assert shown.keys() > {*COMMANDS, "task add", "next promote", "ray serve"}
    assert [name for name, (code, slow) in shown.items() if code or slow] == []


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
        run("inspect", "--help")
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.enable()
        gc.unfreeze()


def test_a_server_imports_nothing_that_reads_checkpoints_or_writes_stores() -> None:
    code = "import sys, mass_serve.cli.serve, mass_serve.server.fronts.serving; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported, folder = done.stdout.split(), "mass_serve.model_store"
    assert f"{folder}.store" in imported
    assert f"{folder}.writing" not in imported
    assert not [name for name in imported if name.startswith(f"{folder}.readers")]


def test_names_that_help_has_without_what_they_name_are_those_of_what_there_is() -> None:
    assert tuple(method.name for method in METHODS if method is not TALL_MASKS) == MERGEABLE_NAMES
    assert tuple(sorted(method.name for method in WHOLE)) == SLOW
