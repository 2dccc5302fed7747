"""Stores made to harm whoever opens them: each ends in one sentence, within bounds of time and memory.

Before files were read through one descriptor, JSON strictly and tensors for finite numbers, these held
already:

truncated_manifest, invalid_utf_8, byte_order_mark, utf_16, deep_nesting, nan_in_the_manifest,
number_beyond_all, unknown_key, newer_version, path_out_of_the_store, absolute_path, reserved_name,
negative_size, size_of_64_bits, huge_encoder, wrong_rank, history_that_has_the_present, folder_manifest,
fifo_tensors, folder_head, socket_head, endless_head, link_to_a_secret, wrong_hash, pickle_as_tensors,
header_of_64_bits, huge_declared_shape, empty_huge_shape, negative_shape, duplicate_tensors,
overlapping_tensors, deep_header, flat_tensor, nan_head, infinite_logit_scale, nan_calibration

and these did not: they hung, were served, took their size in memory, ended in an error of the arithmetic
that named no file, or put a terminal's control characters into the message:

manifest_of_100_megabytes, duplicate_keys, key_that_clears_the_screen, label_with_control_characters,
tiny_deviation, huge_mean, tiny_temperature, fifo_manifest, endless_manifest, tensor_that_clears_the_screen,
wrong_dtype, nan_weights, nan_blocks, infinite_delta, largest_singular_value, huge_logit_scale,
nan_merged_base

large_vectors and large_singular_values ended, and end, in that error of the arithmetic when a first image
is answered.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mass_serve.model_store.format.architecture_v1 import FlatArchitecture
from mass_serve.model_store.format.architecture_v2 import NestedArchitecture
from mass_serve.model_store.format.factoring import factored_shapes
from tests.hostile.harms import UNHARMED, Harms, assert_one_sentence, assert_that_it_says, tensor_file
from tests.hostile.opening import Ending, run

MANIFEST = "manifest.json"
PRETRAINED = "pretrained.safetensors"
HARMS = Harms()
harm = HARMS.harm


def edit(store: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the manifest."""
    content = json.loads((store / MANIFEST).read_text())
    change(content)
    (store / MANIFEST).write_text(json.dumps(content))


def replace_text(store: Path, old: str, new: str) -> None:
    """Changes the manifest's text, for what is no JSON or not what Python would write."""
    text = (store / MANIFEST).read_text()
    assert old in text
    (store / MANIFEST).write_text(text.replace(old, new, 1))


def file_of(store: Path, kind: str) -> str:
    """The path of the first task's experts or head."""
    task = json.loads((store / MANIFEST).read_text())["tasks"][0]
    return next(str(path) for path in task["files"] if path.endswith(f"{kind}.safetensors"))


def vouch(store: Path, path: str, content: bytes) -> None:
    """Makes a file what the manifest vouches for."""
    (store / path).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()

    def set_digest(manifest: dict[str, Any]) -> None:
        for files in [manifest["files"], *(task["files"] for task in manifest["tasks"])]:
            if path in files:
                files[path] = digest

    edit(store, set_digest)


def vouch_tensors(store: Path, path: str, **changed: torch.Tensor) -> None:
    """Makes some tensors of a file others, with the right hash."""
    save_file({**load_file(store / path), **changed}, store / path)
    vouch(store, path, (store / path).read_bytes())


def first(store: Path, path: str, suffix: str = "") -> tuple[str, torch.Tensor]:
    """The first tensor of a file whose name ends so."""
    return next(item for item in sorted(load_file(store / path).items()) if item[0].endswith(suffix))


def spoil(store: Path, path: str, suffix: str, value: float) -> None:
    """Makes one number of a tensor another."""
    name, tensor = first(store, path, suffix)
    tensor.view(-1)[-1] = value
    vouch_tensors(store, path, **{name: tensor})


# The manifest's bytes.


@harm("manifest.json is not valid JSON: ")
def truncated_manifest(store: Path) -> None:
    os.truncate(store / MANIFEST, 500)


@harm("manifest.json .*cannot be read: it has 100,000,000 bytes, at most 67,108,864 are read")
def manifest_of_100_megabytes(store: Path) -> None:
    with open(store / MANIFEST, "ab") as file:
        file.write(b" " * (100_000_000 - file.tell()))


