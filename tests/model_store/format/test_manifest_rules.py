"""Every rule of a manifest at both sides of its bound; the sentences are in test_manifest.py."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import mass_serve.server
from mass_serve.model_store.errors import ManifestError
from mass_serve.model_store.format.manifest import (
    CalibrationEntry,
    Manifest,
    RouterSpec,
    TaskEntry,
    parse_manifest,
    task_folder,
)

DEMO = json.loads((Path(mass_serve.server.__file__).parent / "demo_store" / "manifest.json").read_text())
HASH = "0" * 64
CALIBRATION = {"file": "calibration-x.safetensors", "tasks": {}, "images": 1}


@pytest.fixture
def content() -> dict[str, Any]:
    """The demo store's manifest as JSON, which a test may change: two tasks, an encoder of six blocks."""
    small: dict[str, Any] = copy.deepcopy(DEMO)
    small["tasks"] = small["tasks"][:2]
    return small


def accepted(content: dict[str, Any]) -> bool:
    try:
        parse_manifest(json.dumps(content).encode())
    except ManifestError:
        return False
    return True


def parsed(content: dict[str, Any]) -> Manifest:
    return parse_manifest(json.dumps(content).encode())


def revision_of(task: dict[str, Any], revision: str) -> dict[str, Any]:
    """The same task, as it was in another revision."""
    files = {path.replace(task["revision"], revision): digest for path, digest in task["files"].items()}
    return task | {"revision": revision, "files": files}


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("layer", (0, 1, 5), (-1, 6, 7, 0.5, "1", None)),
        ("temperature", (1e-6, 0.5, 1.0, 1e6), (0, -1, 9e-7, 1_000_000.5, "1")),
        ("threshold", (0, 0.0, 0.2, 0.999), (-0.001, 1, 1.0, 1.5)),
        ("top_k", (1, 2, 4096), (0, -1, 4097, 1.5, True)),
        ("unrouted_below", (0, 0.5, 1), (-0.001, 1.001)),
        ("token", ("class", "mean"), ("none", "", 1)),
        ("head_choice", ("max", "mean", "router"), ("min", "")),
        ("first_pass", ("merged_base", "pretrained"), ("", "none")),
        ("mode", ("paper", "a", "a_2", "a" * 64), ("", "A", "2a", "_a", "a-b", "a" * 65, "a\n")),
    ],
)
def test_what_a_router_may_be(
    content: dict[str, Any], name: str, good: tuple[object, ...], bad: tuple[object, ...]
) -> None:
    def takes(value: object) -> bool:
        return accepted(content | {"router": content["router"] | {name: value}})

    assert [value for value in good if not takes(value)] == []
    assert [value for value in bad if takes(value)] == []


def test_the_blocks_that_a_router_may_take_its_features_from_are_told(content: dict[str, Any]) -> None:
    content["router"]["layer"] = 6
    with pytest.raises(
        ManifestError, match=r"router\.layer: 6 does not exist, the encoder's blocks are 0\.\.5$"
    ):
        parsed(content)


def test_what_a_router_is_where_a_store_does_not_say() -> None:
    """Stores of the first version have the layer alone."""
    assert RouterSpec(layer=3).model_dump() == {
        "mode": "paper",
        "layer": 3,
        "token": "class",
        "temperature": 1.0,
        "threshold": 0.2,
        "top_k": 3,
        "head_choice": "max",
        "first_pass": "merged_base",
        "unrouted_below": 0.0,
    }


@pytest.mark.parametrize(
    ("accuracy", "good"), [(None, True), (0, True), (1, True), (-0.01, False), (1.01, False)]
)
def test_an_accuracy_is_a_share_or_unknown(
    content: dict[str, Any], accuracy: float | None, good: bool
) -> None:
    content["tasks"][0]["individual_accuracy"] = accuracy
    assert accepted(content) is good


def test_an_accuracy_is_said_to_be_unknown(content: dict[str, Any]) -> None:
    del content["tasks"][0]["individual_accuracy"]
    assert not accepted(content)


@pytest.mark.parametrize(
    ("labels", "good"),
    [
        (["a"], True),
        (["a", "b"], True),
        ([], False),
        ([""], False),
        (["a", "b", "a"], False),
        (["a", 1], False),
    ],
)
def test_labels_are_texts_of_their_own(content: dict[str, Any], labels: list[object], good: bool) -> None:
    content["tasks"][0]["labels"] = labels
    assert accepted(content) is good


def test_a_task_has_its_two_files_and_no_other(content: dict[str, Any]) -> None:
    files = content["tasks"][0]["files"]
    experts, head = sorted(files)
    for names in (
        (experts,),
        (head,),
        (),
        (experts, head, head + "x"),
        (experts, head.replace("head", "tail")),
    ):
        content["tasks"][0]["files"] = dict.fromkeys(names, HASH)
        assert not accepted(content), names
    content["tasks"][0]["files"] = dict.fromkeys((head, experts), HASH)
    assert accepted(content)


