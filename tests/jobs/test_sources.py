"""Every kind of source gives the same inputs, and what is wrong with one costs that one alone."""

from __future__ import annotations

import base64
import gzip
import io
import os
import struct
import tarfile
from pathlib import Path
from typing import Any

import fsspec
import pytest

from mass_serve.engine import Engine
from mass_serve.jobs import InputsError
from mass_serve.jobs.sources import json_lines, tar_shards
from tests.jobs.made import TEXTS, answers, image, run, write_images, write_lines, write_tar
from tests.pictures import bomb

COUNT = 20


def labels(rows: list[dict[str, Any]]) -> list[tuple[str, float]]:
    return [(row["label"], row["score"]) for row in rows]


@pytest.fixture(scope="module")
def expected(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, float]]:
    """The answers for the first pictures, from files in a folder."""
    folder = tmp_path_factory.mktemp("files")
    write_images(folder / "in", COUNT)
    return labels(answers([folder / "in"], folder / "out", engine))


def test_a_folder_is_read_in_the_order_of_its_paths(engine: Engine, tmp_path: Path) -> None:
    paths = write_images(tmp_path / "in" / "b", 3) + write_images(tmp_path / "in" / "c", 9)
    write_images(tmp_path / "in" / ".hidden", 1)
    (tmp_path / "in" / "notes.md").write_text("no input")
    done = run([tmp_path / "in"], tmp_path / "out", engine)
    assert (done.counts.inputs, done.counts.failed, done.left_out) == (12, 0, 1)
    assert [row["id"] for row in answers([tmp_path / "in"], tmp_path / "out", engine)] == list(
        map(str, paths)
    )


def test_what_two_arguments_name_is_read_once(engine: Engine, tmp_path: Path) -> None:
    paths = write_images(tmp_path / "in", 4)
    rows = answers([paths[2], str(tmp_path / "in" / "*.png"), tmp_path / "in"], tmp_path / "out", engine)
    assert [row["id"] for row in rows] == [str(paths[at]) for at in (2, 0, 1, 3)]


def test_names_may_be_anything(engine: Engine, tmp_path: Path) -> None:
    names = ["-", "--help.png", "a b\n.png", os.fsdecode(b"caf\xe9.png"), "-rf.png"]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(image(number))
    rows = answers([tmp_path, tmp_path / "-"], tmp_path / "out", engine)
    shown = {name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for name in names}
    assert {row["id"].removeprefix(f"{tmp_path}/") for row in rows} == shown
    assert not any(row["error"] for row in rows)


