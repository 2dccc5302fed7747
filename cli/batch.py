"""mass-serve batch: folders, archives and tables of images or texts, answered into a folder of results."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from mass_serve.cli.answering_jobs import Answering, Here, OnRay
from mass_serve.cli.arguments import StoreArgument
from mass_serve.cli.failing import EXIT_FAILED, EXIT_USAGE, fail
from mass_serve.cli.job_progress import job_progress
from mass_serve.cli.questions import asked_of, checked_question
from mass_serve.engine.choices import Aggregation, AnswerKind
from mass_serve.jobs.errors import InputsError, JobError
from mass_serve.jobs.results.forms import Form
from mass_serve.jobs.sources.values import IMAGE, TEXT, Columns
from mass_serve.model_store.errors import StoreError
from mass_serve.router.modes import ModeName
from mass_serve.server.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from mass_serve.engine import Question, StoreSource
    from mass_serve.jobs import Done, Job


def batch(
    store: StoreArgument,
    inputs: Annotated[
        list[str],
        typer.Argument(
            help=(
                "folders, files, patterns in quotes, or URLs that fsspec knows: images, text files, tables in"
                " .jsonl or .parquet, .tar archives"
            ),
            metavar="INPUTS...",
        ),
    ],
    out: Annotated[str, typer.Option(help="folder for the results, new or of the same job", metavar="DIR")],
    form: Annotated[
        Form, typer.Option("--format", help="of the files of results; parquet needs the extra `batch`")
    ] = "jsonl",
    column: Annotated[
        str | None,
        typer.Option(help="column of tables with the image (bytes, or a path) or the text [image, text]"),
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(help="column of tables that results name inputs by (default: file and row)")
    ] = None,
    group_column: Annotated[
        str | None,
        typer.Option(
            help="column of tables with a group: rows that follow each other with one group are of one task"
        ),
    ] = None,
    group_by_folder: Annotated[
        bool, typer.Option("--group-by-folder", help="files of one folder are of one task")
    ] = False,
    task: Annotated[
        list[str] | None,
        typer.Option(help="choose among these, or those of @GROUP; may be repeated"),
    ] = None,
    answer: Annotated[
        AnswerKind, typer.Option(help="`each` for a row of every task, without routing")
    ] = "best",
    mode: Annotated[
        ModeName | None, typer.Option(help="of the search for the task (default: as the store says)")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="labels in the column `top`")] = 1,
    embedding: Annotated[
        bool, typer.Option("--embedding", help="the pretrained encoder's embedding as a column, too")
    ] = False,
    aggregation: Annotated[
        Aggregation, typer.Option(help="how tokens become entities, of tasks that classify tokens")
    ] = "simple",
    ray_workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=(
                "answer by so many workers on a Ray cluster (extra `ray`), each with MASS_NUM_THREADS cores,"
                " or one, and a GPU with MASS_DEVICE=cuda"
            ),
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print what was done as JSON")] = False,
) -> None:
    """Answers any number of images or texts into a folder of results, and goes on where it was stopped.

    Inputs that cannot be read have rows that say why, and the command ends with 1 then. Settings other than
    the store come from the environment (MASS_DEVICE, MASS_MAX_BATCH_IMAGES, MASS_DECODE_WORKERS, ...).
    """
    from mass_serve.engine import Question
    from mass_serve.jobs import Job, RowForm
    from mass_serve.server.startup import store_source

    grouped = group_by_folder or group_column is not None
    try:
        if grouped:
            _check_groups(group_by_folder and group_column is not None, answer, ray_workers)
        settings = load_settings({"store": store, "mode": mode})
        source = store_source(settings)
        answering: Answering = (
            Here(settings, source) if ray_workers is None else OnRay(settings, source, ray_workers)
        )
        question = Question(tuple(task) if task else None, answer)
    except (SettingsError, StoreError, ValueError) as error:
        fail(error)
    question = checked_question(answering, question)
    entities, texts = question.asks_of_tokens(answering.tasks), answering.reads_texts
    job = Job(
        inputs=inputs,
        out=_folder(out),
        form=form,
        columns=Columns(
            texts, column or (TEXT if texts else IMAGE), id_column, group_column, by_folder=group_by_folder
        ),
        asked=asked_of(question, answering.settings, embeds=embedding, grouped=grouped),
        rows=RowForm(
            top, texts, entities, embedding, _is_multi_label(answering, question), aggregation, grouped
        ),
    )
    done = _run(answering, job)
    _tell(done, job, source, answering.store_revision, as_json)
    if done.counts.failed:
        raise typer.Exit(EXIT_FAILED)


def _check_groups(both: bool, answer: AnswerKind, ray_workers: int | None) -> None:
    """Raises ValueError where inputs cannot be judged in groups."""
    if both:
        raise ValueError("--group-column and --group-by-folder say different things: give one of them")
    if answer == "each":
        raise ValueError("groups help to choose one task, and with --answer each all answer: leave one out")
    if ray_workers is not None:
        raise ValueError(
            "groups are not answered by --ray-workers, which divide inputs without looking at them:"
            " leave it out"
        )


def _folder(out: str) -> Path:
    if "://" in out:
        fail(f"--out {out} is a URL, and results are written to a folder of this machine: copy it afterwards")
    return Path(out)


def _is_multi_label(answering: Answering, question: Question) -> bool:
    """Whether a task that may answer gives any number of labels."""
    tasks = answering.tasks
    names = tasks if question.tasks is None else question.tasks
    return any(tasks[name].head.is_multi_label for name in names)


def _run(answering: Answering, job: Job) -> Done:
    """Runs a job; one that is stopped has its answers kept, and says how to go on."""
    try:
        with _ended_by_sigterm(), job_progress() as told:
            return answering.run(job, told)
    except StoreError as error:
        fail(error)
    except JobError as error:
        fail(error, EXIT_USAGE if isinstance(error, InputsError) else EXIT_FAILED)
    except KeyboardInterrupt:
        fail(f"stopped; what is done is in {job.out}: give the same command again to go on", EXIT_FAILED)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Lets SIGTERM do what ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(done: Done, job: Job, source: StoreSource, revision: str, as_json: bool) -> None:
    """Says what was done, and of which revision of the store."""
    if as_json:
        told = {"inputs": done.counts.inputs, "failed": done.counts.failed, "left_out": done.left_out}
        typer.echo(json.dumps({**told, "store_revision": revision, "out": str(job.out)}))
    else:
        typer.echo(f"{done.counts.inputs:,} inputs are answered in {job.out}", err=True)
    if done.left_out:
        typer.echo(f"{done.left_out:,} files in folders hold no inputs, and are left out", err=True)
    if done.counts.failed:
        typer.echo(
            f"{done.counts.failed:,} inputs could not be read; the column `error` of their rows says why",
            err=True,
        )
    try:
        now = source.revision()
    except StoreError:  # it is gone, and was there when it was needed
        return
    if now != revision:
        typer.echo(
            f"the store has changed meanwhile: all results are of its revision {revision}, and"
            f" it is at {now} now",
            err=True,
        )


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("batch")(batch)
