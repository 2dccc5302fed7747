"""Progress bars for long work on standard error, so that standard output stays for results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from mass_serve.model_store.progress import Progress


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Gives a callback that shows every stage as a bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        bar_of_stage = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in bar_of_stage:
                bar_of_stage[stage] = bars.add_task(stage, total=total)
            bars.update(bar_of_stage[stage], completed=done, total=total)

        yield show