def test_a_task_knows_its_files() -> None:
    task = TaskEntry.model_validate_json(json.dumps(DEMO["tasks"][0]))
    assert task.experts_file == "tasks/digits/bfe1f7f85e20/experts.safetensors"
    assert task.head_file == "tasks/digits/bfe1f7f85e20/head.safetensors"
    assert task_folder("a", "r") == "tasks/a/r"


@pytest.mark.parametrize(
    ("file", "good"),
    [
        ("calibration-x.safetensors", True),
        ("calibration.safetensors", False),
        ("x-calibration-.safetensors", False),
        ("calibration-x/y.safetensors", False),
    ],
)
def test_a_calibration_is_in_a_file_of_its_own(file: str, good: bool) -> None:
    try:
        assert CalibrationEntry.model_validate(CALIBRATION | {"file": file}).file == file
    except ValidationError:
        assert not good
    else:
        assert good


@pytest.mark.parametrize(
    ("images", "good"),
    [(0, False), (1, True), (2, True), (2**53 - 1, True), (2**53, False), (2**54 - 1, False)],
)
def test_a_calibration_counts_its_images(content: dict[str, Any], images: int, good: bool) -> None:
    content["calibration"] = CALIBRATION | {"images": images}
    content["files"][CALIBRATION["file"]] = HASH
    assert accepted(content) is good


def test_the_files_of_a_store_are_those_that_it_has_a_use_for(content: dict[str, Any]) -> None:
    def with_files(*names: str, **more: object) -> bool:
        return accepted(content | {"files": dict.fromkeys(names, HASH)} | more)

    pretrained, calibration, merged = (
        "pretrained.safetensors",
        str(CALIBRATION["file"]),
        "merged_base-x.safetensors",
    )
    assert with_files(pretrained)
    assert with_files(pretrained, calibration, calibration=CALIBRATION)
    assert with_files(pretrained, merged, merged_base="stored")
    assert with_files(pretrained, merged, calibration, merged_base="stored", calibration=CALIBRATION)
    assert not with_files()
    assert not with_files(pretrained, "other.safetensors")
    assert not with_files(pretrained, calibration)
    assert not with_files(pretrained, calibration=CALIBRATION)
    assert not with_files(pretrained, merged)
    assert not with_files(pretrained, merged_base="stored")
    assert not with_files(merged, merged_base="stored")
    assert not with_files(pretrained, merged, "merged_base-y.safetensors", merged_base="stored")
    assert not with_files(pretrained, "merged_base-x/y.safetensors", merged_base="stored")


def test_the_merged_base_is_in_its_file(content: dict[str, Any]) -> None:
    assert parsed(content).merged_base_file is None
    content |= {"merged_base": "stored"}
    content["files"]["merged_base-x.safetensors"] = HASH
    assert parsed(content).merged_base_file == "merged_base-x.safetensors"


def test_tasks_have_names_of_their_own(content: dict[str, Any]) -> None:
    first, second = content["tasks"]
    assert accepted(content | {"tasks": [first]})
    assert not accepted(content | {"tasks": []})
    assert not accepted(content | {"tasks": [first, second, revision_of(first, "00000000")]})


def test_an_image_is_as_large_as_the_encoder_takes_it(content: dict[str, Any]) -> None:
    for crop, size in ((31, 32), (33, 40), (40, 40)):
        content["preprocessing"] |= {"crop": crop, "size": size}
        assert not accepted(content)
    content["preprocessing"] |= {"crop": 32, "size": 40}
    assert accepted(content)


def test_the_factored_parameters_are_the_matrices_in_their_order(content: dict[str, Any]) -> None:
    names = content["factored_parameters"]
    assert not accepted(content | {"factored_parameters": names[:-1]})
    assert not accepted(content | {"factored_parameters": names[::-1]})
    assert not accepted(content | {"patch_embedding": "averaged"})
    assert accepted(content | {"patch_embedding": "averaged", "factored_parameters": names[1:]})


@pytest.mark.parametrize("rank", [15, 17])
def test_the_rank_follows_from_the_ratio(content: dict[str, Any], rank: int) -> None:
    first, second = content["tasks"]
    assert first["rank"] == 16
    assert not accepted(content | {"tasks": [first | {"rank": rank}, second]})
    assert not accepted(content | {"tasks": [first, second | {"rank": rank}]})
    earlier = revision_of(first, "00000000") | {"rank": rank}
    assert not accepted(content | {"history": {"digits": [earlier]}}), "also of an earlier revision"


def test_the_history_lists_earlier_revisions_by_name(content: dict[str, Any]) -> None:
    first, second = content["tasks"]
    earlier, earliest = revision_of(first, "00000001"), revision_of(first, "00000000")
    other = revision_of(second, "00000002")
    assert accepted(content | {"history": {}})
    assert accepted(content | {"history": {"digits": [earliest, earlier], "street": [other]}})
    assert accepted(content | {"tasks": [second], "history": {"digits": [first]}}), "it was removed"
    wrong: list[dict[str, list[dict[str, Any]]]] = [
        {"digits": []},
        {"digits": [other]},
        {"digits": [earlier, other]},
        {"other": [earlier]},
        {"street": [other], "digits": []},
    ]
    for history in wrong:
        assert not accepted(content | {"history": history}), history


