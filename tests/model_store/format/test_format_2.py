"""Format version 2: what it says that version 1 cannot, the bytes of it, and when it is written."""

from __future__ import annotations

import hashlib
import json
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from mass_serve.backbone.architecture import Architecture, Pooling
from mass_serve.model_store.errors import ManifestError
from mass_serve.model_store.format.architecture_v2 import NestedArchitecture
from mass_serve.model_store.format.factoring import factored_shapes
from mass_serve.model_store.format.file_names import TOKENIZER_FILE
from mass_serve.model_store.format.manifest import Manifest, lowest_version, parse_manifest
from mass_serve.model_store.format.preprocessing import TextPreprocessing
from tests.encoders import ENCODERS, TEXT_ENCODERS
from tests.model_store.format.test_format import GOLDEN_MANIFEST

Content = dict[str, Any]
GOLDEN_BACKBONE: Content = {
    "embedding": {
        "kind": "patches",
        "image_size": 4,
        "patch_size": 2,
        "bias": True,
        "class_token": True,
        "registers": 2,
        "norm": False,
    },
    "block": {
        "kind": "pre_norm",
        "width": 4,
        "num_attention_heads": 2,
        "mlp_width": 8,
        "activation": "silu",
        "gated": True,
        "qkv_bias": False,
        "layer_norm_eps": 1e-06,
    },
    "depth": 1,
    "pooling": {"kind": "class_and_mean", "projection_dim": None},
}
GOLDEN_2: Content = GOLDEN_MANIFEST | {
    "format_version": 2,
    "backbone": GOLDEN_BACKBONE,
    "preprocessing": GOLDEN_MANIFEST["preprocessing"] | {"resize": "square"},
}
GOLDEN_TEXT = b"""{
  "format_version": 2,
  "store_revision": "0123456789ab",
  "backbone": {
    "embedding": {
      "kind": "patches",
      "image_size": 4,
      "patch_size": 2,
      "bias": true,
      "class_token": true,
      "registers": 2,
      "norm": false
    },
    "block": {
      "kind": "pre_norm",
      "width": 4,
      "num_attention_heads": 2,
      "mlp_width": 8,
      "activation": "silu",
      "gated": true,
      "qkv_bias": false,
      "layer_norm_eps": 1e-6
    },
    "depth": 1,
    "pooling": {
      "kind": "class_and_mean",
      "projection_dim": null
    }
  },
"""
GOLDEN_SHA256 = "0f489b641f1a81dc1fdb583449ba4e3a00a18a0ad01d3fea6cb5e50aa2870bb9"


def _parse(content: Content) -> Manifest:
    return parse_manifest(json.dumps(content).encode())


def test_the_bytes_of_a_manifest() -> None:
    content = _parse(GOLDEN_2).to_bytes()
    assert content.startswith(GOLDEN_TEXT)
    assert b'    ],\n    "resize": "square"\n  },\n' in content
    assert [*json.loads(content)] == [*json.loads(_parse(GOLDEN_MANIFEST).to_bytes())]
    assert parse_manifest(content).to_bytes() == content
    assert hashlib.sha256(content).hexdigest() == GOLDEN_SHA256


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_is_read_as_it_was_written(name: str) -> None:
    encoder = ENCODERS[name]
    manifest = _of(encoder)
    again = parse_manifest(manifest.to_bytes())
    assert (again.format_version, again.backbone) == (2, encoder)


