"""What flips from one revision to another, as commands ask for it, show it and judge it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from mass_serve.cli.failing import fail
from mass_serve.cli.given_inputs import on_one_line, printable
from mass_serve.cli.progress_bars import progress_bars
from mass_serve.server.settings import load_settings

if TYPE_CHECKING:
    from mass_serve.engine import Engine
    from mass_serve.evaluation.comparison import Comparison, Counts, Said

# Of many, the first show what they are like.
MOST_SHOWN = 20
LIMIT_HELP = "a number of inputs, or a share of them such as 0.5% or 0.005"

UnlabelledOption = Annotated[
    bool,
    typer.Option(
        "--unlabelled", help="DATA is any folder of inputs, whose labels nobody knows: each flip counts"
    ),
]


@dataclass(frozen=True)
class Limit:
    """How many inputs may turn from right to wrong: a number, or a share of all."""

    number: float
    is_share: bool

    def at_most(self, inputs: int) -> int:
        """The number for so many inputs."""
        return math.floor(round(self.number * inputs, 6) if self.is_share else self.number)

    def complaint(self, found: Comparison) -> str | None:
        """Says that too many flip; None where they do not."""
        most = self.at_most(found.total["inputs"])
        if found.negative <= most:
            return None
        return f"{found.negative:,} inputs turn from right to wrong, and at most {most:,} may"


def limit_of(text: str) -> Limit:
    """Reads the option; ends the command where it is neither a number nor a share."""
    is_share = text.endswith("%") or "." in text
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        is_one = 0 <= number <= 1 if is_share else number >= 0 and number.is_integer()
    except ValueError:
        is_one = False
    if not is_one:
        fail(f"--max-negative-flips {text!r} must be {LIMIT_HELP}")
    return Limit(number, is_share)


def both_engines(before: str, after: str) -> tuple[Engine, Engine]:
    """Loads two revisions, of which the second shares with the first whatever is the same.

    Raises SettingsError, StoreError and ValueError.
    """
    from mass_serve.server.startup import store_source

    first = store_source(load_settings({"store": before})).load()
    second = store_source(load_settings({"store": after})).load(previous=first)
    if (first.tokenizer is None) != (second.tokenizer is None):
        raise ValueError(
            f"one of {before} and {after} reads images and the other texts: compare like with like"
        )
    return first, second


@dataclass(frozen=True)
class Flips:
    """What flips, and between which revisions."""

    before: str
    after: str
    comparison: Comparison

    @property
    def content(self) -> dict[str, Any]:
        """What JSON says of it."""
        return {
            "before": self.before,
            "after": self.after,
            "negative_flips": self.comparison.negative,
            "total": self.comparison.total,
            "tasks": self.comparison.tasks,
            "flips": self.comparison.changes,
        }


def found_flips(engines: tuple[Engine, Engine], data: Path, unlabelled: bool) -> Flips:
    """Asks both engines about the inputs in a folder. Raises EvaluationDataError and FloatingPointError."""
    from mass_serve.evaluation.comparison import compare, labelled_inputs, unlabelled_inputs

    before, after = engines
    inputs = unlabelled_inputs(data, before) if unlabelled else labelled_inputs(data, before, after)
    with progress_bars() as progress:
        found = compare(before, after, data, inputs, progress)
    return Flips(before.store_revision, after.store_revision, found)


def print_flips(flips: Flips) -> None:
    """Prints the figures by task, and the first inputs that flip."""
    found = flips.comparison
    typer.echo(
        f"from revision {flips.before} to {flips.after}:"
        f" {len(found.changes):,} of {found.total['inputs']:,} inputs flip"
    )
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file or pipe has no width to cut names to
    console.print(_table(found))
    for change in found.changes[:MOST_SHOWN]:
        said = f"{_in_words(change['before'])} -> {_in_words(change['after'])}"
        typer.echo(f"{change['turn'].replace('_', ' ')}: {printable(change['input'])}: {said}")
    more = len(found.changes) - MOST_SHOWN
    if more > 0:
        typer.echo(f"and {more:,} more, which --json shows")


def _table(found: Comparison) -> Table:
    columns = [Column(name.replace("_", " "), justify="right") for name in found.total]
    table = Table(Column("task", no_wrap=True), *columns)
    for name, counts in found.tasks.items():
        table.add_row(name, *_cells(counts))
    if len(found.tasks) > 1:
        table.add_section()
        table.add_row("all", *_cells(found.total))
    return table


def _cells(counts: Counts) -> list[str]:
    return ["-" if number is None else f"{number:,}" for number in counts.values()]


def _in_words(said: Said) -> str:
    labels = " | ".join(map(on_one_line, said["labels"])) or "no label"
    return printable(f"{said['task']} {labels}") + (", unrouted" if said["unrouted"] else "")
