"""How far a job is, on standard error: its rate and what is left, as a bar or, in a log, as lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

if TYPE_CHECKING:
    from mass_serve.jobs import JobProgress


# Between two lines where standard error is no terminal.
LINE_SECONDS = 60.0


@dataclass
class Pace:
    """Tells the rate of a run and what is left, from where the run began."""

    clock: Callable[[], float] = time.monotonic
    first: JobProgress | None = field(default=None, init=False)
    began: float = field(default=0.0, init=False)

    def words(self, now: JobProgress) -> str:
        """How many inputs are done, at what rate, and how long the rest should take."""
        if self.first is None:
            # What comes first was begun before: from here on the time is known.
            self.first, self.began = now, self.clock()
        seconds = self.clock() - self.began
        words = f"{now.inputs:,} inputs, {share(now):.0%}"
        if now.failed:
            words += f", {now.failed:,} unreadable"
        if seconds <= 0 or now.inputs == self.first.inputs:
            return words
        words += f", {(now.inputs - self.first.inputs) / seconds:,.1f} a second"
        read = now.bytes_read - self.first.bytes_read
        if read <= 0:
            return words
        left = seconds * (now.bytes_total - now.bytes_read) / read
        return f"{words}, {timedelta(seconds=round(left))} left"


def share(progress: JobProgress) -> float:
    """How much of the inputs is read, by their bytes: how many inputs an archive has nobody knows before."""
    return progress.bytes_read / progress.bytes_total if progress.bytes_total else 1.0


@contextmanager
def job_progress() -> Iterator[Callable[[JobProgress], None]]:
    """Gives a callback that shows how far a job is."""
    pace = Pace()
    if not sys.stderr.isatty():
        yield _lines(pace)
        return
    columns = (BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task("reading the list of inputs", total=1.0)
        yield lambda now: bars.update(bar, completed=share(now), description=pace.words(now))


def _lines(pace: Pace) -> Callable[[JobProgress], None]:
    last = pace.clock()

    def show(now: JobProgress) -> None:
        nonlocal last
        words = pace.words(now)
        if pace.clock() - last >= LINE_SECONDS:
            last = pace.clock()
            typer.echo(words, err=True)

    return show