@pytest.mark.parametrize("end", ["tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_an_archive(engine: Engine, expected: list[tuple[str, float]], tmp_path: Path, end: str) -> None:
    """As webdataset writes them: labels lie beside the pictures."""
    members = [
        (f"{number:04d}.{kind}", data)
        for number in range(COUNT)
        for kind, data in (("png", image(number)), ("cls", b"7"), ("json", b"{}"))
    ]
    mode = f"w:{ {'tar': '', 'tgz': 'gz'}.get(end, end.rpartition('.')[2]) }"
    shard = write_tar(tmp_path / f"shard.{end}", members, mode)
    rows = answers([shard], tmp_path / "out", engine)
    assert labels(rows) == expected
    assert rows[3]["id"] == f"{shard}:0003.png"


@pytest.mark.parametrize("end", ["jsonl", "jsonl.gz"])
def test_lines_of_paths_and_bytes(
    engine: Engine, expected: list[tuple[str, float]], tmp_path: Path, end: str
) -> None:
    write_images(tmp_path / "in", COUNT)
    rows: list[object] = [{"image": f"in/{number:05d}.png", "key": number} for number in range(COUNT)]
    rows[1] = {"image": {"b64": base64.b64encode(image(1)).decode()}, "key": 1}
    rows[2] = {"image": str(tmp_path / "in" / "00002.png"), "key": 2}
    table = write_lines(tmp_path / "table.jsonl", rows)
    if end == "jsonl.gz":
        (tmp_path / "table.jsonl.gz").write_bytes(gzip.compress(b"\n" + table.read_bytes()))
    found = answers([tmp_path / f"table.{end}"], tmp_path / "out", engine, id_column="key")
    assert labels(found) == expected
    assert [row["id"] for row in found] == [str(number) for number in range(COUNT)]


@pytest.mark.optional("parquet")
@pytest.mark.parametrize("kind", ["bytes", "paths", "struct"])
def test_a_column_of_parquet(
    engine: Engine, expected: list[tuple[str, float]], tmp_path: Path, kind: str
) -> None:
    import pyarrow
    import pyarrow.parquet

    write_images(tmp_path / "in", COUNT)
    values: dict[str, list[object]] = {
        "bytes": [image(number) for number in range(COUNT)],
        "paths": [f"in/{number:05d}.png" for number in range(COUNT)],
        "struct": [{"bytes": image(number), "path": None} for number in range(COUNT)],
    }
    table = pyarrow.table({"photo": values[kind], "other": range(COUNT)})
    pyarrow.parquet.write_table(table, tmp_path / "table.parquet", row_group_size=7)
    rows = answers([tmp_path / "table.parquet"], tmp_path / "out", engine, column="photo")
    assert labels(rows) == expected
    assert rows[8]["id"] == f"{tmp_path / 'table.parquet'}:8"


@pytest.mark.optional("parquet")
def test_a_column_of_the_wrong_type_is_told_at_once(
    engine: Engine, text_engine: Engine, tmp_path: Path
) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "table.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": [1.5], "text": [b"binary"]}), path)
    with pytest.raises(InputsError, match=r"column 'image' of .* is of type double, and images"):
        run([path], tmp_path / "out", engine)
    with pytest.raises(InputsError, match=r"column 'text' of .* is of type binary, and texts"):
        run([path], tmp_path / "texts", text_engine)
    with pytest.raises(InputsError, match="has no column 'photo', but image, text: name one with --column"):
        run([path], tmp_path / "other", engine, column="photo")


