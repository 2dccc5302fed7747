"""Checkpoints made to harm whoever builds a store of them: each ends in one sentence.

These held already before, though some of them with a sentence about something else (the shard that the last
of two equal keys names is missing, the standard deviation is not the pretrained model's):

shard_outside, absolute_shard, missing_shard, index_without_a_map, index_of_two_minds, pickle_as_tensors,
compressed_pickle, nan_in_the_config, config_of_two_minds, deep_config, huge_sizes, negative_sizes,
fifo_weights, fifo_pickle, fifo_head, endless_labels, tiny_deviation, folder_of_weights,
huge_declared_weights, nan_weights, flat_head, nan_head, head_of_integers, labels_that_are_no_texts

and these did not: they hung, were built, took their size in memory, or ended in a traceback or in many
lines:

shard_that_no_system_can_name, tensor_in_two_shards, pickle_with_code, old_pickle_with_code,
config_of_100_megabytes, fifo_config, fifo_preprocessor, label_that_clears_the_screen
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.hostile.harms import UNHARMED, Harms, assert_one_sentence, tensor_file
from tests.hostile.opening import Ending, run
from tests.models import Suite

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
# What a pickle makes if it is executed.
EXECUTED = "executed"

HARMS = Harms()
harm = HARMS.harm


def replaced(folder: Path, name: str, content: bytes | str) -> None:
    """Makes a file another."""
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def configured(folder: Path, name: str = "config.json", **changes: Any) -> None:
    """Changes some keys of a configuration."""
    path = folder / name
    content = json.loads(path.read_text()) if path.exists() else {}
    replaced(folder, name, json.dumps(content | changes))


def sharded(folder: Path, shard: str) -> None:
    """Has the weights in a shard of that name, and in no other file."""
    (folder / WEIGHTS).unlink()
    replaced(folder, INDEX, json.dumps({"weight_map": {"x": shard}}))


def fifo(folder: Path, name: str) -> None:
    """Puts a FIFO in place of a file."""
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)


@harm("must name its shards as files of its own folder")
def shard_outside(folder: Path) -> None:
    sharded(folder, "../../../etc/passwd")


@harm("must name its shards as files of its own folder")
def absolute_shard(folder: Path) -> None:
    sharded(folder, "/etc/passwd")


@harm("must name its shards as files of its own folder")
def shard_that_no_system_can_name(folder: Path) -> None:
    sharded(folder, "a\0b\ud800")


@harm("index.json names gone.safetensors, which is not there")
def missing_shard(folder: Path) -> None:
    sharded(folder, "gone.safetensors")


@harm("has no weight_map")
def index_without_a_map(folder: Path) -> None:
    sharded(folder, "x")
    replaced(folder, INDEX, '{"weight_map": ["x"]}')


@harm("index.json is not valid JSON: the key 'x' is there twice")
def index_of_two_minds(folder: Path) -> None:
    sharded(folder, "x")
    replaced(folder, INDEX, '{"weight_map": {"x": "a.safetensors", "x": "b.safetensors"}}')


@harm("holds .*, which a.safetensors holds too")
def tensor_in_two_shards(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "a.safetensors")
    shutil.copy(folder / "a.safetensors", folder / "b.safetensors")
    replaced(folder, INDEX, '{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}')


@harm("model.safetensors cannot be used: ")
def pickle_as_tensors(folder: Path) -> None:
    replaced(folder, WEIGHTS, pickle.dumps({"weight": 1}))


class Code:
    """Runs a command when it is unpickled by anything but a careful loader."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@harm("is not a state dict that can be loaded safely")
