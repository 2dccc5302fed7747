"""mass-serve classify: the answer for image files, or texts, without a server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from mass_serve.cli.failing import EXIT_FAILED, fail
from mass_serve.cli.given_inputs import GivenInput, GivenInputs, on_one_line
from mass_serve.engine import Aggregation, AnswerKind, Classification, Engine, Question
from mass_serve.inputs.texts import Text
from mass_serve.model_store.errors import StoreError
from mass_serve.server.protocols.results import AlternativeAnswer, ImageResult, TokenResult, result
from mass_serve.server.settings import Settings, SettingsError, load_settings
from mass_serve.server.startup import store_source

Result = tuple[GivenInput, ImageResult | TokenResult]


def classify(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="image files, or text files where the store reads texts; - is a text on standard input",
            metavar="FILE...",
        ),
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="a text; may be repeated")] = None,
    text_pair: Annotated[
        list[str] | None,
        typer.Option(
            help="the second text of a pair whose first is --text; as many as there are --text, or none"
        ),
    ] = None,
    lines: Annotated[
        list[Path] | None,
        typer.Option(
            help="a file with a text on each line, - for standard input, .jsonl for texts and pairs in JSON;"
            " may be repeated",
            metavar="FILE",
        ),
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="store folder or URL; the demo store where not given")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="choose among these tasks only; may be repeated")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="labels per image or text, of tasks that give one")] = 1,
    answer: Annotated[
        AnswerKind, typer.Option(help="`each` for the answer of every task, without routing")
    ] = "best",
    same_task: Annotated[
        bool,
        typer.Option("--same-task", help="all inputs are of one task: choose it by all of them together"),
    ] = False,
    aggregation: Annotated[
        Aggregation, typer.Option(help="how tokens become entities, of tasks that classify tokens")
    ] = "simple",
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
    given = GivenInputs(placed=_asks_of_tokens(engine, question))
    _read(given, engine, settings, files or [], _paired(text or [], text_pair or []), lines or [])
    if question.same_task:
        _check_one_batch(len(given.readable), settings.max_batch_images)
    results = [
        (one, result(answer, top, aggregation))
        for one, answer in _classify_all(engine, question, given.readable, settings.max_batch_images)
    ]
    _print_json(results) if as_json else _print_lines(results)
    if given.failed:
        raise typer.Exit(EXIT_FAILED)


def _check_known(engine: Engine, names: Sequence[str]) -> None:
    for name in names:
        if name not in engine.tasks:
            fail(f"there is no task {name!r}; the store has {', '.join(engine.tasks)}")


def _asks_of_tokens(engine: Engine, question: Question) -> bool:
    try:
        return question.asks_of_tokens(engine.tasks)
    except ValueError as error:
        fail(error)


def _paired(texts: Sequence[str], seconds: Sequence[str]) -> Sequence[Text]:
    if not seconds:
        return texts
    if len(seconds) != len(texts):
        fail(
            f"there are {len(texts)} --text and {len(seconds)} --text-pair; give a --text-pair for every"
            " --text, or for none"
        )
    return list(zip(texts, seconds, strict=True))


def _read(
    given: GivenInputs,
    engine: Engine,
    settings: Settings,
    files: Sequence[Path],
    texts: Sequence[Text],
    lines: Sequence[Path],
) -> None:
    """Reads all inputs as the store takes them."""
    if engine.tokenizer is not None:
        if not (files or texts or lines):
            fail("the store reads texts, and none is given: give --text TEXT, --lines FILE or a text file")
        given.read_texts(texts, files, lines, engine.tokenizer)
        return
    if texts or lines:
        fail("the store reads images, and a text is given: give image files, or a store that reads texts")
    if not files:
        fail("the store reads images, and none is given: give image files")
    given.read_images(files, engine.preprocessing, settings.image_limits)


def _check_one_batch(inputs: int, batch: int) -> None:
    if inputs > batch:
        fail(
            f"with --same-task all inputs go into one batch, which has {batch}, not {inputs};"
            " give fewer, or set MASS_MAX_BATCH_IMAGES"
        )


def _classify_all(
    engine: Engine, question: Question, inputs: Sequence[GivenInput], batch: int
) -> Iterator[tuple[GivenInput, Classification]]:
    """Yields every answer with the input that it is about."""
    queries = question.queries([one.prepared for one in inputs], engine.tasks)
    asked = (one for one in inputs for _ in range(question.answers(1, engine.tasks)))
    for start in range(0, len(queries), batch):
        answers = engine.classify_batch(queries[start : start + batch]).all_answers()
        yield from zip(islice(asked, len(answers)), answers, strict=True)


def _print_json(results: Sequence[Result]) -> None:
    typer.echo(
        json.dumps([{**one.described, **found.model_dump(), **_cut(one)} for one, found in results], indent=2)
    )


def _cut(one: GivenInput) -> dict[str, int]:
    return {} if one.cut is None else {"cut": one.cut}


def _print_lines(results: Sequence[Result]) -> None:
    """Prints `file  task  label score, label score`, readable and easy to cut.

    Of a task that classifies tokens it is `label text score`. Of one of any number of labels it is all that
    reach their thresholds, or `(no label)`. What is unlike the inputs of every task ends in
    `(none of these)`; what is near to another task too, in `(or task: label coefficient)`.
    """
    for given, found in results:
        if isinstance(found, TokenResult):
            labels = [f"{one.label} {on_one_line(one.text)} {one.score:.3f}" for one in found.entities]
        else:
            told = found.top if found.labels is None else found.labels
            labels = [f"{entry.label} {entry.score:.3f}" for entry in told] or ["(no label)"]
        doubts = "" if isinstance(found, TokenResult) else _doubts(found)
        typer.echo(f"{given.name}\t{found.task}\t{', '.join(labels)}{doubts}")


def _told(one: AlternativeAnswer) -> str:
    if one.labels is None:
        return one.label
    return " and ".join(entry.label for entry in one.labels) or "(no label)"


def _doubts(found: ImageResult) -> str:
    """What speaks against an answer, in a column of its own; nothing where nothing does."""
    others = [f"or {one.task}: {_told(one)} {one.coefficient:.3f}" for one in found.alternatives]
    doubts = [*(["none of these"] if found.unrouted else []), *others]
    return f"\t({'; '.join(doubts)})" if doubts else ""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("classify")(classify)
