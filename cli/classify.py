"""mass-serve classify: the answer for image files, without a server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mass_serve.cli.failing import EXIT_FAILED, fail
from mass_serve.engine import Engine, Query
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
    as_json: Annotated[bool, typer.Option("--json", help="one JSON list for machines")] = False,
) -> None:
    """Classifies image files. Ends with 1 if some could not be read, and still answers the others."""
    try:
        settings = load_settings({"store": store})
        engine = store_source(settings).load()
    except (SettingsError, StoreError, ValueError) as error:
        fail(error)
    queries = _read(images, _known(engine, task), engine, settings)
    results = _classify_all(engine, queries, settings.max_batch_images, top)
    _print_json(results) if as_json else _print_lines(results)
    if len(results) < len(images):
        raise typer.Exit(EXIT_FAILED)


def _known(engine: Engine, names: Sequence[str] | None) -> tuple[str, ...] | None:
    for name in names or ():
        if name not in engine.tasks:
            fail(f"there is no task {name!r}; the store has {', '.join(engine.tasks)}")
    return tuple(names) if names else None


def _read(
    paths: Sequence[Path], candidates: tuple[str, ...] | None, engine: Engine, settings: Settings
) -> list[tuple[Path, Query]]:
    """Reads the images that can be read; prints a line on standard error for each of the others."""
    queries = []
    for path in paths:
        try:
            image = decode_image(path.read_bytes(), settings.image_limits)
        except OSError as error:
            typer.echo(f"error: {path}: {error.strerror}", err=True)
        except InputError as error:
            typer.echo(f"error: {path}: {error}", err=True)
        else:
            queries.append((path, Query(engine.preprocessing.preprocess(image), candidates)))
    return queries


def _classify_all(
    engine: Engine, queries: Sequence[tuple[Path, Query]], batch: int, top: int
) -> list[tuple[Path, ImageResult]]:
    answers = []
    for start in range(0, len(queries), batch):
        answers += engine.classify_batch([query for _, query in queries[start : start + batch]]).all_answers()
    return [(path, image_result(answer, top)) for (path, _), answer in zip(queries, answers, strict=True)]


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
