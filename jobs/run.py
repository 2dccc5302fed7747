"""A job: many inputs through an engine into a folder of results, killed and gone on with at will.

done = run_job(engine, Job(["photos/"], Path("results"), ...), settings={}, told=print)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from mass_serve.engine import Engine
from mass_serve.jobs.answering import Answered, Asked, Stream, answer_all
from mass_serve.jobs.results import Counts, Form, Result, ResultFiles, ResultsFolder, RowForm, check_form
from mass_serve.jobs.sources import Columns, check_tables, inputs, tree_of


@dataclass(frozen=True)
class Job:
    """Says what is to be read, asked and written."""

    inputs: Sequence[str]  # paths, patterns and URLs
    out: Path
    form: Form
    columns: Columns  # of tables among the inputs
    asked: Asked
    rows: RowForm

    @property
    def settings(self) -> dict[str, object]:
        """Returns what of all this the rows depend on."""
        question = self.asked.question
        return {
            **self._groups,
            "inputs": list(self.inputs),
            "column": self.columns.input,
            "id_column": self.columns.id,
            "tasks": None if question.tasks is None else list(question.tasks),
            "answer": question.answer,
            "form": self.form,
            "columns": list(self.rows.columns),
            "top": self.rows.top,
            "aggregation": self.rows.aggregation,
        }

    @property
    def _groups(self) -> dict[str, object]:
        """What inputs are judged together by: a long group is divided where a batch has no more room."""
        if not self.asked.grouped:
            return {}
        return {
            "group_column": self.columns.group,
            "group_by_folder": self.columns.by_folder,
            "batch_inputs": self.asked.batch_inputs,
            "batch_tokens": self.asked.batch_tokens,
        }


# Answers what a job reads, in any order, and closes what it is given.
RowSource: TypeAlias = Callable[[Job, Stream], Generator[list[Result], None, None]]


@dataclass(frozen=True)
class JobProgress:
    """How far a job is."""

    inputs: int  # that have rows, those of earlier runs among them
    failed: int  # of these: that have none but why
    bytes_read: int  # of all sources
    bytes_total: int


@dataclass(frozen=True)
class Done:
    """Holds what a job came to."""

    counts: Counts
    left_out: int  # files in folders that hold no inputs


def run_job(
    engine: Engine, job: Job, settings: Mapping[str, object], told: Callable[[JobProgress], None]
) -> Done:
    """Runs a job by one engine: see `run_job_by`."""
    return run_job_by(partial(_engine_rows, engine), job, settings, told)


def run_job_by(
    rows: RowSource, job: Job, settings: Mapping[str, object], told: Callable[[JobProgress], None]
) -> Done:
    """Runs a job to its end, or goes on with it.

    `settings` are what else the rows depend on, such as the store's revision. Raises JobError; whatever ends
    a job before its end, what it has answered is kept.
    """
    check_form(job.form)
    trees = [tree_of(argument, without=ResultFiles(job.out)) for argument in job.inputs]
    with ResultsFolder.opened(job.out, job.form, job.rows.columns, {**job.settings, **settings}) as results:
        listing, left_out = results.listing(trees, job.columns.reads_texts)
        check_tables(listing, job.columns)
        if not results.has_ended:
            stream = inputs(listing, job.columns, results.start, frozenset(results.done))
            meter = _Meter(results.counts, listing.num_bytes, told)
            with closing(rows(job, stream)) as found:
                for some in found:
                    results.add(some)
                    meter.add(some)
            results.end()
        return Done(results.counts, left_out)


def _engine_rows(engine: Engine, job: Job, stream: Stream) -> Generator[list[Result], None, None]:
    with closing(answer_all(engine, job.asked, stream)) as batches:
        for batch in batches:
            yield [result_of(one, job.rows) for one in batch]


def result_of(answered: Answered, form: RowForm) -> Result:
    """Returns what is written of an input."""
    one = answered.input
    return Result(one.at, form.rows(answered), bool(answered.problem), one.bytes_read)


class _Meter:
    """Counts what is done, and tells of it."""

    def __init__(self, before: Counts, bytes_total: int, told: Callable[[JobProgress], None]) -> None:
        self._inputs, self._failed, self._read = before.inputs, before.failed, 0
        self._total, self._told = bytes_total, told

    def add(self, results: Sequence[Result]) -> None:
        self._inputs += len(results)
        self._failed += sum(one.failed for one in results)
        self._read = max(self._read, *(one.bytes_read for one in results))
        self._told(JobProgress(self._inputs, self._failed, self._read, self._total))
