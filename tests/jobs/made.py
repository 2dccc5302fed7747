"""What tests of jobs are made of: an engine, sources of pictures, and results as they were written."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mass_serve.engine import Engine, Question
from mass_serve.engine.execution import Execution
from mass_serve.inputs.texts import Text
from mass_serve.jobs import Asked, Columns, Done, Form, Job, RowForm, run_job
from tests import tiny
from tests.pictures import picture

BATCH = 8


def tiny_engine() -> Engine:
    """Of two random tasks, that answers in milliseconds."""
    return Engine(tiny.loaded_store(tasks=2), Execution.LOW_RANK, 1 << 30)


def image(number: int) -> bytes:
    """A picture that is unlike others."""
    return picture(number % 256, number // 256 % 256)


def write_images(folder: Path, count: int, first: int = 0) -> list[Path]:
    """Picture files in a folder, whose order is that of their numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.png" for number in range(first, first + count)]
    for number, path in enumerate(paths, start=first):
        path.write_bytes(image(number))
    return paths


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], mode: str = "w") -> Path:
    """An archive with these files in it."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_lines(path: Path, rows: Iterable[object]) -> Path:
    """A file with a value in JSON on each line."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def job(inputs: Sequence[Path | str], out: Path, engine: Engine, **changes: Any) -> Job:
    """A job with small batches."""
    texts = engine.tokenizer is not None
    question = Question(changes.pop("tasks", None), changes.pop("answer", "best"))
    form: Form = changes.pop("form", "jsonl")
    group, by_folder = changes.pop("group", None), changes.pop("by_folder", False)
    column, id_column = changes.pop("column", "text" if texts else "image"), changes.pop("id_column", None)
    columns = Columns(texts, column, id_column, group, by_folder)
    grouped = by_folder or group is not None
    embeds = changes.pop("embeds", False)
    asked = Asked(question, embeds, BATCH, workers=2, grouped=grouped)
    multi_label = changes.pop("multi_label", False)
    entities = question.asks_of_tokens(engine.tasks)
    rows = RowForm(changes.pop("top", 1), texts, entities, embeds, multi_label, grouped=grouped)
    assert not changes
    return Job([str(one) for one in inputs], out, form, columns, asked, rows)


def run(inputs: Sequence[Path | str], out: Path, engine: Engine, **changes: Any) -> Done:
    """A job run to its end."""
    settings = {"store_revision": engine.store_revision}
    return run_job(engine, job(inputs, out, engine, **changes), settings, lambda _: None)


def rows_in(out: Path) -> list[dict[str, Any]]:
    """The rows of all parts, in their order."""
    return [
        json.loads(line)
        for part in sorted(out.glob("part-*.jsonl"))
        for line in part.read_text().splitlines()
    ]


def answers(inputs: Sequence[Path | str], out: Path, engine: Engine, **changes: Any) -> list[dict[str, Any]]:
    """The rows of a job that is run to its end."""
    run(inputs, out, engine, **changes)
    return rows_in(out)


TEXTS: Sequence[Text] = [f"w{5 + number % 90} " * (1 + number * 7 % 23) for number in range(60)]