@harm("manifest.json is not valid JSON: byte 1 is not UTF-8")
def invalid_utf_8(store: Path) -> None:
    (store / MANIFEST).write_bytes(b"{\xff}")


@harm("manifest.json is not valid JSON: .*BOM")
def byte_order_mark(store: Path) -> None:
    (store / MANIFEST).write_bytes(b"\xef\xbb\xbf" + (store / MANIFEST).read_bytes())


@harm("manifest.json is not valid JSON: byte 0 is not UTF-8")
def utf_16(store: Path) -> None:
    (store / MANIFEST).write_bytes((store / MANIFEST).read_text().encode("utf-16"))


@harm("manifest.json is not valid JSON: its values are nested too deeply")
def deep_nesting(store: Path) -> None:
    (store / MANIFEST).write_text('{"a":' * 500_000)


@harm("manifest.json is not valid JSON: the key 'router' is there twice")
def duplicate_keys(store: Path) -> None:
    """The last one would win: another router than the one that a reviewer reads."""
    router = json.dumps({**json.loads((store / MANIFEST).read_text())["router"], "top_k": 1})
    (store / MANIFEST).write_text((store / MANIFEST).read_text().rstrip()[:-1] + f', "router": {router}}}')


@harm("manifest.json is not valid JSON: NaN is not a finite number")
def nan_in_the_manifest(store: Path) -> None:
    edit(store, lambda m: m["router"].update(temperature=float("nan")))


@harm("manifest.json is not valid JSON: 1e999 is not a finite number")
def number_beyond_all(store: Path) -> None:
    edit(store, lambda m: m["router"].update(temperature=12345.5))
    replace_text(store, "12345.5", "1e999")


# What the manifest says.


@harm("manifest.json is not valid: surprise: Extra inputs")
def unknown_key(store: Path) -> None:
    edit(store, lambda m: m.update(surprise=1))


@harm(r"manifest.json is not valid: \\x1b\[2J\\nx: Extra inputs")
def key_that_clears_the_screen(store: Path) -> None:
    edit(store, lambda m: m.update({"\x1b[2J\nx": 1}))


@harm("has format version 3")
def newer_version(store: Path) -> None:
    edit(store, lambda m: m.update(format_version=3))


@harm(r"manifest.json is not valid: backbone\.embedding: Field required")
def version_2_with_the_encoder_of_version_1(store: Path) -> None:
    def flatten(m: dict[str, Any]) -> None:
        flat = FlatArchitecture.of(NestedArchitecture(**m["backbone"]).architecture())
        m.update(backbone=flat.model_dump())

    edit(store, flatten)


@harm(r"manifest.json is not valid: backbone\.image_size: Field required")
def version_1_with_the_encoder_of_version_2(store: Path) -> None:
    edit(store, lambda m: m.update(format_version=1))


def rename_head(store: Path, to: str) -> None:
    """Gives the first task's head another path."""
    path = file_of(store, "head")
    edit(store, lambda m: m["tasks"][0]["files"].update({to: m["tasks"][0]["files"].pop(path)}))


@harm("manifest.json is not valid: .*pattern")
def path_out_of_the_store(store: Path) -> None:
    rename_head(store, "tasks/../../../etc/passwd")


@harm("manifest.json is not valid: .*pattern")
def absolute_path(store: Path) -> None:
    rename_head(store, "/etc/passwd")


@harm("manifest.json is not valid: .*has a meaning in requests")
def reserved_name(store: Path) -> None:
    edit(store, lambda m: m["tasks"][0].update(name="auto"))


@harm("manifest.json is not valid: .*a label has control characters: ")
def label_with_control_characters(store: Path) -> None:
    edit(store, lambda m: m["tasks"][0]["labels"].__setitem__(0, "cat\x1b]0;owned\x07"))


@harm("manifest.json is not valid: backbone.block.width: .*greater than or equal to 1")
def negative_size(store: Path) -> None:
    edit(store, lambda m: m["backbone"]["block"].update(width=-32))