def _of(encoder: Architecture) -> Manifest:
    """The golden manifest with another encoder."""
    golden = _parse(GOLDEN_MANIFEST)
    rank = max(1, encoder.width // 2)
    size = encoder.patches.image_size
    return golden.model_copy(
        update={
            "backbone": encoder,
            "preprocessing": golden.preprocessing.model_copy(update={"size": size, "crop": size}),
            "router": golden.router.model_copy(update={"token": encoder.tokens[0]}),
            "factored_parameters": tuple(factored_shapes(encoder, golden.patch_embedding)),
            "tasks": tuple(task.model_copy(update={"rank": rank}) for task in golden.tasks),
        }
    )


def test_the_lowest_version_that_says_everything_is_written() -> None:
    """A store of version 2 that has become one of version 1 is written as one."""
    golden = _parse(GOLDEN_MANIFEST)
    square = golden.preprocessing.model_copy(update={"resize": "square"})
    rounded = golden.preprocessing.model_copy(update={"crop_rounding": "half_even"})
    scaled = golden.preprocessing.model_copy(update={"decode": "scaled"})
    averaging = replace(golden.backbone, pooling=Pooling(None, "mean"))
    for update, version in (
        ({}, 1),
        ({"preprocessing": square}, 2),
        ({"preprocessing": rounded}, 2),
        ({"preprocessing": scaled}, 2),
        ({"backbone": averaging}, 2),
    ):
        manifest = golden.model_copy(update=update)
        assert lowest_version(manifest) == version
        written = parse_manifest(manifest.to_bytes())
        assert written.format_version == version
        back = written.model_copy(update={"backbone": golden.backbone, "preprocessing": golden.preprocessing})
        assert back.to_bytes() == golden.to_bytes()


def _changed(*path: str, value: object) -> Content:
    content = deepcopy(GOLDEN_2)
    *steps, last = path
    at = content
    for step in steps:
        at = at[step]
    at[last] = value
    return content


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            _changed("backbone", "embedding", "kind", value="pixels"),
            r"embedding: Input tag 'pixels' .* 'patches'",
        ),
        (
            _changed("backbone", "embedding", "registers", value=-1),
            r"embedding\.patches\.registers: .*greater than",
        ),
        (
            _changed("backbone", "embedding", "bias", value=1),
            r"embedding\.patches\.bias: Input should be a valid bool",
        ),
        (
            _changed("backbone", "embedding", "surprise", value=1),
            r"embedding\.patches\.surprise: Extra inputs",
        ),
        (_changed("backbone", "embedding", "patch_size", value=5), "patch_size 5 exceeds image_size 4"),
        (_changed("backbone", "embedding", "class_token", value=False), "needs a class token, and there is"),
        (
            _changed("backbone", "block", "kind", value="no_norm"),
            r"block\.kind: Input should be 'pre_norm' or 'post_norm'",
        ),
        (_changed("backbone", "block", "activation", value="relu"), r"block\.activation: Input should be"),
        (
            _changed("backbone", "block", "num_attention_heads", value=3),
            "not a multiple of 3 attention heads",
        ),
        (_changed("backbone", "depth", value=1025), r"backbone\.depth: .*less than or equal to 1024"),
        (
            _changed("backbone", "pooling", "kind", value="max"),
            "pooling: Input tag 'max' .* expected tags: 'class'",
        ),
        (_changed("backbone", "pooling", "norm", value=True), r"pooling\.class_and_mean\.norm: Extra inputs"),
        (_changed("backbone", "surprise", value=1), r"backbone\.surprise: Extra inputs"),
        (_changed("backbone", value=GOLDEN_MANIFEST["backbone"]), r"backbone\.embedding: Field required"),
        (_changed("format_version", value=1), r"backbone\.image_size: Field required"),
        (_changed("preprocessing", "crop_rounding", value="up"), r"crop_rounding: Input should be 'down'"),
        (
            _changed("preprocessing", "resize", value="stretch"),
            r"preprocessing\.resize: Input should be",
        ),
        (
            GOLDEN_MANIFEST | {"preprocessing": GOLDEN_2["preprocessing"]},
            "says what format version 2 has come with, and its format_version is 1",
        ),
    ],
)
def test_what_is_refused(content: Content, sentence: str) -> None:
    with pytest.raises(ManifestError, match=sentence):
        _parse(content)


@pytest.mark.parametrize("pooled", ["mean", "mean_before_norm"])
def test_a_router_of_an_encoder_without_class_token_takes_the_mean(pooled: str) -> None:
    def without_class_token(token: str) -> Content:
        content = _changed("backbone", "embedding", "class_token", value=False)
        content["backbone"]["pooling"]["kind"] = pooled
        content["router"]["token"] = token
        return content

    assert _parse(without_class_token("mean")).backbone.tokens == ("mean",)
    with pytest.raises(ManifestError, match=r"router\.token: must be mean, there is no class token"):
        _parse(without_class_token("class"))
    late = without_class_token("mean")
    late["router"]["late_token"] = "class"
    with pytest.raises(ManifestError, match=r"router\.late_token: must be mean, there is no class token"):
        _parse(late)


def test_the_bytes_of_what_was_measured_of_a_task() -> None:
    """They make a store one of version 2; where they are unknown, there are no such keys."""
    golden = _parse(GOLDEN_MANIFEST)
    measured = golden.tasks[0].model_copy(
        update={"distance": 0.03125, "energy_kept": 0.75, "exit_price": 0.0625}
    )
    content = golden.model_copy(update={"tasks": (measured, *golden.tasks[1:])}).to_bytes()
    assert content.startswith(b'{\n  "format_version": 2,\n')
    assert (
        b'      "individual_accuracy": null,\n      "distance": 0.03125,\n      "energy_kept": 0.75,\n'
        b'      "exit_price": 0.0625,\n      "files"' in content
    )
    assert parse_manifest(content).tasks[0] == measured
    assert not any(key in golden.to_bytes() for key in (b"energy_kept", b"exit_price"))


