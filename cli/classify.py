"""mass-serve classify: the answer for image files, or texts, without a server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mass_serve.cli.failing import EXIT_FAILED, fail
from mass_serve.cli.given_inputs import GivenInputs, on_one_line, printable
from mass_serve.cli.json_list import JsonList
from mass_serve.cli.questions import asked_of, checked_question
from mass_serve.engine.choices import Aggregation, AnswerKind
from mass_serve.inputs.texts import Text
from mass_serve.jobs.errors import JobError
from mass_serve.jobs.sources.values import IMAGE, TEXT, Columns
from mass_serve.model_store.errors import StoreError
from mass_serve.server.settings import Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from mass_serve.engine import Engine, Question
    from mass_serve.jobs import Answered
    from mass_serve.server.protocols.results import AlternativeAnswer, ImageResult, TokenResult


@dataclass(frozen=True)
class Shown:
    """Holds what of an answer is shown."""

    top: int  # labels
    aggregation: Aggregation


def classify(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help=(
                "image files, or text files where the store reads texts, and folders of them; - is a text on"
                " standard input"
            ),
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
        list[str] | None,
        typer.Option(help="choose among these, or those of @GROUP; may be repeated"),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="labels per image or text, of tasks that give one")] = 1,
    answer: Annotated[
        AnswerKind, typer.Option(help="`each` for the answer of every task, without routing")
    ] = "best",
    same_task: Annotated[
        bool,
        typer.Option("--same-task", help="all inputs are of one task: choose it by all of them together"),
    ] = False,
    group_by_folder: Annotated[
        bool,
        typer.Option("--group-by-folder", help="files of one folder are of one task, found by them together"),
    ] = False,
    aggregation: Annotated[
        Aggregation, typer.Option(help="how tokens become entities, of tasks that classify tokens")
    ] = "simple",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON list for machines")] = False,
) -> None:
    """Classifies images or texts. Ends with 1 if some cannot be read, and still answers the others."""
    from mass_serve.engine import Question
    from mass_serve.jobs import answer_all, in_order
    from mass_serve.server.startup import store_source

    try:
        settings = load_settings({"store": store})
        engine = store_source(settings).load()
        question = Question(tuple(task) if task else None, answer, same_task)
    except (SettingsError, StoreError, ValueError) as error:
        fail(error)
    question = checked_question(engine, question)
    if group_by_folder:
        _check_folders(question, has_texts=bool(text or lines))
    given = _given(engine, files or [], _paired(text or [], text_pair or []), lines or [], group_by_folder)
    asked = asked_of(question, settings, grouped=group_by_folder)
    try:
        with closing(answer_all(engine, asked, given.stream())) as batches:
            answered = _of_one_task(batches, settings) if question.same_task else batches
            complete = _print(given, in_order(answered), Shown(top, aggregation), as_json)
    except JobError as error:
        fail(error, EXIT_FAILED)
    if not complete:
        raise typer.Exit(EXIT_FAILED)


def _check_folders(question: Question, *, has_texts: bool) -> None:
    if question.answer == "each" or question.same_task:
        fail("--group-by-folder chooses one task for each folder: leave --same-task and --answer each out")
    if has_texts:
        fail("--group-by-folder is of files: leave --text and --lines out")


def _paired(texts: Sequence[str], seconds: Sequence[str]) -> Sequence[Text]:
    if not seconds:
        return texts
    if len(seconds) != len(texts):
        fail(
            f"there are {len(texts)} --text and {len(seconds)} --text-pair; give a --text-pair for every"
            " --text, or for none"
        )
    return list(zip(texts, seconds, strict=True))


def _given(
    engine: Engine, files: Sequence[Path], texts: Sequence[Text], lines: Sequence[Path], by_folder: bool
) -> GivenInputs:
    """All inputs, which must be of the kind that the store reads."""
    if engine.tokenizer is not None:
        if not (files or texts or lines):
            fail("the store reads texts, and none is given: give --text TEXT, --lines FILE or a text file")
        return GivenInputs(Columns(reads_texts=True, input=TEXT, by_folder=by_folder), texts, files, lines)
    if texts or lines:
        fail("the store reads images, and a text is given: give image files, or a store that reads texts")
    if not files:
        fail("the store reads images, and none is given: give image files")
    return GivenInputs(Columns(reads_texts=False, input=IMAGE, by_folder=by_folder), files=files)


def _of_one_task(batches: Iterable[Sequence[Answered]], settings: Settings) -> list[list[Answered]]:
    """The one batch that all inputs are in, and those that cannot be read."""
    found = [list(batch) for batch in islice(batches, 2)]
    if sum(any(one.answers for one in batch) for batch in found) > 1:
        fail(
            f"with --same-task all inputs go into one batch, which has {settings.max_batch_images}, and there"
            " are more; give fewer, or set MASS_MAX_BATCH_IMAGES"
        )
    return found


def _print(given: GivenInputs, answered: Iterable[Answered], shown: Shown, as_json: bool) -> bool:
    """Prints what is answered, names what cannot be read, and tells whether that was nothing."""
    from mass_serve.server.protocols.results import result

    complete = True
    written = JsonList() if as_json else None
    for one in answered:
        if one.problem:
            complete = False
            name = "--text" if given.is_option(one.input) else printable(one.input.id)
            typer.echo(f"error: {name}: {one.problem}", err=True)
        for answer in one.answers:
            found = result(answer, shown.top, shown.aggregation)
            if written is None:
                _print_line(printable(one.input.id), found)
            else:
                cut = {} if one.cut is None else {"cut": one.cut}
                written.add({**given.described(one.input), **found.model_dump(), **cut})
    if written is not None:
        written.end()
    return complete


def _print_line(name: str, found: ImageResult | TokenResult) -> None:
    """Prints `file  task  label score, label score`, readable and easy to cut.

    Of a task that classifies tokens it is `label text score`. Of one of any number of labels it is all that
    reach their thresholds, or `(no label)`. What is unlike the inputs of every task ends in
    `(none of these)`; what is of another task than the first one that it was to be of one with, in
    `(unlike the first of its group)`; what is near to another task too, in `(or task: label coefficient)`.
    """
    from mass_serve.server.protocols.results import TokenResult

    if isinstance(found, TokenResult):
        labels = [f"{one.label} {on_one_line(one.text)} {one.score:.3f}" for one in found.entities]
    else:
        told = found.top if found.labels is None else found.labels
        labels = [f"{entry.label} {entry.score:.3f}" for entry in told] or ["(no label)"]
    doubts = "" if isinstance(found, TokenResult) else _doubts(found)
    typer.echo(f"{name}\t{found.task}\t{', '.join(labels)}{doubts}")


def _told(one: AlternativeAnswer) -> str:
    if one.labels is None:
        return one.label
    return " and ".join(entry.label for entry in one.labels) or "(no label)"


def _doubts(found: ImageResult) -> str:
    """What speaks against an answer, in a column of its own; nothing where nothing does."""
    others = [f"or {one.task}: {_told(one)} {one.coefficient:.3f}" for one in found.alternatives]
    unlike = ["unlike the first of its group"] if found.routing.part else []
    doubts = [*(["none of these"] if found.unrouted else []), *unlike, *others]
    return f"\t({'; '.join(doubts)})" if doubts else ""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("classify")(classify)