@harm("manifest.json is not valid: backbone.block.mlp_width: .*less than or equal to 65536")
def size_of_64_bits(store: Path) -> None:
    edit(store, lambda m: m["backbone"]["block"].update(mlp_width=2**63))


@harm("pretrained.safetensors does not fit the manifest: ")
def huge_encoder(store: Path) -> None:
    """The largest sizes that are no lie in themselves: 1024 blocks of width 65536."""

    def enlarge(m: dict[str, Any]) -> None:
        m["backbone"].update(depth=1024)
        m["backbone"]["block"].update(width=65536, mlp_width=65536)
        architecture = NestedArchitecture(**m["backbone"]).architecture()
        m["factored_parameters"] = list(factored_shapes(architecture, m["patch_embedding"]))
        for task in m["tasks"]:
            task["rank"] = int(65536 * m["compression_ratio"])

    edit(store, enlarge)


@harm("manifest.json is not valid: preprocessing.std.1: .*greater than or equal to")
def tiny_deviation(store: Path) -> None:
    edit(store, lambda m: m["preprocessing"].update(std=[1.0, 1e-300, 1.0]))


@harm("manifest.json is not valid: preprocessing.mean.2: .*less than or equal to")
def huge_mean(store: Path) -> None:
    edit(store, lambda m: m["preprocessing"].update(mean=[0.0, 0.0, 1e308]))


@harm("manifest.json is not valid: router.temperature: .*greater than or equal to")
def tiny_temperature(store: Path) -> None:
    edit(store, lambda m: m["router"].update(temperature=1e-300))


@harm("manifest.json is not valid: tasks: .* has rank 3")
def wrong_rank(store: Path) -> None:
    edit(store, lambda m: m["tasks"][0].update(rank=3))


@harm("manifest.json is not valid: history.* twice")
def history_that_has_the_present(store: Path) -> None:
    """Of two hashes of one file the last would count."""

    def repeat(m: dict[str, Any]) -> None:
        entry = json.loads(json.dumps(m["tasks"][0]))
        entry["files"] = dict.fromkeys(entry["files"], "0" * 64)
        m["history"] = {entry["name"]: [entry]}

    edit(store, repeat)


# What is at the place of a file.


@harm("manifest.json .*cannot be read: it is a FIFO")
def fifo_manifest(store: Path) -> None:
    (store / MANIFEST).unlink()
    os.mkfifo(store / MANIFEST)


@harm("manifest.json .*cannot be read: it is a folder")
def folder_manifest(store: Path) -> None:
    (store / MANIFEST).unlink()
    (store / MANIFEST).mkdir()


@harm("manifest.json .*cannot be read: it is a device")
def endless_manifest(store: Path) -> None:
    (store / MANIFEST).unlink()
    (store / MANIFEST).symlink_to("/dev/zero")


@harm("pretrained.safetensors .*cannot be read: it is a FIFO")
def fifo_tensors(store: Path) -> None:
    (store / PRETRAINED).unlink()
    os.mkfifo(store / PRETRAINED)


@harm("head.safetensors .*cannot be read: it is a folder")
def folder_head(store: Path) -> None:
    path = store / file_of(store, "head")
    path.unlink()
    path.mkdir()


@harm("head.safetensors .*cannot be read: it is a socket")
def socket_head(store: Path) -> None:
    path = store / file_of(store, "head")
    path.unlink()
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


@harm("head.safetensors .*cannot be read: it is a device")
def endless_head(store: Path) -> None:
    path = store / file_of(store, "head")
    path.unlink()
    path.symlink_to("/dev/zero")


@harm("head.safetensors .* is damaged")
def link_to_a_secret(store: Path) -> None:
    """Links are followed: what is read through one is held to the hash, and nothing else is told of it."""
    path = store / file_of(store, "head")
    path.unlink()
    path.symlink_to("/etc/passwd")


@harm("pretrained.safetensors .* is damaged")
def wrong_hash(store: Path) -> None:
    with open(store / PRETRAINED, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))


# What is in the tensor files, whose hashes are right.


@harm("head.safetensors cannot be used: ")
def pickle_as_tensors(store: Path) -> None:
    vouch(store, file_of(store, "head"), pickle.dumps({"weight": 1}))