def test_the_bytes_of_the_token_of_late_energies() -> None:
    golden = _parse(GOLDEN_MANIFEST)
    router = golden.router.model_copy(update={"late_token": "mean"})
    content = golden.model_copy(update={"router": router}).to_bytes()
    assert content.startswith(b'{\n  "format_version": 2,\n')
    assert b'    "token": "class",\n    "late_token": "mean",\n' in content
    assert parse_manifest(content).router == router
    assert b"late_token" not in golden.to_bytes()


def test_the_bytes_of_the_share_of_mlps_behind_the_first_third() -> None:
    golden = _parse(GOLDEN_MANIFEST)
    router = golden.router.model_copy(update={"late_mlp_share": 0.5})
    content = golden.model_copy(update={"router": router}).to_bytes()
    assert content.startswith(b'{\n  "format_version": 2,\n')
    assert b'    "late_mlp_share": 0.5,\n' in content
    assert parse_manifest(content).router == router
    assert b"late_mlp_share" not in golden.to_bytes()
    for wrong in (0, 1.1, "1"):
        with pytest.raises(ManifestError, match=r"router\.late_mlp_share"):
            _parse(_changed("router", "late_mlp_share", value=wrong))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("distance", -0.1),
        ("distance", 1e31),
        ("energy_kept", 1.001),
        ("energy_kept", "1"),
        ("exit_price", -1e-9),
        ("exit_price", 2.001),
    ],
)
def test_what_cannot_have_been_measured_is_refused(key: str, value: object) -> None:
    content = deepcopy(GOLDEN_2)
    content["tasks"][0][key] = value
    with pytest.raises(ManifestError, match=rf"tasks\.0\.{key}: "):
        _parse(content)


@pytest.mark.parametrize("key", ["distance", "exit_price"])
def test_version_1_has_nothing_that_was_measured_of_a_task(key: str) -> None:
    content = deepcopy(GOLDEN_MANIFEST)
    content["tasks"][0][key] = 0.5
    with pytest.raises(ManifestError, match="says what format version 2 has come with"):
        _parse(content)


def _of_texts(**backbone: object) -> Content:
    """The golden manifest with an encoder of texts, and with parts of it changed."""
    encoder = TEXT_ENCODERS["modernbert"]
    golden = _of(ENCODERS["vit"])
    manifest = golden.model_copy(
        update={
            "backbone": encoder,
            "preprocessing": TextPreprocessing(kind="text", max_tokens=encoder.num_tokens),
            "router": golden.router.model_copy(update={"token": "mean"}),
            "factored_parameters": tuple(factored_shapes(encoder, "factored")),
            "patch_embedding": "factored",
            "files": {**golden.files, TOKENIZER_FILE: "0" * 64},
            "tasks": tuple(task.model_copy(update={"rank": encoder.width // 2}) for task in golden.tasks),
        }
    )
    content: Content = json.loads(manifest.to_bytes())
    return content | backbone


def test_an_encoder_of_texts_is_read_as_it_was_written() -> None:
    for name, encoder in TEXT_ENCODERS.items():
        form = NestedArchitecture.of(encoder)
        assert NestedArchitecture.model_validate_json(form.model_dump_json()).architecture() == encoder, name
    content = _of_texts()
    manifest = _parse(content)
    assert (manifest.format_version, manifest.backbone) == (2, TEXT_ENCODERS["modernbert"])
    assert json.loads(manifest.to_bytes()) == content


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"preprocessing": GOLDEN_2["preprocessing"]},
            "preprocessing: is of images, and the backbone reads texts",
        ),
        (
            {"preprocessing": {"kind": "text", "max_tokens": 71}},
            "max_tokens: must be at most the backbone's max_tokens",
        ),
        ({"preprocessing": {"kind": "text", "max_tokens": 0}}, r"preprocessing\.max_tokens: .*greater"),
        (
            {"preprocessing": {"kind": "text", "max_tokens": 5, "cut_end": "both"}},
            r"preprocessing\.cut_end: Input should be 'right' or 'left'",
        ),
        ({"preprocessing": {"kind": "sound"}}, r"preprocessing\.kind: Input should be 'text'"),
        ({"patch_embedding": "averaged"}, "patch_embedding: must be factored, the backbone has no patches"),
    ],
)
def test_what_is_refused_of_texts(changes: Content, sentence: str) -> None:
    with pytest.raises(ManifestError, match=sentence):
        _parse(_of_texts() | changes)