@pytest.mark.optional("parquet")
def test_a_parquet_file_that_is_cut_off(engine: Engine, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": [image(1)]}), path)
    path.write_bytes(path.read_bytes()[:-20])
    write_images(tmp_path / "in", 2)
    rows = answers([path, tmp_path / "in"], tmp_path / "out", engine)
    assert rows[0]["id"] == str(path)
    assert "The file is cut off, or no Parquet" in rows[0]["error"]
    assert [row["error"] for row in rows[1:]] == [None, None]


def test_a_url(engine: Engine, expected: list[tuple[str, float]], tmp_path: Path) -> None:
    bucket = fsspec.filesystem("memory")
    for path in write_images(tmp_path / "in", COUNT):
        bucket.pipe_file(f"/jobs-url/in/{path.name}", path.read_bytes())
    bucket.pipe_file("/jobs-url/table.jsonl", b'{"image": "in/00004.png"}\n')
    rows = answers(["memory://jobs-url/in"], tmp_path / "folder", engine)
    assert labels(rows) == expected
    assert rows[0]["id"] == "memory:///jobs-url/in/00000.png"
    assert labels(answers(["memory://jobs-url/in/*.png"], tmp_path / "pattern", engine)) == expected
    assert labels(answers(["memory://jobs-url/table.jsonl"], tmp_path / "table", engine)) == expected[4:5]
    with pytest.raises(InputsError, match="memory://jobs-url/missing is no file or folder"):
        run(["memory://jobs-url/missing"], tmp_path / "missing", engine)
    with pytest.raises(InputsError, match="nosuch://x cannot be opened"):
        run(["nosuch://x"], tmp_path / "unknown", engine)


def test_texts_of_every_kind(text_engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        (folder / f"{number:04d}.txt").write_text(str(text))
    expected = labels(answers([folder], tmp_path / "files", text_engine))
    table = write_lines(tmp_path / "table.jsonl", [{"text": text} for text in TEXTS])
    assert labels(answers([table], tmp_path / "table", text_engine)) == expected
    plain = write_lines(tmp_path / "plain.jsonl", TEXTS)
    assert labels(answers([plain], tmp_path / "plain", text_engine)) == expected
    shard = write_tar(
        tmp_path / "t.tar", [(f"{at}.txt", str(text).encode()) for at, text in enumerate(TEXTS)]
    )
    assert labels(answers([shard], tmp_path / "shard", text_engine)) == expected


def test_pairs_and_what_is_no_text(text_engine: Engine, tmp_path: Path) -> None:
    rows: list[object] = [{"text": "w5 w6", "text_pair": "w7"}, {"text": 3}, {"other": "w5"}, {"text": ""}, 7]
    table = write_lines(tmp_path / "table.jsonl", rows)
    with table.open("ab") as file:
        file.write(b'not JSON\n"w5 w6"\n\xff\xfe\n')
    errors = [row["error"] for row in answers([table], tmp_path / "out", text_engine)]
    assert errors[0] is None
    assert errors[6] is None
    wanted = ["it is 3", "no 'text'", "empty", "it is 7", "no JSON", "no JSON"]
    assert all(words in error for words, error in zip(wanted, [*errors[1:6], errors[7]], strict=True))


def test_what_cannot_be_read_is_a_row_that_says_why(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_images(folder, 9)
    (folder / "00002.png").write_bytes(image(2)[:30])
    (folder / "00003.png").write_bytes(b"")
    (folder / "00004.png").write_bytes(bomb())
    (folder / "00005.png").write_bytes(b"<html>")
    (folder / "00006.png").unlink()
    (folder / "00006.png").symlink_to(folder / "nowhere")
    (folder / "00007.png").unlink()
    os.mkfifo(folder / "00007.png")
    rows = answers([folder, folder / "00006.png", folder / "00007.png"], tmp_path / "out", engine)
    errors = {Path(row["id"]).name: row["error"] for row in rows}
    assert [name for name, error in errors.items() if error is None] == [
        "00000.png",
        "00001.png",
        "00008.png",
    ]
    assert "truncated" in errors["00002.png"]
    assert "empty" in errors["00003.png"]
    assert "pixels" in errors["00004.png"]
    assert "not an image" in errors["00005.png"]
    assert "No such file" in errors["00006.png"]
    assert "FIFO" in errors["00007.png"]
    assert all(row["label"] is None for row in rows if row["error"])


@pytest.mark.parametrize("cut", ["in a member", "in a header", "between members"])
def test_a_shard_that_is_cut_off(engine: Engine, tmp_path: Path, cut: str) -> None:
    """All that is whole in it is answered, the rest is one row, and the next source is read."""
    shard = write_tar(tmp_path / "a.tar", [(f"{number}.png", image(number)) for number in range(6)])
    with tarfile.open(shard) as archive:
        fifth = archive.getmembers()[4]
    at = {"in a member": fifth.offset_data + 20, "in a header": fifth.offset + 100}.get(cut, fifth.offset)
    shard.write_bytes(shard.read_bytes()[:at])
    write_images(tmp_path / "in", 2)
    rows = answers([shard, tmp_path / "in"], tmp_path / "out", engine)
    assert [bool(row["error"]) for row in rows] == [False] * 4 + [True] + [False] * 2
    assert "The archive is cut off or broken behind 4 inputs" in rows[4]["error"]
    assert rows[4]["id"] == str(shard)


def test_a_compressed_shard_that_is_cut_off(engine: Engine, tmp_path: Path) -> None:
    members = [(f"{number}.png", os.urandom(5000)) for number in range(4)]
    shard = write_tar(tmp_path / "a.tar.gz", members, "w:gz")
    shard.write_bytes(shard.read_bytes()[:9000])
    rows = answers([shard], tmp_path / "out", engine)
    assert "cut off or broken" in rows[-1]["error"]


def test_an_archive_makes_no_files_and_no_memory(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that lead out of it are names, and a member that is too large is not read."""
    monkeypatch.setattr(tar_shards, "MOST_BYTES", 2000)
    shard = tmp_path / "a.tar"
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(shard, "w") as archive:
        archive.addfile(link)
        for name, data in (("../../up.png", image(1)), ("/etc/x.png", image(2)), ("big.png", bytes(3000))):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    before = set(tmp_path.parent.rglob("*"))
    rows = answers([shard], tmp_path / "out", engine)
    made = {path for path in set(tmp_path.parent.rglob("*")) - before if tmp_path / "out" not in path.parents}
    assert made == {tmp_path / "out"}
    assert [row["id"] for row in rows] == [
        f"{shard}:{name}" for name in ("../../up.png", "/etc/x.png", "big.png")
    ]
    assert [bool(row["error"]) for row in rows] == [False, False, True]
    assert "MiB, which is the limit" in rows[2]["error"]


def _header(kind: bytes, size: int) -> bytes:
    member = tarfile.TarInfo("long")
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(_header(tarfile.XHDTYPE, 1 << 33), id="a header of gigabytes"),
        pytest.param(_header(tarfile.GNUTYPE_LONGNAME, 1 << 33), id="a name of gigabytes"),
        pytest.param(_header(tarfile.GNUTYPE_LONGNAME, 0) * 5000, id="names of names"),
        pytest.param(_header(tarfile.REGTYPE, 1 << 60), id="a member beyond the end"),
        pytest.param(_header(tarfile.REGTYPE, 0)[:124] + b"\xff" * 12 + bytes(376), id="a wrong checksum"),
    ],
)
def test_a_hostile_archive_is_a_row(engine: Engine, tmp_path: Path, header: bytes) -> None:
    with (tmp_path / "a.tar").open("wb") as file, gzip.open(tmp_path / "b.tar.gz", "wb") as compressed:
        for target in (file, compressed):
            write_to: Any = target
            write_to.write(tarfile_member("0.png", image(0)) + header + bytes(2048))
    rows = answers([tmp_path / "a.tar", tmp_path / "b.tar.gz"], tmp_path / "out", engine)
    assert [bool(row["error"]) for row in rows] == [False, True, False, True]


def tarfile_member(name: str, data: bytes) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    return member.tobuf() + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def test_members_with_negative_sizes_end(engine: Engine, tmp_path: Path) -> None:
    """Their sizes lead back to where they are: a reader that believes them reads for ever."""
    header = bytearray(tarfile_member("0.png", b""))
    header[124:136] = b"\xff" * 4 + struct.pack(">q", -512)
    checksum = 256 + sum(header[:148]) + sum(header[156:512])
    header[148:156] = b"%06o\0 " % checksum
    (tmp_path / "a.tar").write_bytes(tarfile_member("1.png", image(1)) + bytes(header) + bytes(1024))
    rows = answers([tmp_path / "a.tar"], tmp_path / "out", engine)
    assert rows[0]["error"] is None
    assert rows[-1]["error"]


def test_a_line_without_end(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "MOST_LINE_BYTES", 1000)
    write_images(tmp_path / "in", 1)
    with gzip.open(tmp_path / "a.jsonl.gz", "wb") as file:
        file.write(b'"' + bytes(5_000_000) + b'"\n"in/00000.png"\n')
    rows = answers([tmp_path / "a.jsonl.gz"], tmp_path / "out", engine)
    assert "The line has more than" in rows[0]["error"]
    assert rows[1]["error"] is None


def test_a_folder_that_cannot_be_listed_is_not_passed_over(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "in" / "a", 1)
    listed = os.scandir

    def refused(place: str) -> Any:
        if place.endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return listed(place)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(InputsError, match="in/a cannot be listed: Permission denied"):
        run([tmp_path / "in"], tmp_path / "out", engine)


def test_nothing_to_read_is_told(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(InputsError, match="nowhere is no file or folder and matches none"):
        run([tmp_path / "nowhere"], tmp_path / "a", engine)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputsError, match=r"there is nothing to read there: image files .* are expected"):
        run([tmp_path / "empty"], tmp_path / "b", engine)