@harm("head.safetensors cannot be used: .*header of 9223372036854775808 bytes")
def header_of_64_bits(store: Path) -> None:
    vouch(store, file_of(store, "head"), (2**63).to_bytes(8, "little") + b"{}")


@harm("head.safetensors cannot be used: .*weight does not have as many bytes")
def huge_declared_shape(store: Path) -> None:
    header = '{"weight":{"dtype":"F32","shape":[1000000000,1000000],"data_offsets":[0,8]}}'
    vouch(store, file_of(store, "head"), tensor_file(header, b"\0" * 8))


@harm("head.safetensors cannot be used: .*the shape of weight is too large")
def empty_huge_shape(store: Path) -> None:
    header = f'{{"weight":{{"dtype":"F32","shape":[0,{2**62},{2**62}],"data_offsets":[0,0]}}}}'
    vouch(store, file_of(store, "head"), tensor_file(header))


@harm("head.safetensors cannot be used: .*must be sizes")
def negative_shape(store: Path) -> None:
    header = '{"weight":{"dtype":"F32","shape":[-1,-2],"data_offsets":[0,8]}}'
    vouch(store, file_of(store, "head"), tensor_file(header, b"\0" * 8))


@harm("head.safetensors cannot be used: .*the key 'weight' is there twice")
def duplicate_tensors(store: Path) -> None:
    one = '"weight":{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}'
    vouch(store, file_of(store, "head"), tensor_file(f"{{{one % (0, 4)},{one % (4, 8)}}}", b"\0" * 8))


@harm("head.safetensors cannot be used: .*bias and weight overlap")
def overlapping_tensors(store: Path) -> None:
    one = '"%s":{"dtype":"F32","shape":[2],"data_offsets":[%d,%d]}'
    both = f"{{{one % ('bias', 0, 8)},{one % ('weight', 4, 12)}}}"
    vouch(store, file_of(store, "head"), tensor_file(both, b"\0" * 12))


@harm("head.safetensors cannot be used: .*nested too deeply")
def deep_header(store: Path) -> None:
    vouch(store, file_of(store, "head"), tensor_file('{"a":' * 500_000))


@harm(r"pretrained.safetensors does not fit the manifest: .*\\x1b\[2J is missing or unexpected")
def tensor_that_clears_the_screen(store: Path) -> None:
    vouch_tensors(store, PRETRAINED, **{"\x1b[2J": torch.zeros(1)})


@harm("pretrained.safetensors cannot be used: .* must be floating-point numbers")
def wrong_dtype(store: Path) -> None:
    name, tensor = first(store, PRETRAINED)
    vouch_tensors(store, PRETRAINED, **{name: torch.zeros(tensor.shape, dtype=torch.int64)})


@harm("pretrained.safetensors does not fit the manifest: .* has shape")
def flat_tensor(store: Path) -> None:
    name, tensor = first(store, PRETRAINED, "fc1.weight")
    vouch_tensors(store, PRETRAINED, **{name: tensor.flatten()})


@harm("pretrained.safetensors cannot be used: .* holds NaN, Inf or a number beyond")
def nan_weights(store: Path) -> None:
    spoil(store, PRETRAINED, "", float("nan"))


@harm("experts.safetensors cannot be used: .*vh holds NaN, Inf or a number beyond")
def nan_blocks(store: Path) -> None:
    spoil(store, file_of(store, "experts"), ".vh", float("nan"))


@harm("experts.safetensors cannot be used: .*delta holds NaN, Inf or a number beyond")
def infinite_delta(store: Path) -> None:
    spoil(store, file_of(store, "experts"), ".delta", float("-inf"))


@harm("experts.safetensors cannot be used: .*s holds NaN, Inf or a number beyond")
def largest_singular_value(store: Path) -> None:
    """It is finite, and its square is not."""
    spoil(store, file_of(store, "experts"), "weight.s", 3e38)


