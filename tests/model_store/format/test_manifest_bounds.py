"""Every bound and rule of a manifest, from both sides: the last value that is read, the first that is not.

The manifests are made here, of a tiny encoder, and no file is needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from mass_serve.model_store.errors import ManifestError
from mass_serve.model_store.format import entries, file_names, manifest
from mass_serve.model_store.format.architecture_v1 import FlatArchitecture
from mass_serve.model_store.format.entries import RouterSpec
from mass_serve.model_store.format.factoring import factored_shapes
from mass_serve.model_store.format.file_names import task_folder
from mass_serve.model_store.format.manifest import Manifest, parse_manifest

Content = dict[str, Any]
Change = Callable[[Content], object]
HASH, OTHER_HASH = "0123456789abcdef" * 4, "f" * 64
BACKBONE: Content = {
    "family": "clip_vision",
    "image_size": 4,
    "patch_size": 2,
    "width": 8,
    "depth": 3,
    "num_attention_heads": 2,
    "mlp_width": 16,
    "activation": "gelu",
    "layer_norm_eps": 1e-5,
    "projection_dim": 5,
}


def a_task(name: str = "cats", revision: str = "12345678") -> Content:
    """One revision of a task."""
    folder = f"tasks/{name}/{revision}"
    return {
        "name": name,
        "revision": revision,
        "labels": ["tabby", "siamese"],
        "head": {"kind": "cosine"},
        "rank": 4,
        "individual_accuracy": 0.5,
        "files": {f"{folder}/experts.safetensors": HASH, f"{folder}/head.safetensors": OTHER_HASH},
    }


def content() -> Content:
    """A manifest of two tasks that says only what it must."""
    return {
        "format_version": 1,
        "store_revision": "00000001",
        "backbone": dict(BACKBONE),
        "preprocessing": {
            "size": 4,
            "crop": 4,
            "interpolation": "bicubic",
            "mean": [0, 0.5, 1],
            "std": [1, 1, 1],
        },
        "router": {"layer": 1},
        "compression_ratio": 0.5,
        "patch_embedding": "factored",
        "block_dtype": "bfloat16",
        "factored_parameters": list(factored_shapes(FlatArchitecture(**BACKBONE).architecture(), "factored")),
        "merged_base": "rebuilt",
        "files": {"pretrained.safetensors": HASH},
        "tasks": [a_task(), a_task("dogs", "abcdef12")],
    }


def parse(change: Change = lambda _: None) -> Manifest:
    """The manifest after a change."""
    changed = content()
    change(changed)
    return parse_manifest(json.dumps(changed).encode())


def setting(*path: str | int, value: object) -> Change:
    """Sets one value, at any depth."""

    def change(of: Any) -> None:
        for step in path[:-1]:
            of = of[step]
        of[path[-1]] = value

    return change


def test_what_is_left_out() -> None:
    manifest = parse()
    assert manifest.router == RouterSpec(
        mode="paper",
        layer=1,
        token="class",
        temperature=1.0,
        threshold=0.2,
        top_k=3,
        head_choice="max",
        first_pass="merged_base",
        unrouted_below=0.0,
    )
    assert (manifest.calibration, manifest.history, manifest.format_version) == (None, {}, 1)
    assert parse(lambda m: m.pop("format_version")).format_version == 1


def test_the_names_of_the_format() -> None:
    """Other programs, and stores on disk, have them too."""
    assert manifest.FORMAT_VERSION == 2
    assert file_names.MANIFEST_FILE == "manifest.json"
    assert file_names.SIGNATURE_FILE == "manifest.json.sig"
    assert file_names.PRETRAINED_FILE == "pretrained.safetensors"
    assert file_names.MERGED_BASE_PREFIX == "merged_base-"
    assert file_names.CALIBRATION_PREFIX == "calibration-"
    assert entries.FIRST_MODE == "paper"
    assert task_folder("cats", "12345678") == "tasks/cats/12345678"


def test_bytes_that_are_written() -> None:
    manifest = parse()
    written = manifest.to_bytes()
    assert written.endswith(b"}\n")
    assert written.startswith(
        b'{\n  "format_version": 1,\n  "store_revision": "00000001",\n  "backbone": {\n'
    )
    assert list(json.loads(written)) == [
        *("format_version", "store_revision", "backbone", "preprocessing", "router", "compression_ratio"),
        *("patch_embedding", "block_dtype", "factored_parameters", "merged_base", "files", "tasks"),
        *("calibration", "history"),
    ]
    assert parse_manifest(written) == manifest


# Where it is, the least and the most that is read, and what is just outside.
BOUNDS: list[tuple[tuple[str | int, ...], list[object], list[object]]] = [
    (("router", "layer"), [0, 2], [-1, 3, 4, 0.0, 0.5, "0", None, True]),
    (("router", "temperature"), [1e-6, 1e6, 1], [9e-7, 1.1e6, 0, -1, "1"]),
    (("router", "threshold"), [0, 0.2, 0.999], [-1e-9, 1, 1.5]),
    (("router", "top_k"), [1, 4096], [0, -1, 4097, 1.0, 1.5, True]),
    (("router", "unrouted_below"), [0, 1], [-1e-9, 1.0001]),
    (
        ("router", "mode"),
        ["a", "paper", "a_1", "a" * 64],
        ["", "A", "1a", "_a", "a-b", "a" * 65, "a\n", None],
    ),
    (("router", "token"), ["class", "mean"], ["", "both", 1]),
    (("router", "head_choice"), ["max", "mean", "router"], ["", "min"]),
    (("router", "first_pass"), ["merged_base", "pretrained"], ["", "stored"]),
    (("compression_ratio",), [0.5, 0.5001], [0, -0.5, 1.0001]),
    (("ratio_budget",), [], [1, 0, -1, 1e7, "1"]),
    (("block_dtype",), ["bfloat16", "float16", "float32"], ["float64", "int8"]),
    (("block_format",), [], ["int2", "", 4, "int4"]),  # the last for version 2 alone
    (("tasks", 0, "block_format"), [], ["int2", "", 4, "int4"]),
    (("store_revision",), ["0" * 8, "f" * 64], ["0" * 7, "f" * 65, "ABCDEF12", "0000000g", ""]),
    (("format_version",), [1], [0, -1, 2, 3, 1.5, "1", None]),
    (("tasks", 0, "individual_accuracy"), [0, 1, None], [-1e-9, 1.0001, "1"]),
    (
        ("tasks", 0, "labels"),
        [["x"], ["x", "X"], ["é x"]],
        [[], [""], ["x", "y", "x"], ["x", ""], ["x", 1], "x", ["x\n"], ["\x7f"]],
    ),
    (("tasks", 0, "head", "kind"), ["cosine", "linear"], ["", "mlp"]),
    (("tasks", 0, "rank"), [4], [0, 3, 5, 65_537]),
    (("tasks", 1, "rank"), [4], [3, 5]),
    (("tasks", 0, "surprise"), [], [1]),
    (("tasks",), [[a_task()]], [[], [a_task(), a_task()], [a_task(), a_task("cats", "0" * 8)], {}]),
    (("files", "pretrained.safetensors"), [OTHER_HASH], ["f" * 63, "f" * 65, "F" * 64, "", None]),
    (("backbone", "layer_norm_eps"), [1e-12, 0.999], [9e-13, 0, 1, -1]),
    (("backbone", "depth"), [], [0, 1025, 2]),
    (("backbone", "patch_size"), [], [0, 5, 65_537]),
    (("backbone", "projection_dim"), [1, 65_536], [0, 65_537, "5"]),
    (("backbone", "width"), [], [0, 9, 65_537]),
    (("backbone", "activation"), ["gelu", "quick_gelu"], ["relu"]),
    (("backbone", "family"), ["clip_vision"], ["siglip"]),
    (("preprocessing", "size"), [1, 16], [0, 17]),
    (("preprocessing", "crop"), [4], [3, 5]),
    (("preprocessing", "interpolation"), ["nearest", "hamming"], ["cubic"]),
    (("preprocessing", "mean", 0), [-1e6, 1e6], [-1.1e6, 1.1e6, "0"]),
    (("preprocessing", "std", 2), [1e-6, 1e6], [9e-7, 1.1e6, 0, -1]),
    (("preprocessing", "mean"), [[0, 0, 0]], [[0, 0], [0, 0, 0, 0]]),
]
READ = [(path, value) for path, values, _ in BOUNDS for value in values]
REFUSED = [(path, value) for path, _, values in BOUNDS for value in values]


@pytest.mark.parametrize(("path", "value"), READ, ids=str)
def test_the_last_value_that_is_read(path: tuple[str | int, ...], value: object) -> None:
    parsed: Any = json.loads(parse(setting(*path, value=value)).to_bytes())
    for step in path:
        parsed = parsed[step]
    assert path == ("tasks",) or parsed == value


@pytest.mark.parametrize(("path", "value"), REFUSED, ids=str)
def test_the_first_value_that_is_refused(path: tuple[str | int, ...], value: object) -> None:
    with pytest.raises(ManifestError) as caught:
        parse(setting(*path, value=value))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("key", [key for key in content() if key != "format_version"])
def test_what_may_not_be_left_out(key: str) -> None:
    with pytest.raises(ManifestError, match=f"manifest.json is not valid: {key}: Field required"):
        parse(lambda m: m.pop(key))


def test_an_accuracy_is_said_to_be_unknown() -> None:
    with pytest.raises(ManifestError, match=r"tasks\.0\.individual_accuracy: Field required"):
        parse(lambda m: m["tasks"][0].pop("individual_accuracy"))


def test_the_blocks_that_a_router_may_take_its_features_from_are_told() -> None:
    with pytest.raises(
        ManifestError, match=r"router\.layer: 3 does not exist, the encoder's blocks are 0\.\.2$"
    ):
        parse(setting("router", "layer", value=3))


def test_the_ratio_may_be_one() -> None:
    def whole(m: Content) -> None:
        m["compression_ratio"] = 1
        for task in m["tasks"]:
            task["rank"] = 8

    assert parse(whole).compression_ratio == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        *((text, "must hold a JSON object") for text in (b"[]", b'"text"', b"1", b"null")),
        *((text, "is not valid JSON") for text in (b"", b"{", b"\xff", b"[" * 100_000, b'{"a": NaN}')),
        (
            b'{"format_version": 3}',
            "has format version 3, this program reads up to 2: update mass-serve to open",
        ),
        (b'{"format_version": 1}', "is not valid: store_revision: Field required"),
        (b'{"format_version": 0}', "is not valid: format_version: Input should be 1"),
        (b'{"format_version": "2"}', "is not valid: format_version: Input should be 1"),
        (b'{"a": 1, "a": 2}', "is not valid JSON: the key 'a' is there twice"),
    ],
)
def test_other_texts(text: bytes, sentence: str) -> None:
    with pytest.raises(ManifestError, match=sentence):
        parse_manifest(text)


def test_the_patch_embedding_decides_what_is_factored() -> None:
    averaged = content()["factored_parameters"][1:]
    with pytest.raises(
        ManifestError, match="factored_parameters: must be the matrices of the backbone, in forw"
    ):
        parse(setting("patch_embedding", value="averaged"))

    def average(m: Content) -> None:
        m.update(patch_embedding="averaged", factored_parameters=averaged)

    assert parse(average).factored_parameters == tuple(averaged)
    with pytest.raises(ManifestError, match="factored_parameters"):
        parse(lambda m: m["factored_parameters"].reverse())
    with pytest.raises(ManifestError, match="factored_parameters"):
        parse(lambda m: m["factored_parameters"].pop())


class TestFiles:
    @pytest.mark.parametrize(
        "files",
        [
            {},
            {"experts.safetensors": HASH},
            {"tasks/cats/12345678/head.safetensors": HASH},
            {
                "tasks/cats/12345678/head.safetensors": HASH,
                "tasks/cats/12345678/experts.safetensors": HASH,
                "tasks/cats/12345678/more.safetensors": HASH,
            },
            {
                "tasks/cats/12345678/tail.safetensors": HASH,
                "tasks/cats/12345678/experts.safetensors": HASH,
            },
        ],
    )
    def test_a_task_has_its_two(self, files: Content) -> None:
        with pytest.raises(ManifestError, match="the files of task cats must be tasks/cats/12345678/experts"):
            parse(setting("tasks", 0, "files", value=files))

    def test_their_paths(self) -> None:
        task = parse().tasks[0]
        assert task.experts_file == "tasks/cats/12345678/experts.safetensors"
        assert task.head_file == "tasks/cats/12345678/head.safetensors"

    def test_a_merged_base_is_there_where_it_is_stored(self) -> None:
        path = "merged_base-12345678.safetensors"

        def stored(*paths: str) -> Change:
            return lambda m: m.update(merged_base="stored", files=m["files"] | dict.fromkeys(paths, HASH))

        assert parse(stored(path)).merged_base_file == path
        assert parse().merged_base_file is None
        for paths in ((), (path, "merged_base-2.safetensors"), ("merged_base-x/y.safetensors",)):
            with pytest.raises(
                ManifestError, match=r"files: there must be one merged_base-\*.safetensors where"
            ):
                parse(stored(*paths))
        with pytest.raises(ManifestError, match="and only there"):
            parse(setting("files", path, value=HASH))
        with pytest.raises(ManifestError, match="files: must be"):
            parse(lambda m: (stored(path)(m), m["files"].pop("pretrained.safetensors")))

    def test_a_merged_base_and_a_calibration_may_be_there_together(self) -> None:
        def both(m: Content) -> None:
            calibrated()(m)
            m.update(merged_base="stored", files=m["files"] | {"merged_base-1.safetensors": HASH})

        assert parse(both).files.keys() == {"pretrained.safetensors", "merged_base-1.safetensors", FILE}

    def test_nothing_else_is(self) -> None:
        with pytest.raises(ManifestError, match=r"files: must be pretrained\.safetensors"):
            parse(setting("files", "more.safetensors", value=HASH))
        with pytest.raises(ManifestError, match=r"files: must be pretrained\.safetensors"):
            parse(setting("files", value={}))

    def test_all_of_them(self) -> None:
        earlier = a_task("cats", "00000000")
        manifest = parse(setting("history", value={"cats": [earlier]}))
        assert list(manifest.all_files()) == [
            "pretrained.safetensors",
            *a_task()["files"],
            *a_task("dogs", "abcdef12")["files"],
            *earlier["files"],
        ]
        assert manifest.all_files()["tasks/cats/00000000/head.safetensors"] == OTHER_HASH
        assert [entry.revision for entry in manifest.all_entries()] == ["12345678", "abcdef12", "00000000"]


class TestHistory:
    def test_none(self) -> None:
        assert parse(setting("history", value={})).history == {}

    def test_earlier_revisions_and_removed_tasks(self) -> None:
        history = {"cats": [a_task("cats", "00000000"), a_task("cats", "00000001")], "gone": [a_task("gone")]}
        assert {name: len(of) for name, of in parse(setting("history", value=history)).history.items()} == {
            "cats": 2,
            "gone": 1,
        }

    @pytest.mark.parametrize(
        ("history", "sentence"),
        [
            ({"cats": []}, "history.cats: must list earlier revisions of cats"),
            (
                {"dogs": [a_task("dogs", "00000000")], "cats": []},
                "history.cats: must list earlier revisions of cats",
            ),
            ({"cats": [a_task("dogs", "00000000")]}, "history.cats: must list earlier revisions of cats"),
            (
                {"cats": [a_task("cats", "00000000"), a_task("dogs", "00000000")]},
                "history.cats: must list earlier revisions of cats",
            ),
            ({"cats": [a_task()]}, "history.cats: has the revision 12345678 twice"),
            ({"cats": [a_task("cats", "0" * 8)] * 2}, "history.cats: has the revision 00000000 twice"),
            (
                {"cats": [a_task("cats", "0" * 8) | {"rank": 3}]},
                "tasks: cats has rank 3, the compression ratio 0.5 gives 4",
            ),
            ({"../x": [a_task()]}, "history"),
        ],
    )
    def test_all_else(self, history: Content, sentence: str) -> None:
        with pytest.raises(ManifestError, match=sentence):
            parse(setting("history", value=history))

    def test_tasks_may_share_a_revision(self) -> None:
        assert len(parse(setting("tasks", value=[a_task(), a_task("dogs")])).tasks) == 2


FILE = "calibration-12345678.safetensors"


def calibrated(tasks: Content | None = None, first_pass: str = "pretrained", **changes: Any) -> Change:
    """Adds a calibration of both tasks, or of others."""
    entry = {"file": FILE, "tasks": tasks or {"dogs": "abcdef12", "cats": "12345678"}, "images": 1} | changes

    def change(m: Content) -> None:
        m.update(calibration=entry, files=m["files"] | {entry["file"]: HASH})
        m["router"]["first_pass"] = first_pass

    return change


class TestCalibration:
    def test_a_task_has_its_place_in_it(self) -> None:
        manifest = parse(calibrated())
        assert manifest.calibrated_tasks(["cats", "dogs"]) == (1, 0)
        assert manifest.calibrated_tasks(["dogs", "cats"]) == (1, 0), "in the store's order"
        assert manifest.calibrated_tasks(["dogs"]) == (0,)
        assert manifest.calibrated_tasks(["cats"]) == (1,)
        assert manifest.calibrated_tasks([]) == ()
        assert parse().calibrated_tasks(["cats"]) is None

    def test_it_holds_for_its_revisions(self) -> None:
        manifest = parse(calibrated({"dogs": "abcdef12", "cats": "00000000"}))
        assert manifest.calibrated_tasks(["dogs"]) == (0,)
        assert manifest.calibrated_tasks(["cats"]) is None
        assert manifest.calibrated_tasks(["cats", "dogs"]) is None
        assert parse(calibrated({"dogs": "abcdef12"})).calibrated_tasks(["cats", "dogs"]) is None

    def test_on_the_merged_base_it_holds_for_all_tasks_together(self) -> None:
        manifest = parse(calibrated(first_pass="merged_base"))
        assert manifest.calibrated_tasks(["cats", "dogs"]) == (1, 0)
        assert manifest.calibrated_tasks(["cats"]) is None
        of_more = {"dogs": "abcdef12", "cats": "12345678", "gone": "00000000"}
        assert parse(calibrated(of_more, "merged_base")).calibrated_tasks(["cats", "dogs"]) is None
        assert parse(calibrated(of_more)).calibrated_tasks(["cats", "dogs"]) == (1, 0)

    @pytest.mark.parametrize("images", [1, (1 << 53) - 1])
    def test_as_many_images_as_json_can_count(self, images: int) -> None:
        assert parse(calibrated(images=images)).calibration is not None

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"images": 0}, "calibration.images: .*greater than or equal to 1"),
            ({"images": 1 << 53}, "calibration.images: .*less than or equal to"),
            ({"file": "calibration.safetensors"}, "calibration.file: must be calibration-"),
            ({"file": "calibration-x/y.safetensors"}, "calibration.file: must be calibration-"),
            ({"file": "x/calibration-y.safetensors"}, "calibration.file: must be calibration-"),
            ({"surprise": 1}, "calibration.surprise: Extra inputs"),
            ({"tasks": {"cats": "x"}}, "calibration.tasks"),
        ],
    )
    def test_all_else(self, changes: Content, sentence: str) -> None:
        with pytest.raises(ManifestError, match=sentence):
            parse(calibrated(**changes))

    def test_its_file_is_one_of_the_store(self) -> None:
        with pytest.raises(ManifestError, match=f"files: must be {FILE}, pretrained.safetensors"):
            parse(lambda m: (calibrated()(m), m["files"].pop(FILE)))
        with pytest.raises(ManifestError, match=r"files: must be pretrained\.safetensors"):
            parse(setting("files", FILE, value=HASH))


def test_tasks_are_found_by_name() -> None:
    manifest = parse()
    found = manifest.find_task("dogs")
    assert found is not None
    assert found.revision == "abcdef12"
    assert manifest.find_task("cat") is None


def test_a_manifest_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse().merged_base = "stored"