def pickle_with_code(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({"weight": Code(folder / EXECUTED)}, folder / PICKLE)


@harm("is not a state dict that can be loaded safely")
def old_pickle_with_code(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    replaced(folder, PICKLE, pickle.dumps(Code(folder / EXECUTED)))


@harm("has compressed parts")
def compressed_pickle(folder: Path) -> None:
    """Two megabytes that become two gigabytes."""
    (folder / WEIGHTS).unlink()
    with (
        zipfile.ZipFile(folder / PICKLE, "w", zipfile.ZIP_DEFLATED) as bomb,
        bomb.open("x/data.pkl", "w") as out,
    ):
        for _ in range(512):
            out.write(b"\0" * (1 << 20))


@harm("config.json is not valid JSON: NaN is not a finite number")
def nan_in_the_config(folder: Path) -> None:
    configured(folder, layer_norm_eps=float("nan"))


@harm("config.json is not valid JSON: the key 'model_type' is there twice")
def config_of_two_minds(folder: Path) -> None:
    text = (folder / "config.json").read_text().rstrip()
    replaced(folder, "config.json", text[:-1] + ', "model_type": "clip"}')


@harm("config.json is not valid JSON: its values are nested too deeply")
def deep_config(folder: Path) -> None:
    replaced(folder, "config.json", "[" * 1_000_000)


@harm("hidden_size|width")
def huge_sizes(folder: Path) -> None:
    configured(folder, hidden_size=10**12, intermediate_size=2**63)


@harm("depth: .*greater than or equal to 1")
def negative_sizes(folder: Path) -> None:
    configured(folder, num_hidden_layers=-1)


@harm("config.json cannot be read: it has 100,000,000 bytes")
def config_of_100_megabytes(folder: Path) -> None:
    with open(folder / "config.json", "ab") as file:
        file.write(b" " * (100_000_000 - file.tell()))


@harm("config.json cannot be read: it is a FIFO")
def fifo_config(folder: Path) -> None:
    fifo(folder, "config.json")


@harm("model.safetensors cannot be read: it is a FIFO")
def fifo_weights(folder: Path) -> None:
    fifo(folder, WEIGHTS)


@harm("pytorch_model.bin cannot be read: it is a FIFO")
def fifo_pickle(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    fifo(folder, PICKLE)


@harm("head.safetensors .*it is a FIFO")
def fifo_head(folder: Path) -> None:
    fifo(folder, "head.safetensors")


@harm("labels.json .*it is a device")
def endless_labels(folder: Path) -> None:
    (folder / "labels.json").unlink()
    (folder / "labels.json").symlink_to("/dev/zero")


@harm("preprocessor_config.json cannot be read: it is a FIFO")
def fifo_preprocessor(folder: Path) -> None:
    fifo(folder, "preprocessor_config.json")


@harm("preprocessor_config.json: std.0: .*greater than or equal to")
def tiny_deviation(folder: Path) -> None:
    configured(folder, "preprocessor_config.json", image_std=[1e-300, 1.0, 1.0])


@harm("model.safetensors cannot be read: it is a folder")
def folder_of_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()


@harm("model.safetensors cannot be used: .*does not have as many bytes")
def huge_declared_weights(folder: Path) -> None:
    header = '{"weight":{"dtype":"F32","shape":[1000000000,1000000],"data_offsets":[0,8]}}'
    replaced(folder, WEIGHTS, tensor_file(header, b"\0" * 8))


@harm("holds NaN, Inf or a number beyond")
def nan_weights(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    next(tensor for name, tensor in tensors.items() if name.endswith("fc1.weight"))[0, 0] = float("nan")
    save_file(tensors, folder / WEIGHTS)


def head(folder: Path, **tensors: torch.Tensor) -> None:
    """Makes the head another."""
    save_file(tensors, folder / "head.safetensors")


@harm("weight must be ")
def flat_head(folder: Path) -> None:
    head(folder, weight=torch.ones(64), logit_scale=torch.tensor(1.0))


@harm("weight holds NaN")
def nan_head(folder: Path) -> None:
    head(folder, weight=torch.full((4, 16), float("nan")), logit_scale=torch.tensor(1.0))


@harm("must be floating-point numbers")
def head_of_integers(folder: Path) -> None:
    head(folder, weight=torch.ones(4, 16, dtype=torch.int64), logit_scale=torch.tensor(1))


@harm("must hold a JSON list of class names")
def labels_that_are_no_texts(folder: Path) -> None:
    replaced(folder, "labels.json", '[1, null, {}, "cat"]')


@harm("holds a label with control characters")
def label_that_clears_the_screen(folder: Path) -> None:
    replaced(folder, "labels.json", '["a", "b", "c", "\\u001b[2J"]')


@pytest.fixture(scope="module")
def endings(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ending]:
    """How the build of every hostile checkpoint ended, and of one that nobody harmed."""
    folders = HARMS.copies(suite.tasks[0].checkpoint, tmp_path_factory.mktemp("hostile"))
    ended = dict(zip(folders, run("checkpoint", suite.pretrained, *folders.values()), strict=True))
    assert not [name for name, folder in folders.items() if (folder / EXECUTED).exists()], (
        "a pickle was executed"
    )
    return ended


def test_the_checkpoint_was_good(endings: dict[str, Ending]) -> None:
    assert endings[UNHARMED].kind == "built", endings[UNHARMED]


@pytest.mark.parametrize("name", HARMS)
def test_a_hostile_checkpoint_ends_in_one_sentence(endings: dict[str, Ending], name: str) -> None:
    assert_one_sentence(endings[name], "StoreError", HARMS[name])
