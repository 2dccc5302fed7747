"""mass-serve classify: the answer for image files, without a server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mass_serve.cli.failing import EXIT_FAILED, fail
from mass_serve.engine import AnswerKind, AnyQuery, Engine, Question
from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.inputs.errors import InputError
from mass_serve.inputs.images import decode_image
from mass_serve.model_store.errors import StoreError
from mass_serve.server.protocols.native.answers import ImageResult, image_result
from mass_serve.server.settings import Settings, SettingsError, load_settings
from mass_serve.server.startup import store_source


def classify(
    images: Annotated[list[Path], typer.Argument(help="image files", metavar="IMAGE...")],
    store: Annotated[
        str | None, typer.Option(help="store folder or URL; the demo store where not given")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="choose among these tasks only; may be repeated")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="labels per image")] = 1,
    answer: Annotated[
        AnswerKind, typer.Option(help="`each` for the answer of every task, without routing")
    ] = "best",
    same_task: Annotated[
        bool,
        typer.Option("--same-task", help="all images are of one task: choose it by all of them together"),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON list for machines")] = False,
) -> None:
    """Classifies image files. Ends with 1 if some could not be read, and still answers the others."""
    try:
        settings = load_settings({"store": store})
        engine = store_source(settings).load()
        preprocessing = engine.preprocessing
        question = Question(tuple(task) if task else None, answer, same_task)
    except (SettingsError, StoreError, ValueError) as error:
        fail(error)
    _check_known(engine, question.tasks or ())
    paths, queries = _queries(images, question, engine, preprocessing, settings)
    results = _classify_all(engine, paths, queries, settings.max_batch_images, top)
    _print_json(results) if as_json else _print_lines(results)
    if not set(images) <= set(paths):
        raise typer.Exit(EXIT_FAILED)


def _check_known(engine: Engine, names: Sequence[str]) -> None:
    for name in names:
        if name not in engine.tasks:
            fail(f"there is no task {name!r}; the store has {', '.join(engine.tasks)}")


def _queries(
    images: Sequence[Path],
    question: Question,
    engine: Engine,
    preprocessing: ImagePreprocessor,
    settings: Settings,
) -> tuple[list[Path], list[AnyQuery]]:
    """What is asked about the images that can be read, and the file that each query is about.

    Prints a line on standard error for each file that cannot be read.
    """
    paths, pixels = [], []
    for path in images:
        try:
            image = decode_image(path.read_bytes(), settings.image_limits)
        except OSError as error:
            typer.echo(f"error: {path}: {error.strerror}", err=True)
        except InputError as error:
            typer.echo(f"error: {path}: {error}", err=True)
        else:
            paths += [path] * question.answers(1, engine.tasks)
            pixels.append(preprocessing.preprocess(image))
    batch = settings.max_batch_images
    if question.same_task and len(pixels) > batch:
        fail(
            f"with --same-task all images go into one batch, which has {batch}, not {len(pixels)};"
            " give fewer, or set MASS_MAX_BATCH_IMAGES"
        )
    return paths, question.queries(pixels, engine.tasks)


def _classify_all(
    engine: Engine, paths: Sequence[Path], queries: Sequence[AnyQuery], batch: int, top: int
) -> list[tuple[Path, ImageResult]]:
    answers = []
    for start in range(0, len(queries), batch):
        answers += engine.classify_batch(queries[start : start + batch]).all_answers()
    return [(path, image_result(answer, top)) for path, answer in zip(paths, answers, strict=True)]


def _print_json(results: Sequence[tuple[Path, ImageResult]]) -> None:
    typer.echo(
        json.dumps([{"image": str(path), **result.model_dump()} for path, result in results], indent=2)
    )


def _print_lines(results: Sequence[tuple[Path, ImageResult]]) -> None:
    """Prints `file  task  label score, label score`, readable and easy to cut."""
    for path, result in results:
        labels = ", ".join(f"{entry.label} {entry.score:.3f}" for entry in result.top)
        typer.echo(f"{path}\t{result.task}\t{labels}")


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("classify")(classify)