def test_images_are_not_prepared_as_texts() -> None:
    content = deepcopy(GOLDEN_2) | {"preprocessing": {"kind": "text", "max_tokens": 5}}
    with pytest.raises(ManifestError, match="preprocessing: is of texts, and the backbone reads images"):
        _parse(content)


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        ({"kind": "stack"}, "hidden: a head of the kind stack has a hidden layer, and no other has one"),
        ({"kind": "linear", "hidden": {"activation": "tanh", "norm_eps": None}}, "and no other has one"),
        (
            {"kind": "stack", "hidden": {"activation": "elu", "norm_eps": None}},
            r"activation: Input should be",
        ),
        ({"kind": "stack", "hidden": {"activation": "tanh", "norm_eps": 0}}, r"norm_eps: .*greater than"),
    ],
)
def test_a_stack_has_a_hidden_layer(head: Content, sentence: str) -> None:
    content = deepcopy(GOLDEN_2)
    content["tasks"][0]["head"] = {"kind": "stack", "hidden": {"activation": "relu", "norm_eps": 1e-5}}
    assert _parse(content).tasks[0].head.hidden is not None
    content["tasks"][0]["head"] = head
    with pytest.raises(ManifestError, match=sentence):
        _parse(content)


def _with_head(content: Content, **head: object) -> Content:
    """A manifest whose first task has that in its head, too."""
    changed = deepcopy(content)
    changed["tasks"][0]["head"] |= head
    return changed


def test_a_key_of_a_later_program_is_told_as_one() -> None:
    with pytest.raises(ManifestError, match=r"head\.later: Extra .*; if a newer mass-serve wrote"):
        _parse(_with_head(GOLDEN_2, later=1))


def test_a_head_has_a_threshold_for_each_label_or_none() -> None:
    content = _with_head(GOLDEN_2, thresholds=[0.0, 0.25])
    manifest = _parse(content)
    assert manifest.tasks[0].head.thresholds == (0.0, 0.25)
    assert parse_manifest(manifest.to_bytes()) == manifest
    assert b"thresholds" not in _parse(GOLDEN_2).to_bytes()
    with pytest.raises(ManifestError, match="says what format version 2 has come with"):
        _parse(_with_head(GOLDEN_MANIFEST, thresholds=[0.5, 0.5]))


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        ({"thresholds": [0.5]}, "there are 1, and the task .* has 2 labels"),
        ({"thresholds": [0.5, 0.5, 0.5]}, "there are 3, and the task .* has 2 labels"),
        ({"thresholds": [0.5, 1.5]}, r"thresholds\.1: Input should be less than or equal to 1"),
        ({"thresholds": [0.5, -0.5]}, r"thresholds\.1: Input should be greater than or equal to 0"),
        ({"thresholds": [0.5, "0.5"]}, r"thresholds\.1: Input should be a valid number"),
        ({"thresholds": 0.5}, r"thresholds: Input should be a valid"),
    ],
)
def test_thresholds_that_fit_no_head(head: Content, sentence: str) -> None:
    with pytest.raises(ManifestError, match=sentence):
        _parse(_with_head(GOLDEN_2, **head))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_thresholds_are_numbers(number: str) -> None:
    text = json.dumps(_with_head(GOLDEN_2, thresholds=[0.5, 0.75])).replace("0.75", number)
    with pytest.raises(ManifestError, match=f"{number} is not a finite number"):
        parse_manifest(text.encode())


def test_what_classifies_tokens_has_no_thresholds() -> None:
    with pytest.raises(ManifestError, match="a head for each token gives one label, and has none"):
        _parse(_with_head(_of_texts(), each_token=True, thresholds=[0.5, 0.5]))


def test_a_head_for_each_token_is_a_texts() -> None:
    content = _with_head(_of_texts(), each_token=True)
    with pytest.raises(ManifestError, match="must be rebuilt where no task is routed"):
        _parse(content)
    content["merged_base"] = "rebuilt"
    content["files"] = {name: own for name, own in content["files"].items() if "merged" not in name}
    manifest = _parse(content)
    assert json.loads(manifest.to_bytes()) == content
    assert (manifest.routed_tasks, manifest.token_tasks) == ((), (manifest.tasks[0].name,))
    assert b"each_token" not in _parse(_with_head(_of_texts(), each_token=False)).to_bytes()
    with pytest.raises(ManifestError, match="has a head for each token, and the backbone reads images"):
        _parse(_with_head(GOLDEN_2, each_token=True))
    with pytest.raises(ManifestError, match="each_token: Input should be a valid boolean"):
        _parse(_with_head(_of_texts(), each_token="yes"))
