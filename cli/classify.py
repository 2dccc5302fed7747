"""mass-serve classify: the answer for image files, or texts, without a server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mass_serve.cli.failing import EXIT_FAILED, fail
from mass_serve.cli.given_inputs import GivenInput, GivenInputs
from mass_serve.engine import AnswerKind, Engine, Question, TextQuery
from mass_serve.engine.queries import Query
from mass_serve.model_store.errors import StoreError
from mass_serve.server.protocols.native.answers import ImageResult, image_result
from mass_serve.server.settings import Settings, SettingsError, load_settings
from mass_serve.server.startup import store_source


def classify(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="image files, or text files where the store reads texts; - is a text on standard input",
            metavar="FILE...",
        ),
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="a text; may be repeated")] = None,
    lines: Annotated[
        list[Path] | None,
        typer.Option(
            help="a file with a text on each line, - for standard input; may be repeated", metavar="FILE"
        ),
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="store folder or URL; the demo store where not given")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="choose among these tasks only; may be repeated")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="labels per image or text")] = 1,
    answer: Annotated[
        AnswerKind, typer.Option(help="`each` for the answer of every task, without routing")
    ] = "best",
    same_task: Annotated[
        bool,
        typer.Option("--same-task", help="all inputs are of one task: choose it by all of them together"),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON list for machines")] = False,
) -> None:
    """Classifies image files or texts. Ends with 1 if some cannot be read, and still answers the others."""
    try:
        settings = load_settings({"store": store})
        engine = store_source(settings).load()
        question = Question(tuple(task) if task else None, answer, same_task)
    except (SettingsError, StoreError, ValueError) as error:
        fail(error)
    _check_known(engine, question.tasks or ())
    given = _given(engine, settings, files or [], text or [], lines or [])
    if question.same_task:
        _check_one_batch(len(given.readable), settings.max_batch_images)
    results = _classify_all(engine, question, given.readable, settings.max_batch_images, top)
    _print_json(results) if as_json else _print_lines(results)
    if given.failed:
        raise typer.Exit(EXIT_FAILED)


def _check_known(engine: Engine, names: Sequence[str]) -> None:
    for name in names:
        if name not in engine.tasks:
            fail(f"there is no task {name!r}; the store has {', '.join(engine.tasks)}")


def _given(
    engine: Engine, settings: Settings, files: Sequence[Path], texts: Sequence[str], lines: Sequence[Path]
) -> GivenInputs:
    """Reads all inputs as the store takes them."""
    given = GivenInputs()
    if engine.tokenizer is not None:
        if not (files or texts or lines):
            fail("the store reads texts, and none is given: give --text TEXT, --lines FILE or a text file")
        given.read_texts(texts, files, lines, engine.tokenizer)
        return given
    if texts or lines:
        fail("the store reads images, and a text is given: give image files, or a store that reads texts")
    if not files:
        fail("the store reads images, and none is given: give image files")
    given.read_images(files, engine.preprocessing, settings.image_limits)
    return given


def _check_one_batch(inputs: int, batch: int) -> None:
    if inputs > batch:
        fail(
            f"with --same-task all inputs go into one batch, which has {batch}, not {inputs};"
            " give fewer, or set MASS_MAX_BATCH_IMAGES"
        )


def _classify_all(
    engine: Engine, question: Question, inputs: Sequence[GivenInput], batch: int, top: int
) -> list[tuple[GivenInput, ImageResult]]:
    """Returns every answer with the input that it is about."""
    kind = Query if engine.tokenizer is None else TextQuery
    queries = question.queries([one.tensor for one in inputs], engine.tasks, kind)
    answers = []
    for start in range(0, len(queries), batch):
        answers += engine.classify_batch(queries[start : start + batch]).all_answers()
    asked = [one for one in inputs for _ in range(question.answers(1, engine.tasks))]
    found = [(one, image_result(answer, top)) for one, answer in zip(asked, answers, strict=True)]
    for one, result in found:
        result.cut = one.cut
    return found


def _print_json(results: Sequence[tuple[GivenInput, ImageResult]]) -> None:
    typer.echo(json.dumps([{**one.described, **result.model_dump()} for one, result in results], indent=2))


def _print_lines(results: Sequence[tuple[GivenInput, ImageResult]]) -> None:
    """Prints `file  task  label score, label score`, readable and easy to cut."""
    for one, result in results:
        labels = ", ".join(f"{entry.label} {entry.score:.3f}" for entry in result.top)
        typer.echo(f"{one.name}\t{result.task}\t{labels}")


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("classify")(classify)
