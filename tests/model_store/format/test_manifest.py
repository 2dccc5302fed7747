"""What a manifest may say, and the one clear sentence that everything else gets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mass_serve.model_store.errors import ManifestError
from mass_serve.model_store.format.architecture_v1 import FlatArchitecture
from mass_serve.model_store.format.architecture_v2 import NestedArchitecture
from mass_serve.model_store.format.file_names import MANIFEST_FILE
from mass_serve.model_store.format.manifest import parse_manifest
from mass_serve.model_store.format.origin import Origin
from mass_serve.model_store.store import Store


@pytest.fixture
def content(built: Path) -> dict[str, Any]:
    """A valid manifest as JSON."""
    parsed: dict[str, Any] = json.loads((built / MANIFEST_FILE).read_text())
    return parsed


def test_a_manifest_of_version_1_is_read(content: dict[str, Any]) -> None:
    manifest = parse_manifest(json.dumps(of_version_1(content)).encode())
    assert manifest.format_version == 1
    assert [(task.distance, task.energy_kept) for task in manifest.tasks] == [(None, None)] * len(
        manifest.tasks
    )


def test_a_manifest_survives_the_round_trip(built: Path) -> None:
    raw = (built / MANIFEST_FILE).read_bytes()
    assert parse_manifest(raw).to_bytes() == raw


def test_origins_are_written_in_version_2_and_nowhere_else(content: dict[str, Any]) -> None:
    manifest = parse_manifest(json.dumps(content).encode())
    assert b"origin" not in manifest.to_bytes()
    origin = Origin(name="hf:org/model@main", revision="1" * 40, files={"config.json": "0" * 64})
    task = manifest.tasks[0].model_copy(update={"origins": (origin,)})
    for update in ({"pretrained_origin": origin}, {"tasks": (task, *manifest.tasks[1:])}):
        written = json.loads(manifest.model_copy(update=update).to_bytes())
        assert written["format_version"] == 2
        assert parse_manifest(json.dumps(written).encode()).to_bytes().count(b"hf:org/model@main") == 1


def test_groups_are_written_in_version_2_and_nowhere_else(content: dict[str, Any]) -> None:
    manifest = parse_manifest(json.dumps(content).encode())
    assert manifest.groups == {}
    assert b"groups" not in manifest.to_bytes()
    grouped = manifest.model_copy(update={"groups": {"retail": ("digits", "street")}})
    written = json.loads(grouped.to_bytes())
    assert written["format_version"] == 2
    assert parse_manifest(json.dumps(written).encode()).groups == {"retail": ("digits", "street")}
    version_1 = {**of_version_1(content), "groups": {"retail": ["digits"]}}
    with pytest.raises(ManifestError, match="what format version 2 has come with"):
        parse_manifest(json.dumps(version_1).encode())


def test_a_group_may_have_a_task_that_can_be_brought_back(content: dict[str, Any]) -> None:
    removed = content["tasks"].pop()
    content.update(history={removed["name"]: [removed]}, groups={"retail": ["digits", removed["name"]]})
    assert parse_manifest(json.dumps(content).encode()).groups["retail"] == ("digits", removed["name"])


def rename_file(task: dict[str, Any], to: str) -> None:
    path = next(iter(task["files"]))
    task["files"][to] = task["files"].pop(path)


def entry_named(task: dict[str, Any], name: str) -> dict[str, Any]:
    """The entry of a task under another name."""
    files = {path.replace(f"/{task['name']}/", f"/{name}/"): digest for path, digest in task["files"].items()}
    return {**task, "name": name, "files": files}


def of_version_1(m: dict[str, Any]) -> dict[str, Any]:
    """Takes away what only format version 2 can say."""
    flat = FlatArchitecture.of(NestedArchitecture(**m["backbone"]).architecture())
    m.update(format_version=1, backbone=flat.model_dump())
    del m["ratio_budget"]
    for task in m["tasks"]:
        del task["distance"], task["energy_kept"]
    return m


CASES: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("newer version", lambda m: m.update(format_version=3), "has format version 3.*update mass-serve"),
    (
        "auto",
        lambda m: m["tasks"][0].update(name="auto"),
        "'auto' has a meaning in requests; build the store",
    ),
    ("group of nothing", lambda m: m.update(groups={"retail": []}), "groups.retail: must name at least one"),
    (
        "group with a task twice",
        lambda m: m.update(groups={"retail": ["digits", "digits"]}),
        "groups.retail: must name at least one task, and each once",
    ),
    (
        "group of a task that there is not",
        lambda m: m.update(groups={"retail": ["cars"]}),
        "groups.retail: names 'cars', and the store has no such task",
    ),
    (
        "group in a group",
        lambda m: m.update(groups={"retail": ["digits"], "all": ["@retail"]}),
        r"groups\.all\.0: String should match",
    ),
    (
        "group with a task's name",
        lambda m: m.update(groups={"Digits": ["street"]}),
        "groups.Digits: has the name of the task digits",
    ),
    (
        "groups that differ in case",
        lambda m: m.update(groups={"retail": ["digits"], "Retail": ["street"]}),
        "groups: retail and Retail differ in their case alone",
    ),
    (
        "group with a bad name",
        lambda m: m.update(groups={"@retail": ["digits"]}),
        "groups: the name '@retail' must be 1 to 64",
    ),
    ("groups as a list", lambda m: m.update(groups=["digits"]), "groups: Input should be an object"),
    ("stats", lambda m: m["tasks"][0].update(name="stats"), r"tasks\.0\.name: the task name 'stats'"),
    (
        "capitals in version 1",
        lambda m: of_version_1(m)["history"].update(Cars=[entry_named(m["tasks"][0], "Cars")]),
        "it says what format version 2 has come with",
    ),
    (
        "two spellings",
        lambda m: m["history"].update(Digits=[entry_named(m["tasks"][0], "Digits")]),
        "tasks: digits and Digits differ in their case alone",
    ),
    (
        "origin in version 1",
        lambda m: of_version_1(m).update(pretrained_origin={"name": "hf:a/b", "files": {}}),
        "it says what format version 2 has come with",
    ),
    (
        "origin of a terminal",
        lambda m: m.update(pretrained_origin={"name": "hf:a\x1b[2J", "files": {}}),
        r"pretrained_origin\.name: has control characters",
    ),
    (
        "origin with a path",
        lambda m: m["tasks"][0].update(origins=[{"name": "x", "files": {"../x": "0" * 64}}]),
        r"tasks\.0\.origins\.0\.files.*pattern",
    ),
    ("older version", lambda m: m.update(format_version=0), "format_version: Input should be 1"),
    ("unknown key", lambda m: m.update(surprise=1), "surprise: Extra inputs are not permitted"),
    ("nested unknown key", lambda m: m["router"].update(x=1), r"router\.x: Extra inputs"),
    ("missing key", lambda m: m.pop("backbone"), "backbone: Field required"),
    ("number as text", lambda m: m["backbone"].update(depth="2"), r"backbone\.depth: .*valid integer"),
    ("no task", lambda m: m.update(tasks=[]), "tasks: "),
    ("two tasks of one name", lambda m: m["tasks"].append(m["tasks"][0]), "two tasks have the same name"),
    ("bad name", lambda m: m["tasks"][0].update(name="../x"), r"tasks\.0\.name: .*pattern"),
    ("bad revision", lambda m: m["tasks"][0].update(revision=".."), r"tasks\.0\.revision: .*pattern"),
    ("duplicate labels", lambda m: m["tasks"][0].update(labels=["a", "a"]), "labels must be unique"),
    ("no labels", lambda m: m["tasks"][0].update(labels=[]), "labels must be unique, and at least one"),
    ("parent path", lambda m: rename_file(m["tasks"][0], "tasks/../../x"), r"tasks\.0\.files.*pattern"),
    ("absolute path", lambda m: rename_file(m["tasks"][0], "/etc/passwd"), r"tasks\.0\.files.*pattern"),
    (
        "another task's path",
        lambda m: rename_file(m["tasks"][0], "tasks/street/12345678/head.safetensors"),
        "the files of task digits must be",
    ),
    ("bad hash", lambda m: m["files"].update({"pretrained.safetensors": "00"}), "files.*pattern"),
    ("another file", lambda m: m["files"].update({"x.safetensors": "0" * 64}), "files: must be pretrained"),
    ("merged base without file", lambda m: m.update(merged_base="stored"), "files: there must be one"),
    (
        "calibration of another name",
        lambda m: m.update(calibration={"file": "pretrained.safetensors", "tasks": {}, "images": 1}),
        r"calibration\.file: .*must be calibration-",
    ),
    (
        "rank",
        lambda m: m["tasks"][0].update(rank=3),
        r"digits has rank 3, the compression ratio 0.5 \(1/T\) gives 16",
    ),
    ("ratio", lambda m: m.update(compression_ratio=0.0), "compression_ratio: .*greater than 0"),
    ("negative layer", lambda m: m["router"].update(layer=-1), r"router\.layer: .*greater than or equal"),
    ("layer", lambda m: m["router"].update(layer=2), r"router\.layer: 2 does not exist.* 0\.\.1"),
    (
        "temperature",
        lambda m: m["router"].update(temperature=0),
        r"router\.temperature: .*or equal to 0.000001",
    ),
    ("infinite", lambda m: m["router"].update(temperature=float("inf")), "router.temperature|not valid"),
    ("accuracy", lambda m: m["tasks"][0].update(individual_accuracy=1.1), "individual_accuracy"),
    ("huge depth", lambda m: m["backbone"].update(depth=10**12), r"backbone\.depth: .*less than"),
    (
        "enormous size",
        lambda m: m["preprocessing"].update(size=65536),
        "preprocessing: size: must be at most 4 times the crop, which is 32",
    ),
    ("crop", lambda m: m["preprocessing"].update(crop=31), "crop: must be the backbone's image_size"),
    ("factored", lambda m: m["factored_parameters"].pop(), "must be the matrices of the backbone"),
    ("empty history", lambda m: m["history"].update(digits=[]), "history.digits: must list earlier"),
    (
        "history of another task",
        lambda m: m["history"].update(other=[m["tasks"][0]]),
        "history.other: must list earlier revisions of other",
    ),
]


@pytest.mark.parametrize(
    ("change", "sentence"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_anything_else_is_refused(
    content: dict[str, Any], change: Callable[[dict[str, Any]], object], sentence: str
) -> None:
    change(content)
    with pytest.raises(ManifestError, match=sentence) as caught:
        parse_manifest(json.dumps(content).encode())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"[" * 100_000])
def test_malformed_json_is_refused(store: Path, raw: bytes) -> None:
    (store / MANIFEST_FILE).write_bytes(raw)
    with pytest.raises(ManifestError, match=r"manifest\.json (is not valid JSON|must hold a JSON object)"):
        Store.open(store)


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"there is no store at .*: build one"):
        Store.open(tmp_path / "nowhere")


def test_an_unfinished_build_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "build.json").write_text("{}")
    with pytest.raises(ManifestError, match="has not finished: run the same build again"):
        Store.open(tmp_path)
