"""mass-serve: the commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from mass_serve import __version__
from mass_serve.cli.lazy_commands import LazyCommand, lazy_group

# In the order in which they are shown.
COMMANDS = {
    "serve": LazyCommand(
        "mass_serve.cli.serve", "Serves a store over HTTP.", slow="mass_serve.server.fronts.serving"
    ),
    "ray": LazyCommand("mass_serve.cli.on_ray", "Serve a store on a Ray cluster (extra `ray`)."),
    "check-config": LazyCommand(
        "mass_serve.cli.check_config",
        "Checks settings and what they name, as `serve` does: keys, certificate, device, extras, store.",
    ),
    "classify": LazyCommand(
        "mass_serve.cli.classify",
        "Classifies images or texts. Ends with 1 if some cannot be read, and still answers the others.",
    ),
    "batch": LazyCommand(
        "mass_serve.cli.batch",
        "Answers any number of images or texts into a folder of results, and goes on where it was stopped.",
    ),
    "eval": LazyCommand(
        "mass_serve.cli.evaluate",
        "Measures accuracy with the task unknown, and the baselines with the task known, on labelled data.",
    ),
    "compare": LazyCommand(
        "mass_serve.cli.compare",
        "Asks two stores about the same inputs, their tasks unknown, and says what flips, task by task.",
    ),
    "export": LazyCommand(
        "mass_serve.cli.export",
        "Writes a model that transformers loads: a task's own, or one that all tasks were merged into.",
    ),
    "calibrate": LazyCommand(
        "mass_serve.cli.calibrate",
        "Fits the search for the task to your images or texts, without labels; writes a new store revision.",
    ),
    "build": LazyCommand(
        "mass_serve.cli.build_store",
        "Builds a store from a pretrained encoder and the models fine-tuned from it.",
    ),
    "head": LazyCommand(
        "mass_serve.cli.head",
        "Makes a classification head of class names: the embeddings of prompts, by the text tower of a CLIP.",
    ),
    "inspect": LazyCommand(
        "mass_serve.cli.inspect_store",
        "Shows what a store holds, without reading its weights.",
        slow=None,
    ),
    "verify": LazyCommand(
        "mass_serve.cli.verify_store",
        "Reads every file of a store. Ends with 1 when one is damaged, missing or holds unusable numbers.",
    ),
    "sign": LazyCommand(
        "mass_serve.cli.sign",
        "Signs a store as it is now, for servers with --trusted-keys; after each change it is signed again.",
    ),
    "task": LazyCommand(
        "mass_serve.cli.task",
        "Add, create, remove, roll back and prune the tasks of a store; their thresholds.",
    ),
    "compact": LazyCommand(
        "mass_serve.cli.compact",
        "Cuts the tasks of a store to its budget; their fine-tuned models are not needed.",
    ),
    "convert": LazyCommand(
        "mass_serve.cli.convert",
        "Keeps the blocks of a store in another format; the fine-tuned models are not needed.",
    ),
    "next": LazyCommand(
        "mass_serve.cli.next_revision",
        "The next revision of a store: every command takes it as STORE#next, and servers do not serve it.",
    ),
    "group": LazyCommand(
        "mass_serve.cli.group",
        "Groups of a store's tasks, which requests name as @GROUP wherever they name tasks.",
    ),
}

app = typer.Typer(
    name="mass-serve",
    cls=lazy_group(COMMANDS),
    help="Serve many classifiers fine-tuned from one encoder behind one address.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mass-serve {__version__}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and stop"),
    ] = False,
) -> None:
    """Serve many classifiers fine-tuned from one encoder behind one address."""


def main() -> None:
    """Runs the command that the arguments name."""
    app()
