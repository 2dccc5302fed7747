"""Places, names and values that nobody meant: none of them ends a job, and none is passed over in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mass_serve.engine import Engine
from mass_serve.jobs import InputsError
from mass_serve.jobs.results import Counts
from tests.jobs.made import answers, rows_in, run, write_images, write_lines


@pytest.mark.parametrize("out", ["results", "."])
@pytest.mark.parametrize("inputs", [".", "**"])
def test_results_within_the_inputs_are_none_of_them(
    engine: Engine, tmp_path: Path, inputs: str, out: str
) -> None:
    write_images(tmp_path, 4)
    for _ in range(2):
        assert run([tmp_path / inputs], tmp_path / out, engine).counts == Counts(4, 0)
    (tmp_path / "part-of-mine.jsonl").write_text(json.dumps("00000.png"))
    with pytest.raises(InputsError, match=r"part-of-mine.jsonl differs"):
        run([tmp_path / inputs], tmp_path / out, engine)


def test_links_that_lead_to_no_file_are_rows_and_those_to_folders_are_not_followed(
    engine: Engine, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    [path] = write_images(folder, 1)
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "lost.png").symlink_to(tmp_path / "nowhere")
    (folder / "right.png").symlink_to(path)
    (folder / "self").symlink_to(folder)
    done = run([folder], tmp_path / "out", engine)
    assert (done.counts, done.left_out) == (Counts(4, 2), 1)
    errors = {Path(row["id"]).name: row["error"] for row in rows_in(tmp_path / "out")}
    assert errors["00000.png"] is errors["right.png"] is None
    assert "symbolic links" in errors["loop.png"]
    assert "No such file" in errors["lost.png"]


@pytest.mark.parametrize("name", ["a\0b", "\ud800.png", "x" * 5000, "."])
def test_what_can_be_no_path_is_a_row(engine: Engine, tmp_path: Path, name: str) -> None:
    write_images(tmp_path, 1)
    table = write_lines(tmp_path / "table.jsonl", [name, "00000.png"])
    broken, right = answers([table], tmp_path / "out", engine)
    assert "cannot be read" in broken["error"]
    assert right["error"] is None


@pytest.mark.parametrize("form", ["jsonl", pytest.param("parquet", marks=pytest.mark.optional("parquet"))])
def test_an_id_that_is_no_text_is_shown_as_one(text_engine: Engine, tmp_path: Path, form: str) -> None:
    rows: list[Any] = [{"text": "w5", "key": "half \ud800"}, {"text": "w5", "key": {"a": [1]}}]
    table = write_lines(tmp_path / "table.jsonl", rows)
    run([table], tmp_path / "out", text_engine, id_column="key", form=form)
    if form == "parquet":
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(tmp_path / "out").to_pylist()
    else:
        rows = rows_in(tmp_path / "out")
    assert [row["id"] for row in rows] == ["half \\ud800", "{'a': [1]}"]


def test_a_job_that_could_not_begin_leaves_the_folder_to_any_other(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputsError):
        run([tmp_path / "empty"], tmp_path / "out", engine)
    write_images(tmp_path / "in", 2)
    assert len(answers([tmp_path / "in"], tmp_path / "out", engine, top=2)) == 2


@pytest.mark.parametrize("name", ["reviews.csv", "reviews.json", "reviews"])
def test_a_table_of_a_form_that_is_not_read_is_not_one_long_text(
    text_engine: Engine, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("w5,w6")
    with pytest.raises(InputsError, match=rf"{name} is none of what is read: .txt, .jsonl"):
        run([tmp_path / name], tmp_path / "out", text_engine)


def test_a_text_beyond_the_limit_of_characters_is_not_given_to_the_tokenizer(
    text_engine: Engine, tmp_path: Path
) -> None:
    table = write_lines(
        tmp_path / "t.jsonl", ["w5 " * 70_000, {"text": "w5", "text_pair": "w6" * 100_000}, "w5"]
    )
    errors = [row["error"] for row in answers([table], tmp_path / "out", text_engine)]
    assert "210000 characters, the limit is 200000" in errors[0]
    assert "200002 characters, the limit is 200000" in errors[1]
    assert errors[2] is None


@pytest.mark.optional("parquet")
def test_strings_of_parquet_that_are_none_cost_their_own_rows(text_engine: Engine, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    whole = pyarrow.array([b"w5", b"\xff\xfe", b"w6"], pyarrow.binary())
    texts = pyarrow.StringArray.from_buffers(3, *whole.buffers()[1:])
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "t.parquet")
    errors = [row["error"] for row in answers([tmp_path / "t.parquet"], tmp_path / "out", text_engine)]
    assert errors[0] is errors[2] is None
    assert "no UTF-8 at byte 0" in errors[1]


@pytest.mark.optional("parquet")
def test_a_name_of_a_column_that_is_no_text_breaks_its_file_alone(
    text_engine: Engine, tmp_path: Path
) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    table = pyarrow.table({"text": ["w5"], "odd": ["w6"]})
    pyarrow.parquet.write_table(table, path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"odd", b"o\xffd"))
    right = write_lines(tmp_path / "b.jsonl", ["w5"])
    errors = [row["error"] for row in answers([path, right], tmp_path / "out", text_engine)]
    assert "no Parquet" in errors[0]
    assert errors[1] is None


@pytest.mark.optional("parquet")
def test_a_column_that_is_there_twice_is_told(text_engine: Engine, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    column = pyarrow.array(["w5"])
    table = pyarrow.table([column, column], names=["text", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "twice.parquet")
    with pytest.raises(InputsError, match="has several columns 'text'"):
        run([tmp_path / "twice.parquet"], tmp_path / "twice", text_engine)
