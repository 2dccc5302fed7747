"""`mass-serve classify --group-by-folder` and `batch --group-column`: one task for each group of inputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mass_serve.engine import Engine
from mass_serve.inputs.images import ImageLimits, decode_image
from tests.cli.test_serving import run
from tests.jobs.made import rows_in, write_images, write_lines

LIMITS = ImageLimits(1 << 20)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, list[Path]]:
    """Folders of images."""
    return {name: write_images(tmp_path / name, 4, first) for name, first in (("x", 0), ("y", 40))}


def expected(engine: Engine, paths: list[Path]) -> list[tuple[str, int | None]]:
    images = [decode_image(path.read_bytes(), LIMITS) for path in paths]
    return [(one.task, one.part) for one in engine.classify(images, same_task=True)]


def test_folders_are_answered_by_one_task_each(
    built_of_all: Path, folders: dict[str, list[Path]], tmp_path: Path
) -> None:
    engine = Engine.load(str(built_of_all))
    given = ("classify", tmp_path / "x", tmp_path / "y", "--store", built_of_all, "--group-by-folder")
    code, told, _ = run(*given, "--json")
    assert code == 0
    found = [(one["task"], one["routing"]["part"]) for one in json.loads(told)]
    assert found == [one for paths in folders.values() for one in expected(engine, paths)]
    lines = run(*given)[1].splitlines()
    assert ["unlike the first of its group" in line for line in lines] == [bool(part) for _, part in found]


def test_a_column_says_which_rows_are_of_one_task(
    built_of_all: Path, folders: dict[str, list[Path]], tmp_path: Path
) -> None:
    rows = [
        {"image": str(path.relative_to(tmp_path)), "camera": name}
        for name, paths in folders.items()
        for path in paths
    ]
    table = write_lines(tmp_path / "t.jsonl", rows)
    code, _, errors = run("batch", built_of_all, table, "--out", tmp_path / "out", "--group-column", "camera")
    assert code == 0, errors
    engine = Engine.load(str(built_of_all))
    found = [(row["task"], row["part"]) for row in rows_in(tmp_path / "out")]
    assert found == [one for paths in folders.values() for one in expected(engine, paths)]
    other = run("batch", built_of_all, table, "--out", tmp_path / "out")
    assert other[0] == 1, "the rows of a job are judged in one way"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--group-by-folder", "--answer", "each"), "with --answer each"),
        (("--group-by-folder", "--group-column", "camera"), "give one of them"),
        (("--group-by-folder", "--ray-workers", "2"), "leave it out"),
    ],
)
def test_groups_that_make_no_sense_are_refused(
    built_of_all: Path, folders: dict[str, list[Path]], tmp_path: Path, flags: tuple[str, ...], words: str
) -> None:
    (first, *_) = folders
    code, _, errors = run("batch", built_of_all, tmp_path / first, "--out", tmp_path / "out", *flags)
    assert code == 2
    assert words in errors


@pytest.mark.parametrize("flags", [("--same-task",), ("--answer", "each"), ("--text", "rain")])
def test_folders_are_grouped_by_themselves(
    built_of_all: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    write_images(tmp_path / "x", 2)
    code, _, errors = run("classify", tmp_path / "x", "--store", built_of_all, "--group-by-folder", *flags)
    assert code == 2
    assert "--group-by-folder" in errors