def test_a_revision_is_there_once(content: dict[str, Any]) -> None:
    first, second = content["tasks"]
    earlier = revision_of(first, "00000001")
    assert not accepted(content | {"history": {"digits": [first]}})
    assert not accepted(content | {"history": {"digits": [earlier, earlier]}})
    same_revision = revision_of(second, first["revision"])
    assert accepted(content | {"tasks": [first, same_revision]}), "of two tasks it may be the same"


@pytest.mark.parametrize("version", [0, 2, 3, -1, "1", 1.5, None])
def test_one_format_version_is_read(content: dict[str, Any], version: object) -> None:
    assert not accepted(content | {"format_version": version})


@pytest.mark.parametrize(("version", "newer"), [(2, True), (3, True), (0, False), ("2", False)])
def test_a_store_of_a_newer_program_is_told_as_such(
    content: dict[str, Any], version: object, newer: bool
) -> None:
    with pytest.raises(ManifestError) as caught:
        parsed(content | {"format_version": version})
    assert (f"has format version {version}, this program reads up to 1" in str(caught.value)) is newer


def test_a_store_may_leave_its_version_out(content: dict[str, Any]) -> None:
    del content["format_version"]
    assert parsed(content).format_version == 1


def test_what_may_be_left_out(content: dict[str, Any]) -> None:
    for name in ("calibration", "history"):
        content.pop(name, None)
    manifest = parsed(content)
    assert (manifest.calibration, manifest.history) == (None, {})
    for name in list(content):
        if name != "format_version":
            assert not accepted({key: value for key, value in content.items() if key != name}), name


def test_tasks_and_files_are_found(content: dict[str, Any]) -> None:
    earlier = revision_of(content["tasks"][0], "00000001")
    manifest = parsed(content | {"history": {"digits": [earlier]}})
    found = manifest.find_task("street")
    assert found is not None
    assert (found.name, found) == ("street", manifest.tasks[1])
    assert manifest.find_task("greek") is None
    assert [(entry.name, entry.revision) for entry in manifest.all_entries()] == [
        ("digits", content["tasks"][0]["revision"]),
        ("street", content["tasks"][1]["revision"]),
        ("digits", "00000001"),
    ]
    files = content["files"] | content["tasks"][0]["files"] | content["tasks"][1]["files"] | earlier["files"]
    assert manifest.all_files() == files


def calibrated(content: dict[str, Any], first_pass: str, tasks: list[int], **revisions: str) -> Manifest:
    """A store whose calibration holds for its tasks with these numbers, some in another revision."""
    entries = [content["tasks"][number] for number in tasks]
    of = {entry["name"]: entry["revision"] for entry in entries} | revisions
    content["files"][CALIBRATION["file"]] = HASH
    content["calibration"] = CALIBRATION | {"tasks": of}
    content["router"]["first_pass"] = first_pass
    return parsed(content)


def test_a_calibration_gives_tasks_their_places(content: dict[str, Any]) -> None:
    assert parsed(content).calibrated_tasks(["digits"]) is None
    manifest = calibrated(content, "pretrained", [1, 0])
    assert manifest.calibrated_tasks(["digits", "street"]) == (1, 0)
    assert manifest.calibrated_tasks(["street"]) == (0,)
    assert manifest.calibrated_tasks(["digits"]) == (1,)
    assert manifest.calibrated_tasks([]) == ()


def test_a_calibration_holds_for_its_revisions(content: dict[str, Any]) -> None:
    other = calibrated(content, "pretrained", [0, 1], street="00000000")
    assert other.calibrated_tasks(["digits", "street"]) is None
    assert other.calibrated_tasks(["digits"]) == (0,)
    without = calibrated(content, "pretrained", [0])
    assert without.calibrated_tasks(["digits", "street"]) is None


def test_on_the_merged_base_a_calibration_holds_for_all_of_its_tasks_together(
    content: dict[str, Any],
) -> None:
    manifest = calibrated(content, "merged_base", [1, 0])
    assert manifest.calibrated_tasks(["digits", "street"]) == (1, 0)
    assert manifest.calibrated_tasks(["digits"]) is None


def test_it_is_written_as_people_read_it(content: dict[str, Any]) -> None:
    manifest = parsed(content)
    written = manifest.to_bytes()
    assert parse_manifest(written) == manifest
    assert written.startswith(b'{\n  "format_version": 1,\n  "store_revision": "')
    assert written.endswith(b"}\n")
    assert not written.endswith(b"\n\n")


@pytest.mark.parametrize("raw", [b"[]", b'"text"', b"1", b"null"])
def test_a_manifest_is_an_object(raw: bytes) -> None:
    with pytest.raises(ManifestError, match="must hold a JSON object"):
        parse_manifest(raw)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a": NaN}', b'{"a": 1, "a": 1}'])
def test_a_manifest_is_strict_json(raw: bytes) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.json is not valid JSON"):
        parse_manifest(raw)


def test_a_manifest_stays_as_it_was_read(content: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        parsed(content).merged_base = "stored"