@harm("the model's output is not finite")
def large_vectors(store: Path) -> None:
    """Each number is in range, and their products are not in float32."""
    edit(store, lambda m: m["router"].update(first_pass="merged_base"))
    path = file_of(store, "experts")
    tensors = load_file(store / path)
    vouch_tensors(store, path, **{name: t * 0 + 9e29 for name, t in tensors.items() if name.endswith(".vh")})


@harm("the model's output is not finite")
def large_singular_values(store: Path) -> None:
    """Each number is in range, and what follows from them is not."""
    path = file_of(store, "experts")
    tensors = load_file(store / path)
    vouch_tensors(store, path, **{name: t * 0 + 9e29 for name, t in tensors.items() if name.endswith(".s")})


@harm("head.safetensors cannot be used: weight holds NaN")
def nan_head(store: Path) -> None:
    spoil(store, file_of(store, "head"), "weight", float("nan"))


@harm("head.safetensors cannot be used: logit_scale ")
def infinite_logit_scale(store: Path) -> None:
    vouch_tensors(store, file_of(store, "head"), logit_scale=torch.tensor(float("inf")))


@harm("head.safetensors cannot be used: logit_scale must be one positive number")
def huge_logit_scale(store: Path) -> None:
    vouch_tensors(store, file_of(store, "head"), logit_scale=torch.tensor(1e20))


@harm("merged_base-12345678.safetensors cannot be used: .* holds NaN")
def nan_merged_base(store: Path) -> None:
    path = "merged_base-12345678.safetensors"
    shutil.copy(store / PRETRAINED, store / path)
    edit(store, lambda m: (m.update(merged_base="stored"), m["files"].update({path: ""})))
    edit(store, lambda m: m["router"].update(first_pass="merged_base"))
    spoil(store, path, "", float("nan"))


@harm("calibration-12345678.safetensors")
def nan_calibration(store: Path) -> None:
    path = "calibration-12345678.safetensors"
    manifest = json.loads((store / MANIFEST).read_text())
    sizes = [len(task["labels"]) for task in manifest["tasks"]]
    kinds, tasks, classes = 3 * max(1, manifest["backbone"]["depth"] // 3) + 2, len(sizes), sum(sizes)
    owner = torch.zeros(tasks, classes, dtype=torch.float64)
    for task, size in enumerate(sizes):
        owner[task, sum(sizes[:task]) : sum(sizes[:task]) + size] = 1
    covariance = torch.eye(kinds * tasks, dtype=torch.float64).reshape(kinds, tasks, kinds, tasks)
    tensors = {
        "means": torch.full((classes, kinds, tasks), torch.nan, dtype=torch.float64),
        "covariance": covariance,
        "images": torch.ones(classes, dtype=torch.float64),
        "owner": owner,
    }
    save_file(tensors, store / path)
    revisions = {task["name"]: task["revision"] for task in manifest["tasks"]}
    entry = {"file": path, "tasks": revisions, "images": 10}
    edit(store, lambda m: (m.update(calibration=entry), m["files"].update({path: ""})))
    vouch(store, path, (store / path).read_bytes())


# What only whoever serves a store computes; `serve` ends with this sentence too.
NOT_VERIFIED = {"large_vectors", "large_singular_values"}


@pytest.fixture(scope="module")
def endings(built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ending]:
    """How every hostile store ended, and one that nobody harmed."""
    stores = HARMS.copies(built, tmp_path_factory.mktemp("hostile"))
    return dict(zip(stores, run("store", *stores.values()), strict=True))


def test_the_store_was_good(endings: dict[str, Ending]) -> None:
    assert endings[UNHARMED].kind == "served"
    assert not endings[UNHARMED].verified


@pytest.mark.parametrize("name", HARMS)
def test_a_hostile_store_ends_in_one_sentence(endings: dict[str, Ending], name: str) -> None:
    kind = "FloatingPointError" if name in NOT_VERIFIED else "StoreError"
    assert_one_sentence(endings[name], kind, HARMS[name])


@pytest.mark.parametrize("name", sorted(HARMS.keys() - NOT_VERIFIED))
def test_verify_says_it_too(endings: dict[str, Ending], name: str) -> None:
    assert endings[name].verified, "verify calls it good"
    assert_that_it_says(endings[name].verified[0], HARMS[name])
